"""`python -m captioner.evaluation`: caption scores of a checkpoint."""

import sys

from captioner.environment import run_settled

if __name__ == "__main__":
    sys.exit(run_settled("captioner.evaluation.caption_scores"))

"""`python -m captioner.faithfulness`: a short name for `captioner.evaluation.faithfulness`."""

import sys

from captioner.environment import run_settled

if __name__ == "__main__":
    sys.exit(run_settled("captioner.evaluation.faithfulness"))

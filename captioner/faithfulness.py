"""`python -m captioner.faithfulness` runs `captioner.evaluation.faithfulness` as a program."""

import sys

from captioner.environment import run_settled

if __name__ == "__main__":
    sys.exit(run_settled("captioner.evaluation.faithfulness"))

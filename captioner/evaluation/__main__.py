"""`python -m captioner.evaluation`: caption scores of a checkpoint."""

import sys

from captioner.environment import run_settled
from captioner.evaluation.command_lines import scores_options


def main() -> int:
    """Scores a checkpoint as the command line says. Returns the exit status."""
    return run_settled("captioner.evaluation.caption_scores", scores_options())


if __name__ == "__main__":
    sys.exit(main())

"""`python -m captioner.faithfulness` runs `captioner.evaluation.faithfulness` as a program."""

import sys

from captioner.environment import run_settled
from captioner.evaluation.command_lines import faithfulness_options


def main() -> int:
    """Measures a checkpoint as the command line says. Returns the exit status."""
    return run_settled("captioner.evaluation.faithfulness", faithfulness_options())


if __name__ == "__main__":
    sys.exit(main())

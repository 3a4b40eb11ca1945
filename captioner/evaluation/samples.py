"""`python -m captioner.evaluation.samples`: how good the samples are that visitors see."""

import sys

from captioner.environment import run_settled
from captioner.evaluation.command_lines import samples_options

if __name__ == "__main__":
    sys.exit(run_settled("captioner.evaluation.sample_scores", samples_options()))

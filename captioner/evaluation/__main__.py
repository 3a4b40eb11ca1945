"""`python -m captioner.evaluation`: caption scores of a checkpoint."""

import sys

from captioner.evaluation.caption_scores import main

if __name__ == "__main__":
    sys.exit(main())

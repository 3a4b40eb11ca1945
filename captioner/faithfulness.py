"""`python -m captioner.faithfulness`: a short name for `captioner.evaluation.faithfulness`."""

import sys

from captioner.evaluation.faithfulness import main

if __name__ == "__main__":
    sys.exit(main())

"""Lets the programs in this folder import the package and the tests' helpers of their own checkout.

A benchmark thus measures the code beside it, whatever is installed, and runs on a bare machine.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

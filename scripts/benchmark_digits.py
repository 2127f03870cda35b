"""Measure on digits what every algorithm of the zoo costs; see ``--help``."""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    importlib.import_module("scripts.zoo.digits").main()

"""Reproduce rows of the classification zoo; see ``--help``."""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    sys.exit(importlib.import_module("scripts.zoo.command").main())

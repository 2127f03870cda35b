"""The command line, on top of everything: `main` is the program ``lightning-nncf``.

Nothing imports from here but the entry point and scripts that train as the program does, with `NNCFCLI`. A command
reads its arguments, calls what a user of the package would call, and prints: what it does belongs below.
"""

from __future__ import annotations

from lightning_nncf.cli.program import main
from lightning_nncf.cli.training import NNCFCLI, FloatTraining, QuantizeCLI

__all__ = ["NNCFCLI", "FloatTraining", "QuantizeCLI", "main"]

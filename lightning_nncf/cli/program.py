"""The program ``lightning-nncf``: finds the command that its arguments name, and shows errors without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from jsonargparse import auto_cli

from lightning_nncf.cli.commands import export, schedule, schema, verify
from lightning_nncf.cli.training import NNCFCLI, PROGRAM, QuantizeCLI, cli_for
from lightning_nncf.errors import LightningNNCFError

__all__ = ["main"]

_DESCRIPTION = (
    "Train, compress, export and prove networks. Besides Lightning's commands below there are `quantize` (compress "
    "with no training), `export` (a checkpoint to ONNX), `verify` (run an ONNX file in every runtime), `schema` (JSON "
    "Schema of the configuration) and `schedule` (a drawing of the levels of a configuration); each has its own --help."
)

_COMMANDS: dict[str, Callable[..., None]] = {
    "export": export,
    "verify": verify,
    "schema": schema,
    "schedule": schedule,
}


def main(args: Sequence[str] | None = None) -> None:
    """Run ``lightning-nncf``.

    Args:
        args: Arguments after the program's name; default: those of the process.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    try:
        if arguments and arguments[0] == "quantize":
            cli_for(QuantizeCLI, arguments[1:])(arguments[1:]).quantize()
        elif arguments and arguments[0] in _COMMANDS:
            auto_cli(_COMMANDS[arguments[0]], args=arguments[1:], as_positional=True, prog=f"{PROGRAM} {arguments[0]}")
        else:
            cli_for(NNCFCLI, arguments)(
                args=None if args is None else arguments, parser_kwargs={"description": _DESCRIPTION}
            )
    except (LightningNNCFError, TypeError, ValueError) as error:
        own = _own_error(error)
        if own is None:
            raise
        sys.exit(f"{PROGRAM}: {type(own).__name__}: {own}")


def _own_error(error: BaseException | None) -> LightningNNCFError | None:
    """Return the error of ours that another stems from: jsonargparse wraps those that making an object raised."""
    while error is not None and not isinstance(error, LightningNNCFError):
        error = error.__cause__ or error.__context__
    return error

"""The commands that train: Lightning's own, with a float training and a comparison around ``fit``, and ``quantize``."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_info
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from lightning_nncf.callback import NNCFCallback
from lightning_nncf.callback.comparison import Comparison
from lightning_nncf.callback.packages import lightning_cli, package_in_use
from lightning_nncf.core.checkpoint import load_weights
from lightning_nncf.errors import ConfigError

__all__ = ["NNCFCLI", "PROGRAM", "FloatTraining", "QuantizeCLI", "cli_for", "module_from"]

PROGRAM = "lightning-nncf"
"""Name of the command."""


@dataclass(frozen=True, kw_only=True)
class FloatTraining:
    """Training without compression before the compressed one, in the same command.

    Args:
        max_epochs: Epochs; 0 compresses the module as it is, which suits pretrained ones.
    """

    max_epochs: int = 0


class _FitCommands:
    """What our LightningCLI does beside Lightning's, whichever of its packages that comes from."""

    trainer: Any
    model: Any
    datamodule: Any
    config: Any
    config_init: Any
    trainer_class: Any
    save_config_callback: Any
    _get: Callable[..., Any]

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what ``fit`` understands beside Lightning's own arguments."""
        parser.add_class_arguments(FloatTraining, "float_training")

    def before_fit(self) -> None:
        """Train in float if asked to, and measure the float module."""
        self.comparison = Comparison(self.trainer, self.model, self.datamodule)
        self._train_float()
        if self._callbacks():
            self.comparison.measure_plain()

    def after_fit(self) -> None:
        """Measure the compressed module in PyTorch and in each runtime, and print the table."""
        callbacks = self._callbacks()
        for callback in callbacks:
            if callback.compressed is None or not self.trainer.is_global_zero:
                continue
            self.comparison.measure_compressed(callback.compressed, callback.samples, callback.proof)
            title = "Results" if len(callbacks) == 1 else f"Results, network {callback.network_path!r}"
            sys.stdout.write(self.comparison.table(title) + "\n")

    def _train_float(self) -> None:
        epochs = self._get(self.config_init, "float_training").max_epochs
        if epochs > 0:
            rank_zero_info(f"Float training for {epochs} epochs")
            settings = dict(self._get(self.config_init, "trainer", default={}))
            others = [c for c in settings["callbacks"] or [] if not isinstance(c, self._not_for_float())]
            settings |= {"max_epochs": epochs, "callbacks": copy.deepcopy(others)}
            self.trainer_class(**settings).fit(self.model, datamodule=self.datamodule)

    def _not_for_float(self) -> tuple[type, ...]:
        saving = self.save_config_callback
        return (NNCFCallback,) if saving is None else (NNCFCallback, saving)

    def _callbacks(self) -> list[NNCFCallback]:
        return [callback for callback in self.trainer.callbacks if isinstance(callback, NNCFCallback)]


class NNCFCLI(_FitCommands, LightningCLI):
    """LightningCLI that can train in float first and compares all runtimes at the end of ``fit``."""


class _QuantizeCommands(_FitCommands):
    """What the command ``quantize`` does."""

    def __init__(self, args: Sequence[str]) -> None:
        with warnings.catch_warnings():
            # Ours are those of the command line, without the command and with no epochs.
            warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
            super().__init__(  # type: ignore[call-arg]
                args=[*args, "--trainer.max_epochs=0"],
                run=False,
                save_config_callback=None,
                parser_kwargs={
                    "prog": f"{PROGRAM} quantize",
                    "description": "Compress a network without training, export it and prove the file.",
                },
            )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what ``quantize`` understands beside Lightning's own arguments."""
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--ckpt_path", type=Path | None, default=None, help="Lightning checkpoint with the float weights."
        )
        parser.add_argument(
            "--output",
            type=Path | None,
            default=None,
            help=(
                "ONNX file to write, relative to the working directory; the compressed checkpoint goes beside it. "
                "Default: the callback's export_path, which is relative to trainer.default_root_dir."
            ),
        )

    def quantize(self) -> None:
        """Do it.

        Raises:
            ConfigError: The file has no `NNCFCallback`, or nothing says where to write.
            CheckpointError: The checkpoint is compressed already, or holds another network.
        """
        if len(self._callbacks()) != 1:
            raise ConfigError(
                f"`quantize` needs exactly one NNCFCallback in `trainer.callbacks`, got {len(self._callbacks())}; it "
                "holds the configuration of the compression"
            )
        (callback,) = self._callbacks()
        if self.config.output is not None:
            callback.export_path = Path(str(self.config.output)).resolve()
        if callback.export_path is None:
            raise ConfigError("nothing says where to write the model; give `--output` or the callback's `export_path`")
        if self.config.ckpt_path is None:
            self._train_float()
        else:
            load_weights(self.model, self.config.ckpt_path)
        self.comparison = Comparison(self.trainer, self.model, self.datamodule)
        self.comparison.measure_plain()
        self.trainer.fit_loop.max_epochs = 0  # `fast_dev_run` asks for one
        self.trainer.fit(self.model, datamodule=self.datamodule)
        if self.trainer.fast_dev_run:
            return
        checkpoint = callback.target(self.trainer).with_suffix(".ckpt")
        self.trainer.save_checkpoint(checkpoint)
        rank_zero_info(f"wrote {checkpoint}")
        self.after_fit()


class QuantizeCLI(_QuantizeCommands, LightningCLI):
    """Compress without training: calibrate with the train loader, export, prove, compare, save a checkpoint.

    It reads the files that ``fit`` reads. The module is taken as it is made, with the weights of ``--ckpt_path`` if one
    is given, else after its ``float_training``.
    """


def cli_for(own: type[Any], arguments: Sequence[str]) -> Any:
    """Return one of our classes of LightningCLI, derived from that of the package which the module belongs to."""
    base = lightning_cli(package_in_use(arguments))
    return own if issubclass(own, base) else type(own.__name__, (own.__bases__[0], base), {"__doc__": own.__doc__})


def module_from(config: Path) -> Callable[[], Any]:
    """Return what makes the module of a LightningCLI file."""

    def make() -> Any:
        arguments = ["--config", str(config)]
        return cli_for(NNCFCLI, arguments)(args=arguments, run=False, save_config_callback=None).model

    return make

"""The command line: Lightning's own commands, and quantize, export, verify, schema and schedule."""

from __future__ import annotations

import copy
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli
from lightning_utilities.core.rank_zero import rank_zero_info
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from lightning_nncf.callback import NNCFCallback
from lightning_nncf.callback.comparison import Comparison
from lightning_nncf.callback.packages import lightning_cli, package_in_use
from lightning_nncf.callback.report import weights_table
from lightning_nncf.config import NNCFConfig, json_schema
from lightning_nncf.core.checkpoint import load_weights, open_checkpoint
from lightning_nncf.core.courses import courses_text
from lightning_nncf.errors import ConfigError, LightningNNCFError
from lightning_nncf.export import DEFAULT_OPSET, ExportFormat
from lightning_nncf.files import write_text
from lightning_nncf.proof import export_and_verify, verify_file

__all__ = ["NNCFCLI", "FloatTraining", "QuantizeCLI", "export", "main", "schedule", "schema", "verify"]

_PROGRAM = "lightning-nncf"
_DESCRIPTION = (
    "Train, compress, export and prove networks. Besides Lightning's commands below there are `quantize` (compress "
    "with no training), `export` (a checkpoint to ONNX), `verify` (run an ONNX file in every runtime), `schema` (JSON "
    "Schema of the configuration) and `schedule` (a drawing of the levels of a configuration); each has its own --help."
)


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
                    "prog": f"{_PROGRAM} quantize",
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


def _cli_for(own: type[Any], arguments: Sequence[str]) -> Any:
    """Return one of our classes of LightningCLI, derived from that of the package which the module belongs to."""
    base = lightning_cli(package_in_use(arguments))
    return own if issubclass(own, base) else type(own.__name__, (own.__bases__[0], base), {"__doc__": own.__doc__})


def export(
    ckpt_path: Path,
    output: Path = Path("model.onnx"),
    module_config: Path | None = None,
    export_format: ExportFormat = "qdq",
    opset: int = DEFAULT_OPSET,
    check: bool = True,
    network: str | None = None,
    runtimes: list[str] | None = None,
    tolerance: float | None = None,
    dynamic_batch: bool = True,
    dynamic_shapes: dict[str, dict[int, str]] | None = None,
    require_int8: bool = False,
) -> None:
    """Export the compressed network of a checkpoint to ONNX and prove the file.

    Args:
        ckpt_path: Checkpoint written while the callback was in use.
        output: File to write.
        module_config: LightningCLI file whose ``model`` section makes the module; needed only where the checkpoint does
            not hold the module's hyperparameters.
        export_format: ``qdq`` for standard ONNX, ``openvino_fq`` for FakeQuantize.
        opset: Version of the standard operator set.
        check: Run the file in ONNX Runtime and OpenVINO and compare it with PyTorch.
        network: Path of the network in the module, where the checkpoint holds several that are compressed.
        runtimes: Runtimes to run it in, as in ``[onnxruntime]``. Default: all that are installed.
        tolerance: Largest relative root mean square by which outputs may differ. Default: 0.1.
        dynamic_batch: Leave the batch size open.
        dynamic_shapes: Other sizes to leave open, as in ``{input_ids: {1: length}}``.
        require_int8: Fail, instead of warning, if quantized layers run in float or the file is slower than float.
    """
    make = None if module_config is None else _module_from(module_config)
    compressed = open_checkpoint(ckpt_path, make, network=network)
    proof = export_and_verify(
        compressed,
        output,
        export_format=export_format,
        opset=opset,
        dynamic_batch=dynamic_batch,
        dynamic_shapes=dynamic_shapes,
        verify=runtimes if check and runtimes is not None else check,
        tolerance=tolerance,
        require_int8=require_int8,
    )
    sys.stdout.write(
        f"wrote {proof.export.path} ({proof.export.size / 1e6:.2f} MB, {proof.export.deflated_size / 1e6:.2f} MB "
        "deflated)\n"
    )
    sys.stdout.write(weights_table(proof.export.weights) + "\n")
    if proof.verification is not None:
        sys.stdout.write(proof.verification.table() + "\n")


def verify(
    model: Path,
    runtimes: list[str] | None = None,
    tolerance: float | None = None,
    batch_size: int = 2,
    require_int8: bool = False,
) -> None:
    """Run an ONNX file in every installed runtime and show what they do with it; exit with 1 if they disagree.

    Args:
        model: The file.
        runtimes: Runtimes to run it in, as in ``[onnxruntime]``. Default: all that are installed.
        tolerance: Largest relative root mean square by which the runtimes may differ. Default: 0.1.
        batch_size: Batch size, where the file leaves it open; 1, 3 and 8 are tried too.
        require_int8: Exit with 1, too, if quantized layers run in float.
    """
    report = verify_file(model, runtimes=runtimes, tolerance=tolerance, batch_size=batch_size)
    sys.stdout.write(report.table() + "\n")
    if not report.proven or (require_int8 and report.warnings):
        sys.exit(1)


def schema(output: Path | None = None) -> None:
    """Write the JSON Schema of the configuration, for editors.

    Args:
        output: File to write; default: standard output.
    """
    text = json.dumps(json_schema(), indent=2) + "\n"
    if output is None:
        sys.stdout.write(text)
    else:
        write_text(output, text)


def schedule(file: Path, epochs: int = 100, steps_per_epoch: int = 1) -> None:
    """Draw how the levels of a configuration will rise.

    Args:
        file: Configuration, JSON or YAML.
        epochs: Epochs to draw.
        steps_per_epoch: Optimizer steps in each epoch.
    """
    sys.stdout.write(courses_text(NNCFConfig.load(file), epochs, steps_per_epoch) + "\n")


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
            _cli_for(QuantizeCLI, arguments[1:])(arguments[1:]).quantize()
        elif arguments and arguments[0] in _COMMANDS:
            auto_cli(_COMMANDS[arguments[0]], args=arguments[1:], as_positional=True, prog=f"{_PROGRAM} {arguments[0]}")
        else:
            _cli_for(NNCFCLI, arguments)(
                args=None if args is None else arguments, parser_kwargs={"description": _DESCRIPTION}
            )
    except (LightningNNCFError, TypeError, ValueError) as error:
        own = _own_error(error)
        if own is None:
            raise
        sys.exit(f"{_PROGRAM}: {type(own).__name__}: {own}")


def _own_error(error: BaseException | None) -> LightningNNCFError | None:
    """Return the error of ours that another stems from: jsonargparse wraps those that making an object raised."""
    while error is not None and not isinstance(error, LightningNNCFError):
        error = error.__cause__ or error.__context__
    return error


def _module_from(config: Path) -> Callable[[], Any]:
    """Return what makes the module of a LightningCLI file."""

    def make() -> Any:
        arguments = ["--config", str(config)]
        return _cli_for(NNCFCLI, arguments)(args=arguments, run=False, save_config_callback=None).model

    return make

"""Compression as one Lightning callback."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn

from lightning_nncf import heap
from lightning_nncf.callback.adopting import Adopting
from lightning_nncf.callback.best import best_network, warn_of_monitors
from lightning_nncf.callback.distributed import renew_wrapper
from lightning_nncf.callback.launching import send_back
from lightning_nncf.callback.neighbours import refuse_neighbours, renews_statistics
from lightning_nncf.callback.packages import join_packages
from lightning_nncf.callback.peers import refuse_same_file, refuse_twice, statistics_prefix
from lightning_nncf.callback.preparation import Preparation
from lightning_nncf.callback.report import show_proof, statistics_table, write_layers
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.core.compression import calibration_from
from lightning_nncf.errors import ConfigError
from lightning_nncf.export import check_writable
from lightning_nncf.proof import Proof, Tolerance, export_and_verify
from lightning_nncf.proof.verify import chosen_runtimes

__all__ = ["NNCFCallback"]


class NNCFCallback(Adopting):
    """Compress the network of a LightningModule while it is trained, then export and prove it.

    Add it to ``Trainer(callbacks=[...])`` and call ``fit`` with a trained module: the network is captured, the
    algorithms of the configuration are inserted, initialized with batches of the train loader and trained with it. At
    the end an ONNX file is written and compared with PyTorch in ONNX Runtime and OpenVINO. Checkpoints hold everything
    that is needed to go on. With ``Trainer(max_epochs=0)`` all this happens without any training. With
    ``Trainer(fast_dev_run=True)`` nothing is written.

    Args:
        config: NNCF configuration: path of a JSON (comments allowed) or YAML file, or the same keys inline. Its scopes
            are relative to the network, not to the module: ``layer1``, not ``model.layer1``, where ``model`` is the
            network.
        network: Path of the network in the module, as in ``model.backbone``; an empty string is the module itself.
            Default: the module's only child with parameters, else the module itself.
        export_path: Where to write the ONNX file after ``fit``: an absolute path, or one relative to the Trainer's
            ``default_root_dir`` (by default the working directory); ``null`` writes none.
        export_format: ``qdq`` for standard QuantizeLinear and DequantizeLinear, ``openvino_fq`` for FakeQuantize.
        opset: ONNX opset of the exported file.
        verify: Run the exported file in ONNX Runtime and OpenVINO, and fail if it disagrees with PyTorch; or a list of
            the runtimes to run it in, ``onnxruntime`` and ``openvino``.
        tolerance: Largest relative root mean square by which outputs may differ, or a Tolerance. Default: 0.1.
        dynamic_batch: Leave the batch size open in the file.
        dynamic_shapes: Other sizes to leave open: by name of the input a name per axis, as in
            ``{"input_ids": {1: "length"}}``.
        export_from: What ``fit`` exports at its end: ``best``, the best checkpoint of a checkpoint callback that
            monitors a metric, unless it is less compressed than the last state; or ``last``. Default: ``best`` if there
            is such a callback.
        require_int8: Fail, instead of warning, if quantized layers run in float or the file is slower than float.

    Raises:
        ConfigError: The configuration is wrong; the message names the key.
    """

    def __init__(
        self,
        config: str | Path | dict[str, Any] | NNCFConfig,
        *,
        network: str | None = None,
        export_path: str | Path | None = "model.onnx",
        export_format: Literal["qdq", "openvino_fq"] = "qdq",
        opset: int = 21,
        verify: bool | list[str] = True,
        tolerance: float | Tolerance | None = None,
        dynamic_batch: bool = True,
        dynamic_shapes: dict[str, dict[int, str]] | None = None,
        export_from: Literal["best", "last"] | None = None,
        require_int8: bool = False,
    ) -> None:
        join_packages(NNCFCallback)
        if export_format not in ("qdq", "openvino_fq"):
            raise ConfigError(f"`export_format` must be 'qdq' or 'openvino_fq', got {export_format!r}")
        if export_from not in (None, "best", "last"):
            raise ConfigError(f"`export_from` must be 'best' or 'last', got {export_from!r}")
        super().__init__(NNCFConfig.load(config), network, None if export_path is None else Path(export_path))
        self.export_format = export_format
        self.opset = opset
        self.verify = verify
        if not isinstance(verify, bool):
            chosen_runtimes(verify)
        self.tolerance = None if tolerance is None else Tolerance.of(tolerance)
        self.dynamic_batch = dynamic_batch
        self.dynamic_shapes = dynamic_shapes
        self.export_from = export_from
        self.require_int8 = require_int8
        self._preparation = Preparation(self)
        self._passive = False
        self._epoch_begun = False

    # Life cycle -------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Check what the Trainer has, and prepare to insert the algorithms once the module is complete."""
        peers = self._peers(trainer)
        refuse_twice(peers)
        refuse_neighbours(trainer)
        if stage == "fit":
            refuse_same_file(peers, trainer)
            send_back(self, trainer)
            if self.export_path is not None and trainer.is_global_zero and not trainer.fast_dev_run:
                check_writable(self.target(trainer))
        self._adopt(pl_module)
        if self.compressed is not None and stage == "fit":
            self.compressed.step_is_due = True  # unless a checkpoint goes on in the middle of a step
        self._preparation.begin(trainer, stage)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Tell the algorithms about the optimizers, and how many steps an epoch has, where that is known.

        On a CPU the memory that a step frees is kept for the next one until training ends.
        """
        self._epoch_begun = False
        batches = trainer.num_training_batches
        warn_of_monitors(trainer)
        if self.accuracy is not None:
            self.accuracy.begin(trainer)
        if self.compressed is not None:
            self._preparation.averages.follow(trainer, self.compressed, self.network_path or "")
            self.compressed.attach(trainer.optimizers)
        if self.compressed is not None and math.isfinite(batches) and pl_module.automatic_optimization:
            self.compressed.announce_steps(math.ceil(batches / trainer.accumulate_grad_batches))
        if self.compressed is not None and trainer.strategy.root_device.type == "cpu":
            heap.keep()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Give back the memory that was kept from step to step."""
        if trainer.strategy.root_device.type == "cpu":
            heap.release()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Do the same when training fails, after which there is no teardown."""
        self.on_train_end(trainer, pl_module)
        self._preparation.release_data()

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Let the algorithms look at the gradients of the network before an optimizer that trains it steps."""
        if self.compressed is not None:
            self.compressed.before_optimizer_step(optimizer)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Tell the schedulers that an epoch begins."""
        self._epoch_begun = True
        self._passive = renews_statistics(trainer)
        if self.compressed is not None and self._passive:
            self.compressed.rest()
        elif self.compressed is not None:
            self.compressed.epoch_step()
            if self.compressed.take_resized():
                renew_wrapper(trainer)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Tell the schedulers that an optimizer step begins; batches that only add to its gradients begin none.

        With several optimizers those that train the network count, all steps within one batch as one.
        """
        if batch_idx == 0 and not self._epoch_begun:
            # Lightning tells of no epoch that follows a checkpoint of the last batch before it.
            self.on_train_epoch_start(trainer, pl_module)
        if self.compressed is not None and not self._passive and self.compressed.step_is_due:
            self.compressed.step()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the statistics."""
        self._epoch_begun = False
        if self.compressed is None:
            return
        prefix = statistics_prefix(self, self._peers(trainer))
        statistics = {f"{prefix}{name}": value for name, value in self.compressed.statistics().items()}
        if statistics:
            pl_module.log_dict(statistics, rank_zero_only=True, batch_size=1)
        if not pl_module.automatic_optimization and not self._loss_taken and self.compressed.present_loss() is not None:
            rank_zero_warn(
                f"{type(pl_module).__name__} optimizes manually and never added `callback.compression_loss()` to its "
                "loss; the compression cannot reach its target"
            )

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Judge what the epoch's validation logged, if training is to know its accuracy."""
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        if self.accuracy is not None and self.compressed is not None and fitting:
            self.accuracy.validated(trainer, self.compressed)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Show what was reached, write the ONNX file and prove it; on rank zero alone, and not in a trial run."""
        if self.compressed is None or not trainer.is_global_zero:
            return
        rank_zero_info(statistics_table(self.compressed.statistics()))
        written = self.export_path is not None and not trainer.fast_dev_run
        if self.accuracy is not None:
            self.accuracy.finish(self.target(trainer) if written else None)
        if trainer.fast_dev_run:
            rank_zero_info("No file is written and nothing is exported under `fast_dev_run`")
        elif self.export_path is not None and not trainer.interrupted:
            target = self.target(trainer)
            chosen, told = (None, "the last state") if self.export_from == "last" else best_network(self, trainer)
            rank_zero_info(f"The file {target.name} is made from {told}")
            write_layers((chosen or self.compressed).rows(), target)
            for line in show_proof(self._export(chosen or self.compressed, target), target):
                rank_zero_info(line)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Give the module its own training step back; the network stays compressed, unless the fit was a trial."""
        self._preparation.end(trainer, pl_module)

    # What users call --------------------------------------------------------------------------------------------------

    def export(self, path: str | Path) -> Proof:
        """Export the compressed network and prove the file.

        Args:
            path: File to write.

        Returns:
            What was written and what running it showed.

        Raises:
            ConfigError: There is no compressed network yet.
            ExportError: The file cannot be written.
            VerificationError: The file disagrees with PyTorch.
        """
        return self._export(self._require_compressed(), path)

    def _export(self, compressed: CompressedNetwork, path: str | Path) -> Proof:
        self.proof = export_and_verify(
            compressed,
            path,
            inputs=compressed.samples or self._require_compressed().samples or self.samples,
            export_format=self.export_format,
            opset=self.opset,
            dynamic_batch=self.dynamic_batch,
            dynamic_shapes=self.dynamic_shapes,
            verify=self.verify,
            tolerance=self.tolerance,
            require_int8=self.require_int8,
        )
        return self.proof

    def initialize_ranges(self, batches: Iterable[Any] | None = None) -> None:
        """Set the ranges of all quantizers again, from the network as training left it; all ranks must call.

        Quantizers pass their input unchanged meanwhile, and parameters stay the same objects.

        Args:
            batches: Batches as the network's loader gives them. Default: the train loader, while ``fit`` runs.

        Raises:
            ConfigError: There is no compressed network yet.
            InitializationError: There are no batches.
        """
        compressed = self._require_compressed()
        compressed.initialize_ranges(None if batches is None else calibration_from(compressed.network, batches))
        self._preparation.averages.restart()

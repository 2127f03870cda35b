"""What a run of the Trainer needs before it begins, and what is given back after it."""

from __future__ import annotations

from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn

from lightning_nncf.callback.accumulation import Accumulation
from lightning_nncf.callback.adopting import Adopting
from lightning_nncf.callback.averaging import Averages, renew_averages
from lightning_nncf.callback.batches.sources import FitData
from lightning_nncf.callback.building import build_compressed, initialization_data
from lightning_nncf.callback.peers import refuse_overlap
from lightning_nncf.callback.report import level_text, summary
from lightning_nncf.callback.tuning import TrialState
from lightning_nncf.callback.wrappers import AddLoss, AfterCall, BeforeCall, unwrap, wrap
from lightning_nncf.ops import describe

__all__ = ["Preparation"]


class Preparation:
    """Inserts the algorithms once Lightning has made and restored a callback's module, and initializes them.

    The network may come into being in the module's own ``setup`` or ``configure_model``, which run after those of
    callbacks, and a checkpoint fixes the structure. So the work is done in front of the strategy's ``setup``: after
    both, but before the optimizers are created. Initialization follows behind it: before any callback's
    ``on_fit_start``.

    Args:
        callback: The callback.
    """

    def __init__(self, callback: Adopting) -> None:
        self._callback = callback
        self._accumulation = Accumulation()
        self._data: Any = None  # what the loops read, while `fit` runs
        self._trial = TrialState()
        self.averages = Averages()

    def begin(self, trainer: Any, stage: str) -> None:
        """Wait for the strategy's ``setup``.

        Args:
            trainer: The Trainer.
            stage: ``fit``, or another one, in which the network runs as it is.
        """
        # One that an error kept from being taken away would do everything twice.
        unwrap(trainer.strategy, "setup", self._insert)
        unwrap(trainer.strategy, "setup", self._initialize)
        if stage == "fit":
            wrap(trainer.strategy, "setup", AfterCall, self._initialize)
        wrap(trainer.strategy, "setup", BeforeCall, self._insert)
        if stage == "fit":
            self._data = FitData.of(trainer)

    def end(self, trainer: Any, module: Any) -> None:
        """Give the module its own training step back; the network stays compressed, unless the fit was a trial."""
        callback = self._callback
        self._accumulation.end(trainer)
        self.averages.end()
        self.release_data()
        if callback.compressed is not None:
            callback.compressed.calibration = None
        for action in (self._insert, self._initialize):
            unwrap(trainer.strategy, "setup", action)
        unwrap(module, "training_step", callback._take_loss)
        if self._trial.noted:
            callback.strip()
            self._trial.give_back(module)

    def release_data(self) -> None:
        """Let go of what the loops read."""
        if self._data is not None:
            self._data.release()
        self._data = None

    def _insert(self, trainer: Any) -> None:
        """Capture the network and insert the algorithms, unless a checkpoint has done so."""
        callback = self._callback
        unwrap(trainer.strategy, "setup", self._insert)
        refuse_overlap(callback._module, callback._peers(trainer))
        if trainer.state.fn == "fit":
            self._trial.note(trainer, callback._module, plain=callback.compressed is None)
            if callback.compressed is None:
                self._build(trainer)
            assert callback.compressed is not None
            self._accumulation.begin(trainer, callback._module, callback.compressed.batch_multiplier)
            wrap(callback._module, "training_step", AddLoss, callback._take_loss)
        elif callback.compressed is not None:
            rank_zero_info(f"`{trainer.state.fn.value}` runs the network {level_text(callback.compressed)}")
        else:
            rank_zero_warn(
                f"`{trainer.state.fn.value}` runs the plain network: it was neither trained with this NNCFCallback nor "
                "loaded from a checkpoint written with it"
            )

    def _build(self, trainer: Any) -> None:
        """Capture the network with the Trainer's data and insert the algorithms."""
        callback = self._callback
        if callback.accuracy is not None:
            callback.accuracy.measure_uncompressed(trainer, callback._module, self._data.validation)
        callback.network_path, callback.compressed = build_compressed(
            trainer,
            callback._module,
            callback.network_path,
            callback.config,
            self._data,
            exported=callback.export_path is not None,
            others=[peer.network_path for peer in callback._peers(trainer)],
        )
        assert callback.compressed.graph is not None
        callback.samples = callback.compressed.graph.example_inputs
        renew_averages(trainer, callback._module)
        for line in summary(callback.compressed):
            rank_zero_info(line)

    def _initialize(self, trainer: Any) -> None:
        """Initialize from the train loader, unless a checkpoint brought the state."""
        callback = self._callback
        unwrap(trainer.strategy, "setup", self._initialize)
        assert callback.compressed is not None
        self.averages.end()
        self.averages.follow(trainer, callback.compressed, callback.network_path or "")
        data = initialization_data(trainer, callback._module, callback.compressed.network, self._data)
        callback.compressed.calibration = data
        if not callback.compressed.initialized:
            rank_zero_info(describe(trainer.strategy.root_device.type))
            self._data.training.prepare()
            callback.compressed.initialize(data)
            self.averages.take_over(callback._module)
            if callback.accuracy is not None:
                callback.accuracy.judge_initialized(
                    trainer, callback._module, self._data.validation, callback.compressed
                )

"""The loaders of a Trainer's loop, for readers that must not disturb the loop."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Any

from lightning_fabric.utilities.data import _set_sampler_epoch, sized_len
from lightning_utilities.core.rank_zero import rank_zero_warn
from pytorch_lightning.utilities.seed import isolate_rng
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from lightning_nncf.callback.batches.generators import Drawn, drawing, passed
from lightning_nncf.callback.batches.loader_copies import can_be_copied, copied
from lightning_nncf.callback.batches.replay import Replayed
from lightning_nncf.callback.running.stand_ins import lightning_part
from lightning_nncf.callback.wrappers import Instead, unwrap, wrap

__all__ = ["FitData", "LoopData"]


class FitData:
    """The data of both loops of a fit, read beside them.

    Args:
        trainer: The Trainer, about to fit.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self.training = LoopData(trainer, training=True)
        self.validation = LoopData(trainer, training=False)
        self.training.install()
        self.validation.install()

    @classmethod
    def of(cls, trainer: Any) -> FitData:
        """Return the data of a Trainer's fit, the same for all callbacks."""
        if trainer not in _OPEN:
            _OPEN[trainer] = cls(trainer)
        return _OPEN[trainer]

    def release(self) -> None:
        """Let the loops have their own loaders again."""
        _OPEN.pop(self._trainer, None)
        self.training.release()
        self.validation.release()


_OPEN: dict[Any, FitData] = {}
"""By Trainer, while it fits."""


class LoopData:
    """The batches of a loop of the Trainer, read beside the loop and without effect on it.

    Before the loop has asked for its loaders they are asked for here, once: the loop gets the same ones when it asks,
    and the global random generators stand where they would stand. Loaders that cannot be read without loss take part
    as `Replayed`.

    Args:
        trainer: The Trainer, fitting.
        training: Whether the training loop is meant, else the validation loop inside it.
    """

    def __init__(self, trainer: Any, *, training: bool) -> None:
        self._trainer = trainer
        self._loop = trainer.fit_loop if training else trainer.fit_loop.epoch_loop.val_loop
        self._connector = lightning_part(trainer, "trainer.connectors.data_connector")
        stages = self._connector.RunningStage
        self._stage = stages.TRAINING if training else stages.VALIDATING
        self._source = self._loop._data_source
        self._held: tuple[Any, Drawn] | None = None
        self._early: Any = None

    def install(self) -> None:
        """Let the loop get its loaders through this."""
        if not isinstance(vars(self._source).get("dataloader"), Instead):
            wrap(self._source, "dataloader", Instead, self._give)

    def release(self) -> None:
        """Let the loop have its own loaders again."""
        unwrap(self._source, "dataloader")
        live = self._loop._combined_loader
        if live is not None and any(isinstance(each, Replayed) for each in live.flattened):
            live.flattened = [each.source if isinstance(each, Replayed) else each for each in live.flattened]
        self._held = self._early = None

    def prepare(self) -> None:
        """Ask for the loaders now, if the loop has not done so."""
        self._combined()

    def read(self) -> Iterator[tuple[Any, int, int]]:
        """Yield the batches of one epoch as they leave the loaders, with their index and that of their loader."""
        live = self._combined()
        if live is None:
            return
        trainer = self._trainer
        with copied(live.flattened, trainer, trainer.lightning_module, trainer.datamodule) as loaders:
            for loader in loaders:
                _set_sampler_epoch(loader, trainer.fit_loop.epoch_progress.current.processed)
            reader = copy.copy(live)
            reader.flattened = loaders
            reader.limits = [self._limit(loader) for loader in live.flattened]
            total = self.total()
            try:
                iterator = iter(reader)
                yield from iterator if total == float("inf") else islice(iterator, int(total))
            finally:
                iterator = reader._iterator = None

    def total(self) -> float:
        """Return the number of batches of an epoch; infinity if it is not known."""
        live = self._combined()
        if live is None or not live.flattened:
            return 0
        modes = lightning_part(self._trainer, "utilities.combined_loader")._SUPPORTED_MODES
        total: float = modes[live._mode]["fn"]([self._limit(loader) for loader in live.flattened])
        return total

    @property
    def loaders(self) -> int:
        """How many loaders there are."""
        live = self._combined()
        return 0 if live is None else len(live.flattened)

    @property
    def sequential(self) -> bool:
        """Whether the loaders follow each other."""
        live = self._combined()
        return live is not None and live._mode == "sequential"

    def _limit(self, loader: Any) -> float:
        length = sized_len(loader)
        limit = getattr(self._trainer, f"limit_{self._stage.dataloader_prefix}_batches")
        found: float = self._connector._parse_num_batches(
            self._stage, float("inf") if length is None else length, limit
        )
        return found

    def _combined(self) -> Any:
        """Return the loop's loaders, or those that it is going to have."""
        if self._loop._combined_loader is not None:
            self._early = None
            return self._loop._combined_loader
        if self._early is None:
            self._early = self._make_early()
        return self._early

    def _make_early(self) -> Any:
        limit = getattr(self._trainer, f"limit_{self._stage.dataloader_prefix}_batches")
        if limit == 0 or not self._source.is_defined():
            return None
        loaders = self._request()
        if loaders is None:
            return None
        kind = self._connector.CombinedLoader
        mode = "max_size_cycle" if self._loop is self._trainer.fit_loop else "sequential"
        combined = copy.copy(loaders) if isinstance(loaders, kind) else kind(loaders, mode)
        with isolate_rng(), warnings.catch_warnings():
            # Lightning says the same when the loop begins
            warnings.simplefilter("ignore")
            if self._trainer.overfit_batches > 0:
                self._connector._resolve_overfit_batches(combined, self._stage)
            fn = self._trainer.state.fn
            combined.flattened = [
                self._connector._process_dataloader(self._trainer, fn, self._stage, loader)
                for loader in combined.flattened
            ]
        return combined

    def _request(self) -> Any:
        """Ask for the loaders before the loop does."""
        if self._held is None:
            unwrap(self._source, "dataloader")
            try:
                self._held = drawing(lambda: self._replayable(self._connector._request_dataloader(self._source)))
            finally:
                self.install()
        return self._held[0]

    def _give(self) -> Any:
        """Answer the loop's request."""
        held, self._held, self._early = self._held, None, None
        if held is not None:
            loaders, drawn = held
            if passed(drawn):
                return loaders
        # asked for again, or drawn at random from generators that have moved since
        return self._replayable(type(self._source).dataloader(self._source))

    def _replayable(self, loaders: Any) -> Any:
        """Let loaders be looked at before training reads them, where copies of them would take from it."""
        if loaders is None:
            return None
        kind = self._connector.CombinedLoader
        combined = loaders if isinstance(loaders, kind) else kind(loaders, "sequential")
        flattened = [self._replayed(loader) for loader in combined.flattened]
        if all(new is old for new, old in zip(flattened, combined.flattened, strict=True)):
            return loaders
        combined.flattened = flattened
        return loaders if isinstance(loaders, kind) else combined.iterables

    def _replayed(self, loader: Any) -> Any:
        if isinstance(loader, Replayed) or can_be_copied(loader):
            return loader
        waits = isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset)
        if waits and self._trainer.world_size > 1 and not isinstance(loader.sampler, DistributedSampler):
            # Lightning is still to give each process its part, which it does to a DataLoader only
            rank_zero_warn(
                f"the sampler of {type(loader).__name__} cannot be copied, so initialization takes batches that "
                "training will not get in its first epoch; give the loader a DistributedSampler of your own, or a "
                "sampler that `copy.deepcopy` can copy"
            )
            return loader
        return Replayed(loader)

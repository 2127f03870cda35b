"""Batch norms whose running statistics have nothing to do with the data, as those of a network that never trained.

In evaluation mode such a network computes something else than in training mode, often by orders of magnitude, and so
does everything that is measured on it: ranges, corrections, importances. The first pass over the data finds these norms
while it runs and gives them statistics of what they see, each before it puts anything out. So what follows a norm is
measured behind right statistics, and no pass is added.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor
from torch.nn.modules.instancenorm import _InstanceNorm

from lightning_nncf.calibration.norms import Norm, channel_axis
from lightning_nncf.calibration.reduce import Reduce

__all__ = ["StatisticsWatch", "is_far"]

_ENOUGH = 8
"""Samples that a norm is judged by; of fewer the variance says little, for the values of one sample are alike."""

_INITIAL_LIMIT = 4.0
"""How many times larger or smaller the variance may be where statistics are still the initial ones, 0 and 1."""

_LIMIT = 16.0
"""The same for all others: whatever counts their batches say, they come from more data than a batch."""

_DOUBT = 4.0
"""Factor on the limit while there are too few samples."""


class StatisticsWatch:
    """Finds norms with stale statistics in the first pass over the data, and renews them.

    Args:
        norms: The norms that train, by name.
        renew: Whether stale statistics are replaced, or only reported.
        reduce: Combines statistics of several processes, which end with the same ones; ``None`` in a single process.
    """

    def __init__(self, norms: Mapping[str, Norm], *, renew: bool = True, reduce: Reduce | None = None) -> None:
        self._seen = {name: _Seen(norm) for name, norm in norms.items()}
        self._renew = renew
        self._reduce = reduce
        self.pending = bool(norms)
        """Whether the first pass is still to come."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch one pass, if it is the first."""
        if not self.pending:
            yield
            return
        with ExitStack() as stack:
            for seen in self._seen.values():
                hook = _Observer(seen, renew=self._renew)
                stack.callback(seen.norm.register_forward_pre_hook(hook, with_kwargs=True).remove)
            yield
        self.pending = False
        self._finish()

    def _finish(self) -> None:
        """Agree with the other processes, and tell the user."""
        found = list(self._seen.values())
        if self._reduce is not None:
            stale = self._reduce(torch.tensor([float(seen.stale) for seen in found]), "max")
            if not bool(stale.any()):
                return
            for seen, flag in zip(found, stale.tolist(), strict=True):
                seen.stale = flag > 0
            sizes = [len(seen.sums) for seen in found]
            total = self._reduce(torch.cat([seen.sums for seen in found]), "sum")
            for seen, sums in zip(found, torch.split(total, sizes), strict=True):
                seen.sums = sums
                if seen.stale and self._renew:
                    seen.write()
        names = [name for name, seen in self._seen.items() if seen.stale]
        if names:
            rank_zero_warn(self._message(names), category=UserWarning)

    def _message(self, names: list[str]) -> str:
        never = sum(self._seen[name].initial for name in names)
        text = (
            f"{len(names)} of {len(self._seen)} batch norms, such as {names[0]!r}, had running statistics far from "
            f"those of the data ({never} of them never ran in training mode)"
        )
        remedy = "train the network in float first, or run it in training mode on some data"
        if self._renew:
            return f"{text}; the calibration data replaced them. If this is not meant, {remedy}"
        return (
            f"{text}, which stay as they are because `num_bn_adaptation_samples` is 0; ranges and everything else that "
            f"is measured with them will not fit training, which may diverge. Allow the adaptation, or {remedy}"
        )


@dataclass
class _Seen:
    """What one norm saw: sums over values of the distance from its running mean and of its square, per channel."""

    norm: Norm
    sums: Tensor = field(init=False)
    """Number of values, then the sums, then those of the variances within instances, in float64 on the CPU."""
    rows: int = 0
    batches: int = 0
    stale: bool = False

    def __post_init__(self) -> None:
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None
        assert variance is not None
        self.mean, self.variance = mean.detach().double().cpu(), variance.detach().double().cpu()
        self.sums = torch.zeros(1 + 3 * len(self.mean), dtype=torch.float64)
        self.initial = bool((self.mean == 0).all() & (self.variance == 1).all())

    @property
    def settled(self) -> bool:
        return self.rows >= _ENOUGH and not self.stale

    def take(self, x: Tensor) -> None:
        """Add the values of one batch."""
        axis = channel_axis(self.norm, x)
        self.batches += 1
        self.rows += x.shape[0] if axis else 1
        values = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        if isinstance(self.norm, _InstanceNorm):
            rows = (values if axis else values[None]).flatten(2)
            variances, means = torch.var_mean(rows, 2, correction=1 if rows.shape[2] > 1 else 0)
            within = variances.double().sum(0).cpu()
            distances = means.double().cpu() - self.mean
            counted, sums = len(rows), distances.sum(0)
            squares = within + distances.square().sum(0)
        else:
            variance, mean = torch.var_mean(values, [dim for dim in range(x.ndim) if dim != 1], correction=0)
            counted = x.numel() // x.shape[1]
            distance = mean.double().cpu() - self.mean
            within = variance.double().cpu() * counted
            sums, squares = distance * counted, within + distance.square() * counted
        self.sums += torch.cat([torch.tensor([counted], dtype=torch.float64), sums, squares, within])

    def moments(self) -> tuple[int, Tensor, Tensor]:
        """Return over how many values mean and variance of each channel are, and these."""
        count = int(self.sums[0])
        sums, squares, within = self.sums[1:].reshape(3, -1) / max(count, 1)
        if isinstance(self.norm, _InstanceNorm):
            return count, self.mean + sums, within
        variance = (squares - sums.square()).clamp_min(0)
        return count, self.mean + sums, variance * (count / max(count - 1, 1))

    def judge(self) -> None:
        """Decide whether the statistics are stale."""
        count, mean, variance = self.moments()
        if count and bool(mean.isfinite().all() & variance.isfinite().all()):
            limit = _INITIAL_LIMIT if self.initial else _LIMIT
            spread = self.variance + self.norm.eps
            few = self.rows < _ENOUGH
            self.stale = is_far((mean - self.mean).square() / spread, variance / spread, limit, few=few)

    def write(self) -> None:
        """Give the norm the statistics of what was seen; a channel that did not vary keeps its variance."""
        count, mean, variance = self.moments()
        norm = self.norm
        if count < 2 or not bool(mean.isfinite().all() & variance.isfinite().all()):
            return
        assert norm.running_mean is not None
        assert norm.running_var is not None
        with torch.no_grad():
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(torch.where(variance > 0, variance, self.variance))
            # instance norms count nothing
            if norm.num_batches_tracked is not None and not isinstance(norm, _InstanceNorm):
                norm.num_batches_tracked.fill_(self.batches)


class _Observer:
    """Looks at what a norm gets before the norm does."""

    def __init__(self, seen: _Seen, *, renew: bool) -> None:
        self._seen = seen
        self._renew = renew

    def __call__(self, norm: Norm, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs.get("input")
        if self._seen.settled or not isinstance(x, Tensor) or x.numel() == 0:
            return
        self._seen.take(x)
        if not self._seen.stale:
            self._seen.judge()
        if self._seen.stale and self._renew:
            self._seen.write()


def is_far(shift: Tensor, spread: Tensor, limit: float, *, few: bool) -> bool:
    """Whether data are far from running statistics, whatever the scale of both.

    Args:
        shift: ``[C]`` squared distances of the means, divided by the running variances.
        spread: ``[C]`` variances of the data, divided by the running variances.
        limit: How many times larger or smaller the variance may be.
        few: Whether there are too few samples to tell a variance. Then the mean square of the distance from the
            running mean stands for both, whose expectation is right for one sample too.

    >>> is_far(torch.tensor([0.1]), torch.tensor([0.5]), 4.0, few=False)
    False
    >>> is_far(torch.tensor([0.1]), torch.tensor([0.01]), 4.0, few=False)
    True
    >>> is_far(torch.tensor([0.9]), torch.tensor([0.01]), 4.0, few=True)
    False
    """
    varying = (shift + spread > 0) if few else (spread > 0)
    if not bool(varying.any()):
        return False
    # most channels decide: single ones may be dead in these data, or in the network
    offset, ratio = float(shift[varying].median()), float(spread[varying].median())
    if few:
        ratio, offset, limit = ratio + offset, 0.0, limit * _DOUBT
    return not 1 / limit <= ratio <= limit or offset > limit / 4

"""The game that AutoQ's agent plays: one bit width per quantizer along the data flow, then the accuracy.

Wang et al., "HAQ: Hardware-Aware Automated Quantization with Mixed Precision", CVPR 2019; Lou et al., "AutoQ: Automated
Kernel-Wise Neural Network Quantization", ICLR 2020. Nothing here needs the library that trains the agent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lightning_nncf.algorithms.quantization.precision.functional import nearest

__all__ = ["Decision", "PrecisionGame", "bits_of_action", "reward_scale"]

_FULL = 32


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One quantizer whose bits are chosen.

    Args:
        bits: Bit widths that it may have, ascending.
        features: What the agent sees of it, before normalization.
        size: Number of values of the weight; 0 for activations.
    """

    bits: tuple[int, ...]
    features: tuple[float, ...]
    size: int = 0


def bits_of_action(action: float, bits: Sequence[int]) -> int:
    """Return the bit width that an action from 0 to 1 means: the first not below it on a scale of powers of two.

    >>> [bits_of_action(action, [2, 4, 8]) for action in (0.0, 0.125, 0.13, 0.5, 0.51, 1.0)]
    [2, 2, 4, 4, 8, 8]
    """
    return next((each for each in sorted(bits) if action <= _threshold(each)), max(bits))


def reward_scale(score: float) -> float:
    """Return the power of ten that brings the score of the network in floating point between 1 and 10.

    >>> reward_scale(76.1), reward_scale(0.5), reward_scale(0.0)
    (0.1, 10.0, 1.0)
    """
    return 1.0 if score == 0 or not math.isfinite(score) else 10.0 ** -math.floor(math.log10(abs(score)))


class PrecisionGame:
    """Takes actions, keeps to the size, and scores what comes out.

    Args:
        decisions: Quantizers in the order in which they are decided.
        widths: Bit widths that actions stand for; a quantizer takes the nearest it has.
        fixed_bits: Bits of all weights that are not decided, together.
        total: Number of values of all weights.
        target: Largest size of the weights, as a share of 32 bits each.
        score: Judges bit widths of all decisions; higher is better.
    """

    def __init__(
        self,
        decisions: Sequence[Decision],
        widths: Sequence[int],
        *,
        fixed_bits: int,
        total: int,
        target: float,
        score: Callable[[Sequence[int]], float],
    ) -> None:
        self.decisions = decisions
        self.widths = sorted(widths)
        self.best: tuple[float, tuple[int, ...]] | None = None
        self._fixed_bits = fixed_bits
        self._total = total
        self._target = target
        self._score = score
        self._features = _normalized([decision.features for decision in decisions])
        self._actions: list[float] = []

    def size(self, bits: Sequence[int]) -> float:
        """Return the size of the weights as a share of 32 bits each."""
        used = sum(each * decision.size for each, decision in zip(bits, self.decisions, strict=True))
        return (self._fixed_bits + used) / (_FULL * self._total)

    @property
    def smallest(self) -> float:
        """The smallest size there is."""
        return self.size([decision.bits[0] for decision in self.decisions])

    def reset(self) -> npt.NDArray[np.float32]:
        """Begin anew and return the first observation."""
        self._actions = []
        return self._observe()

    def act(self, action: float) -> npt.NDArray[np.float32]:
        """Decide on one quantizer and return the next observation."""
        self._actions.append(float(action))
        return self._observe()

    @property
    def is_over(self) -> bool:
        """Whether every quantizer has been decided on."""
        return len(self._actions) == len(self.decisions)

    def finish(self) -> tuple[float, list[float]]:
        """Lower bits until the size is kept, and score them.

        Returns:
            The score, and the actions that would have led to these bits.
        """
        wished = [
            nearest(bits_of_action(action, self.widths), decision.bits)
            for action, decision in zip(self._actions, self.decisions, strict=True)
        ]
        bits = self.constrained(wished)
        score = self._score(bits)
        if self.best is None or score > self.best[0]:
            self.best = (score, tuple(bits))
        actions = [
            action if after == before else min(_threshold(after), 1.0)
            for action, before, after in zip(self._actions, wished, bits, strict=True)
        ]
        return score, actions

    def constrained(self, bits: Sequence[int]) -> list[int]:
        """Take one step down at each weight, from the last to the first and again, until the size is kept."""
        found = list(bits)
        while self.size(found) > self._target:
            lowered = False
            for index in reversed(range(len(found))):
                options = self.decisions[index].bits
                position = options.index(found[index])
                if self.decisions[index].size > 0 and position > 0:
                    found[index] = options[position - 1]
                    lowered = True
                    if self.size(found) <= self._target:
                        break
            if not lowered:
                break
        return found

    def _observe(self) -> npt.NDArray[np.float32]:
        """Return the features of the quantizer that is decided on next, and the last action."""
        position = min(len(self._actions), len(self.decisions) - 1)
        last = self._actions[-1] if self._actions else 1.0
        return np.append(self._features[position], last).astype(np.float32)


def _threshold(bits: int) -> float:
    return float(2 ** (bits + 3) / 2**8)


def _normalized(features: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    """Bring each feature to a range from 0 to 1."""
    table = np.asarray(features, dtype=np.float64)
    low, high = table.min(axis=0), table.max(axis=0)
    scaled: npt.NDArray[np.float64] = (table - low) / np.where(high > low, high - low, 1.0)
    return scaled

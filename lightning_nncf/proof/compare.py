"""Numbers that say how far two outputs are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Difference", "Tolerance", "compare", "relative_rms"]


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far a runtime may be from the reference.

    Runtimes add up integers where torch adds up floats, so a value next to a rounding border may fall one step to the
    other side, and later layers carry that on: a few per cent of the output's size are normal in a trained network.
    Where the outputs are further apart, the layers decide, each on the same inputs: if all of them agree, the network
    itself amplifies single steps (an untrained one does); if one does not, as with saturating kernels, it is at fault.

    Args:
        relative_rms: Largest root mean square of the difference, relative to that of the reference output.
        agreement: Least share of samples with the same largest class, for outputs ``[N, C]``; one sample may always
            differ, so that a handful of samples cannot fail on a tie.
        layer_steps: Largest root mean square of one layer's difference on the same inputs, in quantization steps.
    """

    relative_rms: float = 0.1
    agreement: float = 0.9
    layer_steps: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Distance of one set of outputs from another.

    Args:
        max_abs: Largest absolute difference.
        relative_rms: Root mean square of the difference over that of the reference; the worst output counts.
        agreement: Share of samples with the same largest class, None where no output is ``[N, C]``.
        samples: How many samples `agreement` is over.
    """

    max_abs: float
    relative_rms: float
    agreement: float | None
    samples: int

    def within(self, tolerance: Tolerance) -> bool:
        """Whether the difference is tolerable.

        >>> Difference(max_abs=0.1, relative_rms=0.01, agreement=0.75, samples=4).within(Tolerance())
        True
        """
        agreed = self.agreement is None or round((1 - self.agreement) * self.samples) <= max(
            1, (1 - tolerance.agreement) * self.samples
        )
        return agreed and self.relative_rms <= tolerance.relative_rms


def relative_rms(value: Tensor, reference: Tensor) -> float:
    """Return the root mean square of the difference, relative to the reference's; inf where anything is not finite.

    >>> relative_rms(torch.tensor([3.0, 9.0]), torch.tensor([0.0, 5.0]))
    1.0
    """
    if value.shape != reference.shape:
        return float("inf")
    value, reference = value.double(), reference.double()
    if reference.numel() == 0 or torch.equal(value, reference):
        return 0.0
    error, size = (value - reference).square().mean().sqrt().item(), reference.square().mean().sqrt().item()
    ratio = error / size if size > 0 else float("inf")
    return ratio if ratio == ratio else float("inf")


def compare(outputs: Sequence[Tensor], reference: Sequence[Tensor]) -> Difference:
    """Compare flat outputs with those of the reference.

    Args:
        outputs: Outputs of a runtime.
        reference: Outputs of torch, or of another runtime.
    """
    pairs = list(zip(outputs, reference, strict=True))
    floats = [(a, b) for a, b in pairs if b.is_floating_point()] or pairs
    same_shape = all(a.shape == b.shape for a, b in floats)
    largest = max(
        (float((a.double() - b.double()).abs().max()) for a, b in floats if same_shape and b.numel()), default=0.0
    )
    agreement, samples = None, 0
    for a, b in floats:
        if same_shape and b.ndim == 2 and b.shape[0] > 0 and b.shape[1] > 1:
            agreement, samples = float((a.argmax(1) == b.argmax(1)).float().mean()), b.shape[0]
            break
    return Difference(
        max_abs=largest if same_shape and largest == largest else float("inf"),
        relative_rms=max((relative_rms(a, b) for a, b in floats), default=0.0),
        agreement=agreement,
        samples=samples,
    )

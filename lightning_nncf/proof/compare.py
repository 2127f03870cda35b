"""Numbers that say how far two outputs are apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from lightning_nncf.errors import ConfigError
from lightning_nncf.proof.detections import set_distance
from lightning_nncf.proof.distance import relative_rms

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
        layer_rms: Largest root mean square of what follows the last quantizers, on the same inputs and relative to it.
    """

    relative_rms: float = 0.1
    agreement: float = 0.9
    layer_steps: float = 0.5
    layer_rms: float = 0.03

    @classmethod
    def of(cls, value: Tolerance | float | None) -> Tolerance:
        """Return a tolerance, given as such or by the largest relative root mean square alone.

        Raises:
            ConfigError: The number is not positive.
        """
        if isinstance(value, Tolerance):
            return value
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(
                "`tolerance` must be a positive number, the largest relative root mean square, or a Tolerance; got "
                f"{value}"
            )
        return cls() if value is None else cls(relative_rms=float(value))


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


def compare(
    outputs: Sequence[Tensor], reference: Sequence[Tensor], detections: Sequence[Mapping[str, int]] = ()
) -> Difference:
    """Compare flat outputs with those of the reference.

    Args:
        outputs: Outputs of a runtime.
        reference: Outputs of torch, or of another runtime.
        detections: Places of outputs that together are a set, whose order and number are free; see `detections_in`.
    """
    sets = [set_distance(outputs, reference, places) for places in detections]
    inside = {place for places in detections for place in places.values()}
    pairs = [pair for place, pair in enumerate(zip(outputs, reference, strict=True)) if place not in inside]
    floats = [(a, b) for a, b in pairs if b.is_floating_point()] or pairs
    same_shape = all(a.shape == b.shape for a, b in floats)
    largest = max(
        (float((a.double() - b.double()).abs().max()) for a, b in floats if same_shape and b.numel()), default=0.0
    )
    largest = max([largest, *(found.score for found in sets)])
    agreement, samples = None, 0
    for a, b in floats:
        if same_shape and b.ndim == 2 and b.shape[0] > 0 and b.shape[1] > 1:
            agreement, samples = float((a.argmax(1) == b.argmax(1)).float().mean()), b.shape[0]
            break
    return Difference(
        max_abs=largest if same_shape and largest == largest else float("inf"),
        relative_rms=max(
            [*(relative_rms(a, b) for a, b in floats), *(found.relative_rms for found in sets)], default=0.0
        ),
        agreement=agreement,
        samples=samples,
    )

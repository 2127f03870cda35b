"""Bit widths written down by the user, place by place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lightning_nncf.algorithms.quantization.placement.candidates import Candidates
from lightning_nncf.algorithms.quantization.precision.formats import with_bits
from lightning_nncf.algorithms.quantization.precision.naming import PointNames
from lightning_nncf.algorithms.quantization.quantizer_config import QuantizerConfig
from lightning_nncf.algorithms.quantization.setup import QuantizationSetup
from lightning_nncf.errors import ConfigError, ScopeError

__all__ = ["assign_bits"]

_KEY = "`initializer.precision.bitwidth_per_scope`"


def assign_bits(
    setup: QuantizationSetup, names: PointNames, formats: Sequence[Candidates], pairs: Sequence[tuple[int, str]]
) -> QuantizationSetup:
    """Give quantizers the bit widths that a list says; the others keep theirs.

    Points that share a quantizer change together.

    Args:
        setup: The points.
        names: Finds points by name.
        formats: For each point the formats that its device allows.
        pairs: Bit widths and names.

    Raises:
        ScopeError: A name means no quantizer, or two entries give one quantizer different bit widths.
        ConfigError: The device has no format of these bits there.
    """
    together = {index: group for group in setup.unified for index in group}
    chosen: dict[int, QuantizerConfig] = {}
    source: dict[int, str] = {}
    for bits, name in pairs:
        try:
            found = names.find(name)
        except ScopeError as error:
            raise ScopeError(f"{_KEY}: {error}") from None
        for index in found:
            for each in together.get(index, (index,)):
                point = setup.points[each]
                config = with_bits(point, formats[each], bits)
                if config is None:
                    allowed = ", ".join(map(str, sorted({each.bits for each in formats[each]})))
                    raise ConfigError(
                        f"{_KEY}: {name!r} asks for {bits} bits at {str(point.point)!r}, where the target device "
                        f"computes in {allowed or 'none'}; change the entry or `target_device`"
                    )
                if each in chosen and chosen[each].bits != bits:
                    raise ScopeError(
                        f"{_KEY}: {source[each]!r} and {name!r} give the quantizer at {str(point.point)!r} "
                        f"{chosen[each].bits} and {bits} bits"
                    )
                chosen[each] = config
                source[each] = name
    points = tuple(replace(point, config=chosen.get(index, point.config)) for index, point in enumerate(setup.points))
    return replace(setup, points=points)

"""Settings of single scopes, put over those of their group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lightning_nncf.algorithms.quantization.constraint_config import OverrideConfig, ScopeOverridesConfig
from lightning_nncf.algorithms.quantization.initialization.initializer_config import RangeConfig
from lightning_nncf.algorithms.quantization.placement import Constraints
from lightning_nncf.algorithms.quantization.placement.settings import Kind
from lightning_nncf.algorithms.quantization.setup import QuantizationPoint
from lightning_nncf.errors import ConfigError, ScopeError, near

__all__ = ["ScopeOverrides"]


@dataclass(frozen=True)
class _Entry:
    scope: str
    concerns: Callable[[str], bool]
    values: OverrideConfig


class ScopeOverrides:
    """The overrides of a configuration on one graph.

    Args:
        config: The section ``scope_overrides``.
        matcher: Makes a function that tells whether a scope, given with its key, selects an address.

    Raises:
        ScopeError: A scope selects nothing; raised by `matcher`.
    """

    def __init__(self, config: ScopeOverridesConfig, matcher: Callable[[str, str], Callable[[str], bool]]) -> None:
        sections: Mapping[Kind, tuple[str, Mapping[str, OverrideConfig]]] = {
            "weight": ("weights", config.weights),
            "activation": ("activations", config.activations),
        }
        self._entries: dict[Kind, list[_Entry]] = {
            kind: [_Entry(scope, matcher(f"scope_overrides.{key}", scope), values) for scope, values in section.items()]
            for kind, (key, section) in sections.items()
        }

    def constraints(self, address: str, kind: Kind) -> Constraints | None:
        """Return the constraints on the quantizers of one kind at an op, ``None`` if no override concerns it.

        Raises:
            ConfigError: Several overrides concern it.
        """
        found = self._of(address, kind)
        if found is None:
            return None
        values = found.values
        return Constraints(mode=values.mode, bits=values.bits, signed=values.signed, per_channel=values.per_channel)

    def range_of(self, point: QuantizationPoint) -> RangeConfig | None:
        """Return the range initialization that overrides give to a quantizer, ``None`` if they give none.

        Raises:
            ConfigError: Overrides of the ops that it serves give different ones.
        """
        found: dict[RangeConfig, str] = {}
        for entry in self._concerning(point):
            if entry.values.initializer is not None and entry.values.initializer.range is not None:
                found.setdefault(entry.values.initializer.range, entry.scope)
        if len(found) > 1:
            scopes = " and ".join(map(repr, found.values()))
            raise ConfigError(
                f"`scope_overrides`: {scopes} give different `initializer.range` to one quantizer, that of "
                f"{str(point.point)!r}; write the same for both"
            )
        return next(iter(found), None)

    def require_effect(self, points: Sequence[QuantizationPoint]) -> None:
        """Make sure that every override changes some quantizer.

        Raises:
            ScopeError: One selects only ops without quantizers of its kind.
        """
        for kind, entries in self._entries.items():
            ops = list(dict.fromkeys(op for point in points if point.kind == kind for op in point.ops))
            for entry in entries:
                if not any(map(entry.concerns, ops)):
                    inputs = "weights are" if kind == "weight" else "inputs are"
                    raise ScopeError(
                        f"`scope_overrides.{kind}s`: {entry.scope!r} selects no op whose {inputs} quantized; "
                        f"{near(entry.scope, ops) or 'name such an op'}"
                    )

    def _concerning(self, point: QuantizationPoint) -> Iterable[_Entry]:
        found = (self._of(op, point.kind) for op in point.ops)
        return [entry for entry in found if entry is not None]

    def _of(self, address: str, kind: Kind) -> _Entry | None:
        found = [entry for entry in self._entries[kind] if entry.concerns(address)]
        if len(found) > 1:
            scopes = " and ".join(repr(entry.scope) for entry in found)
            raise ConfigError(
                f"`scope_overrides.{kind}s`: {scopes} both concern the {kind} quantizer of {address!r}; every "
                "quantizer may be concerned by one override at most"
            )
        return found[0] if found else None

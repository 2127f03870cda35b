"""One physical place where a compression module sees and replaces a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from torch import nn

__all__ = ["HookSite"]


@dataclass(frozen=True, kw_only=True)
class HookSite:
    """One physical place where a module sees and replaces a tensor; enough to insert it again without a graph.

    Args:
        kind: A ``weight`` or another ``attribute`` of a module, the input or output of a module's call, or of a
            function called in a module's forward.
        module: Path of the module whose calls are hooked.
        readers: Paths of further modules that read the weight in their forward, and get the same value there.
        holder: Path of the module under which the inserted modules are registered.
        slot: Name of the place below the holder; state-dict keys begin with ``<holder>.lnncf_<slot>``.
        frame: Call path in which the site is active; a weight or attribute is replaced in every call.
        parameter: Name of the weight or attribute in its holder.
        function: Name of the function.
        index: Which call of that function.
        count: How many calls of that function were traced.
        port: Which of the tensors.
        calls: Pairs of caller and module whose calls must be counted to know the call path.
        paths: All traced call paths of the module, when there are several.
        callees: Modules called in the forward of ``module``, whose functions are not its own.
        free: Whether the module was also called from outside any other.
        rectifies: Whether the module is a ReLU or ReLU6 that a module at its output may stand in for: nobody reads
            what it leaves in its argument.
        normalizes: Path of a batch norm whose output goes nowhere but here, for which the module may stand in, too.
    """

    kind: Literal["weight", "attribute", "module_input", "module_output", "op_input", "op_output"]
    module: str
    holder: str
    slot: str
    frame: str
    parameter: str = ""
    readers: tuple[str, ...] = ()
    function: str = ""
    index: int = 0
    count: int = 0
    port: int = 0
    calls: tuple[tuple[str, str], ...] = ()
    paths: tuple[str, ...] = ()
    callees: tuple[str, ...] = ()
    free: bool = False
    rectifies: bool = False
    normalizes: str = ""

    @property
    def key(self) -> str:
        """Prefix of the state-dict keys."""
        return f"{self.holder}.lnncf_{self.slot}" if self.holder else f"lnncf_{self.slot}"

    def parameter_of(self, network: nn.Module) -> nn.Parameter:
        """Return the parameter whose value a ``weight`` site replaces."""
        return network.get_submodule(self.holder).get_parameter(self.parameter)

    def to_dict(self) -> dict[str, Any]:
        """Return the site as plain values for a checkpoint, without what is at its default."""
        plain: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                plain[field.name] = _plain(value)
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> HookSite:
        """Rebuild a site from `to_dict`."""
        known = dict(values)
        for name in ("paths", "callees", "readers"):
            known[name] = tuple(known.get(name, ()))
        known["calls"] = tuple((caller, module) for caller, module in known.get("calls", ()))
        return cls(**known)


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value

r"""Selects ops by scope.

A scope is one of

* an address, ``layer1.0.conv1/conv2d:0``;
* a module path, ``layer1.0``, which selects every op inside that module, in all its calls; with call indices,
  ``layer1.0.relu@1``, only inside that call;
* ``{re}`` and a regular expression, searched for in every address;
* a name as NNCF wrote it, ``ResNet/Sequential[layer1]/BasicBlock[0]/NNCFConv2d[conv1]/conv2d_0``. Attribute names
  between brackets make the module path; a number after the op counts its calls inside that module, all calls of the
  module included. ``/nncf_model_input_0`` is ``/input:0``.

Regular expressions written for NNCF's names are searched for in those names too, when the class names of the modules
are known.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from lightning_nncf.errors import ScopeError, near
from lightning_nncf.graph.graph import INPUT, OUTPUT

__all__ = ["ScopeMatcher", "module_path", "scope_filter"]

_CALL = re.compile(r"@\d+(?=\.|$)")
_NNCF_ELEMENT = re.compile(r"(?P<type>\w+)\[(?P<attribute>[^\[\]]+)\]")
_NNCF_OP = re.compile(r"(?P<function>\w+?)_(?P<index>\d+)")
_WORD = re.compile(r"[A-Za-z]\w+")
_WRAPPED = frozenset(
    {"Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Embedding", "Linear"}
)
"""Module classes whose names NNCF prefixes with its own in some versions."""
_OPERATORS = {
    f"__{prefix}{operator}__": function + ("_" if prefix == "i" else "")
    for operator, function in {
        "add": "add", "sub": "sub", "mul": "mul", "div": "div", "truediv": "div", "matmul": "matmul", "pow": "pow"
    }.items()
    for prefix in ("", "i", "r")
}  # fmt: skip
_OPERATORS |= {"__rsub__": "rsub", "__rdiv__": "rdiv", "__rtruediv__": "rdiv"}
_OPERATORS |= {"nncf_model_input": INPUT, "nncf_model_output": OUTPUT}
"""NNCF names an op after the Python operator, an address after the function behind it."""


def module_path(address: str) -> str:
    """Return the path of the module in which an op runs, without call indices.

    >>> module_path("layer1.0.relu@1/relu:0")
    'layer1.0.relu'
    >>> module_path("decoder>encoder.embed/embedding:0")
    'encoder.embed'
    >>> module_path("/input:0")
    ''
    """
    return _CALL.sub("", _call_path(address))


class ScopeMatcher:
    """Tells which of a graph's ops a set of scopes selects.

    Args:
        patterns: The scopes.
        addresses: Addresses of all ops, in the order in which they run.
        module_types: Class name of each module by path, to understand regular expressions on NNCF's names.
        validate: Whether a scope that selects nothing is an error.

    Raises:
        ScopeError: If a scope is malformed, or selects nothing and ``validate`` is on.

    >>> matcher = ScopeMatcher(["layer1", "{re}relu:1$"], ["conv1/conv2d:0", "layer1.0/add:0", "/relu:1"])
    >>> matcher("layer1.0/add:0"), matcher("/relu:1"), matcher("conv1/conv2d:0")
    (True, True, False)
    """

    def __init__(
        self,
        patterns: Iterable[str],
        addresses: Iterable[str],
        *,
        module_types: Mapping[str, str] | None = None,
        validate: bool = True,
    ) -> None:
        self.patterns = tuple(patterns)
        index = _Index(addresses, module_types or {})
        found = {pattern: frozenset(index.find(pattern)) for pattern in self.patterns}
        self.unmatched = tuple(pattern for pattern, addresses in found.items() if not addresses)
        if validate and self.unmatched:
            raise ScopeError("\n".join(index.explain(pattern) for pattern in self.unmatched))
        self.matched: frozenset[str] = frozenset().union(*found.values())

    def __call__(self, address: str) -> bool:
        """Whether the op at an address is selected."""
        return address in self.matched


def scope_filter(
    addresses: Sequence[str],
    *,
    ignored: Iterable[str] = (),
    target: Iterable[str] | None = None,
    module_types: Mapping[str, str] | None = None,
    validate: bool = True,
) -> Callable[[str], bool]:
    """Combine ignored and target scopes: an op is in when it is targeted and not ignored.

    Args:
        addresses: Addresses of all ops, in the order in which they run.
        ignored: Scopes that are out.
        target: Scopes that are in; None means all.
        module_types: Class name of each module by path.
        validate: Whether a scope that selects nothing is an error.

    Returns:
        A function that tells of an address whether it is in.

    >>> inside = scope_filter(["a/conv2d:0", "a/relu:0", "b/conv2d:0"], ignored=["a/relu:0"], target=["a"])
    >>> [inside(address) for address in ("a/conv2d:0", "a/relu:0", "b/conv2d:0")]
    [True, False, False]
    """
    out = ScopeMatcher(ignored, addresses, module_types=module_types, validate=validate)
    if target is None:
        return lambda address: not out(address)
    within = ScopeMatcher(target, addresses, module_types=module_types, validate=validate)
    return lambda address: within(address) and not out(address)


class _Index:
    """The ops of a graph by everything a scope can name."""

    def __init__(self, addresses: Iterable[str], module_types: Mapping[str, str]) -> None:
        self.addresses = tuple(addresses)
        self.paths = {address: module_path(address) for address in self.addresses}
        self.calls: dict[tuple[str, str], list[str]] = defaultdict(list)
        for address in self.addresses:
            self.calls[self.paths[address], _function(address)].append(address)
        self.module_types = module_types

    def find(self, pattern: str) -> Iterator[str]:
        if pattern.startswith("{re}"):
            yield from self._search(pattern)
        elif pattern in self.paths:
            yield pattern
        elif _is_nncf(pattern):
            yield from self._translate(pattern)
        elif pattern:
            calls = "@" in pattern
            for address in self.addresses:
                path = _call_path(address) if calls else self.paths[address]
                if path == pattern or path.startswith(f"{pattern}."):
                    yield address

    def explain(self, pattern: str) -> str:
        """Say what to write instead of a scope that selects nothing."""
        if _is_nncf(pattern):
            path, function, index = _split_nncf(pattern)
            if function:
                here = [address for (where, _), found in self.calls.items() if where == path for address in found]
                name = _OPERATORS.get(function, function)
                wanted, known = f"{path}/{name}:{index}", here or self.addresses
            else:
                wanted, known = path, self._modules()
            return (
                f"scope {pattern!r}, a name in NNCF's form, means {wanted!r} here, which is not in the network; "
                f"{_hint(wanted, known)}"
            )
        if pattern.startswith("{re}"):
            hint = ", ".join(map(repr, self._closest(pattern)))
            return f"scope {pattern!r} matches nothing in the network; it is searched for in addresses such as {hint}"
        known = self.addresses if "/" in pattern else (*self._modules(), *self.addresses)
        return f"scope {pattern!r} matches nothing in the network; {_hint(pattern, known)}"

    def _closest(self, pattern: str) -> list[str]:
        """Return the three addresses that share most words with a regular expression."""
        words = set(_WORD.findall(pattern.removeprefix("{re}")))
        names = self._nncf_names() if self.module_types else {}

        def shared(address: str) -> int:
            texts = (address, *names.get(address, ()))
            return max(sum(word in text for word in words) for text in texts)

        return sorted(self.addresses, key=shared, reverse=True)[:3]

    def _modules(self) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for path in self.paths.values():
            parts = path.split(".")
            found.update(dict.fromkeys(".".join(parts[: end + 1]) for end in range(len(parts))))
        found.pop("", None)
        return tuple(found)

    def _search(self, pattern: str) -> Iterator[str]:
        try:
            regex = re.compile(pattern.removeprefix("{re}"))
        except re.error as error:
            raise ScopeError(f"scope {pattern!r} is not a valid regular expression: {error}") from None
        names = self._nncf_names() if self.module_types else {}
        for address in self.addresses:
            if any(regex.search(name) for name in (address, *names.get(address, ()))):
                yield address

    def _translate(self, pattern: str) -> Iterator[str]:
        path, function, index = _split_nncf(pattern)
        if not function:
            yield from self.find(path) if path else ()
            return
        exact = self.calls.get((path, _OPERATORS.get(function, function)))
        if exact is None:
            base = _base_name(function)
            related = [name for where, name in self.calls if where == path and _base_name(name) == base]
            if len(related) > 1:
                written = ", ".join(repr(address) for name in related for address in self.calls[path, name])
                raise ScopeError(
                    f"scope {pattern!r}, a name in NNCF's form, can mean several ops here; write one of {written}"
                )
            exact = self.calls[path, related[0]] if related else []
        if index < len(exact):
            yield exact[index]

    def _nncf_names(self) -> dict[str, tuple[str, ...]]:
        """Write every address the way NNCF would have, with and without its prefix on class names."""
        names: dict[str, tuple[str, ...]] = {}
        for (path, function), addresses in self.calls.items():
            scopes = dict.fromkeys(self._nncf_scope(path, prefix) for prefix in ("", "NNCF"))
            functions = [function, *(operator for operator, name in _OPERATORS.items() if name == function)]
            for index, address in enumerate(addresses):
                names[address] = tuple(f"{scope}/{name}_{index}" for scope in scopes for name in functions)
        return names

    def _nncf_scope(self, path: str, prefix: str) -> str:
        elements, so_far = [self.module_types.get("", "")], ""
        for attribute in path.split(".") if path else ():
            so_far = f"{so_far}.{attribute}" if so_far else attribute
            kind = self.module_types.get(so_far, "")
            elements.append(f"{prefix if kind in _WRAPPED else ''}{kind}[{attribute}]")
        return "/".join(elements)


def _call_path(address: str) -> str:
    return address.rpartition("/")[0].rpartition(">")[2]


def _function(address: str) -> str:
    return address.rpartition("/")[2].partition(":")[0]


def _base_name(function: str) -> str:
    """Drop what marks the in-place form.

    >>> [_base_name(name) for name in ("__iadd__", "__add__", "add_", "RELU")]
    ['add', 'add', 'add', 'relu']
    """
    return _OPERATORS.get(function, function.lower()).rstrip("_")


def _is_nncf(pattern: str) -> bool:
    head, slash, tail = pattern.partition("/")
    if not slash or ":" in pattern.rpartition("/")[2]:
        return False
    parts = tail.split("/")
    inner = all(_NNCF_ELEMENT.fullmatch(part) for part in parts[:-1])
    last = _NNCF_ELEMENT.fullmatch(parts[-1]) or _NNCF_OP.fullmatch(parts[-1])
    return (head.isidentifier() or tail.startswith("nncf_model_")) and inner and last is not None


def _split_nncf(pattern: str) -> tuple[str, str, int]:
    """Return module path, function and index; the function is empty where NNCF's name stands for a module."""
    attributes, function, index = [], "", 0
    for part in pattern.split("/")[1:]:
        element = _NNCF_ELEMENT.fullmatch(part)
        if element:
            attributes.append(element["attribute"])
        else:
            op = _NNCF_OP.fullmatch(part)
            function, index = (op["function"], int(op["index"])) if op else (part, 0)
    return ".".join(attributes), function, index


def _hint(wanted: str, known: Iterable[str]) -> str:
    hint = near(wanted, known)
    return hint or "write an address, a module path, or {re} and a regular expression"

"""Names of calls and of ops.

The address of an op is ``<call path>/<function>:<n>``. ``n`` counts the calls of that function in one call of the
module, whether or not a call became a node. The call path is the module's path in which each component may carry
``@k``: this was the ``k``-th further call of that module in one call of its caller.

* ``layer1.0.conv1/conv2d:0``: the only convolution in the only call.
* ``layer1.0.relu@1/relu:0``: the second call of the ReLU in one forward of ``layer1.0``.
* ``head@1.conv/conv2d:0``: the convolution of the head's second call.
* ``decoder>encoder.embed/embedding:0``: ``encoder.embed``, called from ``decoder``, which is not above it.
* ``/relu:0``: a function called by the network itself.

Operators go by the functions they stand for, whatever the version of torch or its compiler calls them: ``x + y`` and
``torch.add`` are ``add``, ``x += y`` and ``x.add_`` are ``add_``.

Everything is counted relative to the caller, never to the run, so that recomputation, several batches and separate
calls of an encoder and a head give the same addresses. A module registered under several names goes by the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["child_call_path", "frame_of", "function_name"]

_OPERATORS = {
    f"__{prefix}{operator}__": function + ("_" if prefix == "i" else "")
    for operator, function in {
        "add": "add",
        "sub": "sub",
        "mul": "mul",
        "div": "div",
        "truediv": "div",
        "matmul": "matmul",
        "pow": "pow",
        "mod": "remainder",
    }.items()
    for prefix in ("", "i")
}
_OPERATORS |= {
    "__radd__": "add",
    "__rmul__": "mul",
    "__rsub__": "rsub",
    "__rtruediv__": "rdiv",
    "__rdiv__": "rdiv",
    "__neg__": "neg",
    "__pos__": "positive",
    "__rpow__": "rpow",
    "__floordiv__": "floor_divide",
    "__ifloordiv__": "floor_divide_",
    "__abs__": "abs",
    "numpy_T": "T",
}
# Methods whose name the compiler loses, because they are decorated.
_DECORATED = [
    (torch.Tensor.__rsub__, "rsub"),
    (torch.Tensor.__rdiv__, "rdiv"),
    (torch.Tensor.__pow__, "pow"),
    (torch.Tensor.__ipow__, "pow_"),
    (torch.Tensor.__rpow__, "rpow"),
    (torch.Tensor.__floordiv__, "floor_divide"),
]
_PROPERTY_SLOTS = frozenset({"__get__", "__set__", "__delete__"})


def child_call_path(caller_path: str, caller_module: str, module: str, index: int) -> str:
    """Return the call path of a module called from another.

    Args:
        caller_path: Call path of the caller, empty for the network itself.
        caller_module: Module path of the caller.
        module: Module path of the module called.
        index: How many calls of it the caller had made before.

    >>> child_call_path("head@1", "head", "head.conv", 0)
    'head@1.conv'
    >>> child_call_path("", "", "stem.relu", 2)
    'stem.relu@2'
    >>> child_call_path("decoder", "decoder", "encoder.embed", 0)
    'decoder>encoder.embed'
    """
    if module and not caller_module:
        path = f"{caller_path}.{module}" if caller_path else module
    elif module.startswith(caller_module + "."):
        path = caller_path + module[len(caller_module) :]
    else:
        path = f"{caller_path}>{module}"
    return f"{path}@{index}" if index else path


def frame_of(address: str) -> str:
    """Return the call path inside an address.

    >>> frame_of("layer1.0.relu@1/relu:0")
    'layer1.0.relu@1'
    """
    return address.rpartition("/")[0]


def function_name(function: Callable[..., Any]) -> str:
    """Return the name under which a function goes in addresses.

    Attributes of a tensor go by the attribute's name.

    >>> function_name(torch.conv2d), function_name(torch.Tensor.__iadd__), function_name(torch.Tensor.view)
    ('conv2d', 'add_', 'view')
    >>> function_name(torch.Tensor.T.__get__)
    'T'
    """
    name: str = getattr(function, "__name__", None) or type(function).__name__
    if name == "wrapped":
        for known, known_name in _DECORATED:
            if function is known:
                return known_name
    if name in _PROPERTY_SLOTS:
        owner = getattr(function, "__self__", None)
        name = getattr(owner, "__name__", name)
    name = f"{name}".partition(".")[0]  # a plain string: some compilers know no methods of what getattr returns
    return _OPERATORS.get(name, name)

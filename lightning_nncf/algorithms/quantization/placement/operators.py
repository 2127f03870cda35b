"""What kind of operation a traced function is: the vocabulary shared by hardware tables and patterns."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lightning_nncf.graph.graph import INPUT, OUTPUT, OpNode

__all__ = [
    "ACTIVATIONS",
    "ARITHMETIC",
    "CLIPPING",
    "CONVOLUTIONS",
    "CONVOLUTION_ACTIVATION",
    "ELEMENTWISE",
    "LINEAR",
    "NEITHER",
    "TRANSPOSED",
    "activation_ports",
    "canonical",
    "is_replaceable",
    "is_scalar_arithmetic",
    "keeps_channels",
    "operator_of",
    "weight_ports",
]

NEITHER = ""
"""Operator of a function that no table knows: it keeps full precision."""

_DUNDER = re.compile(r"__[ri]?(add|mul|sub|truediv|matmul|pow)__")
_SYNONYMS = {"truediv": "div", "true_divide": "div", "divide": "div", "multiply": "mul", "subtract": "sub"}


def canonical(function: str) -> str:
    """Return the plain name of a function: without operator, reflected or in-place spelling.

    >>> [canonical(name) for name in ("__iadd__", "__rmul__", "relu_", "__truediv__", "__getitem__")]
    ['add', 'mul', 'relu', 'div', 'getitem']
    """
    found = _DUNDER.fullmatch(function)
    name = found.group(1) if found else function.strip("_")
    return _SYNONYMS.get(name, name)


def _table(rows: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Turn rows of an operator and its functions into a table by function."""
    return {function: operator for operator, functions in rows for function in functions.split()}


_OPERATORS = _table(
    (
        ("Convolution", "conv1d conv2d conv3d"),
        ("ConvolutionBackpropData", "conv_transpose1d conv_transpose2d conv_transpose3d"),
        ("MatMul", "linear matmul mm bmm addmm baddbmm"),
        ("Add", "add"),
        ("Subtract", "sub"),
        ("Multiply", "mul"),
        ("Divide", "div"),
        ("Maximum", "maximum"),
        ("Minimum", "minimum"),
        ("AvgPool", "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d"),
        ("ReduceMean", "mean"),
        ("NormalizeL2", "normalize"),
        ("Power", "pow"),
        ("FloorMod", "remainder fmod mod"),
        ("ReduceSum", "sum"),
        ("ReduceL2", "norm vector_norm linalg_vector_norm"),
        ("Recurrent", "lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"),
        # The pooling of regions interpolates between the values of a feature map, as resizing does.
        ("Interpolate", "interpolate upsample upsample_bilinear roi_align"),
        ("NearestInterpolate", "upsample_nearest"),
        ("MVN", "layer_norm instance_norm group_norm"),
        ("BatchNorm", "batch_norm"),
        ("ScaledDotProductAttention", "scaled_dot_product_attention"),
        ("Concat", "cat concat concatenate stack hstack vstack"),
        ("Embedding", "embedding embedding_bag"),
        (
            "Activation",
            "relu6 hardtanh elu selu celu prelu leaky_relu rrelu sigmoid gelu silu hardswish hardsigmoid mish tanh",
        ),
        # These move, drop or compare values, so that a quantized tensor stays on its grid.
        (
            "Agnostic",
            "relu max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d "
            "boolean_dispatch max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices "
            "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout feature_dropout "
            "stochastic_depth "
            "pad zero_pad2d clone contiguous detach identity alias to float type type_as chunk split tensor_split "
            "unsafe_chunk unsafe_split split_with_sizes getitem narrow select index_select unbind "
            "reshape reshape_as view view_as flatten unflatten squeeze unsqueeze "
            "transpose swapaxes swapdims t T mT permute movedim moveaxis adjoint expand expand_as broadcast_to repeat "
            "repeat_interleave tile roll flip rot90 gather take_along_dim "
            "pixel_shuffle pixel_unshuffle channel_shuffle unfold where masked_fill masked_select masked_scatter "
            "setitem index_put scatter index_copy copy",
        ),
    )
)

TRANSPOSED = "ConvolutionBackpropData"
"""Operator of transposed convolutions."""
CONVOLUTIONS = frozenset({"Convolution", "DepthWiseConvolution", TRANSPOSED})
"""Operators that slide a weight over their input."""
LINEAR = CONVOLUTIONS | {"MatMul"}
"""Operators that multiply and accumulate."""
ELEMENTWISE = frozenset({"Add", "Subtract", "Multiply", "Divide", "Maximum", "Minimum"})
"""Operators that combine two tensors value by value."""
ARITHMETIC = frozenset({"Power", "FloorMod", "ReduceSum", "ReduceL2"})
"""Operators that compute, which only some devices do in integers."""
ACTIVATIONS = frozenset(function for function, operator in _OPERATORS.items() if operator == "Activation") | {"relu"}
"""Plain names of activation functions."""
CLIPPING = frozenset({"relu", "relu6", "hardtanh"})
"""Activation functions that only clip: a quantizer behind them does that too, so runtimes drop them."""
CONVOLUTION_ACTIVATION = "ConvolutionActivation"
"""Operator of any other activation function right behind a convolution."""

_ACTIVATION_PORTS = {
    "addmm": (1, 2),
    "baddbmm": (1, 2),
    "linear": (0, 1),
    "roi_align": (0,),
    "scaled_dot_product_attention": (0, 1, 2),
    "where": (1, 2),
    "setitem": (0, -1),
    "index_put": (0, -1),
}
_TWO_OPERANDS = frozenset({"matmul", "mm", "bmm"})
_VARIADIC = frozenset({"Concat"}) | ELEMENTWISE | ARITHMETIC
_RESIZING = frozenset({"interpolate", "upsample"})
_MIXES = frozenset({"masked_fill", "masked_scatter", "scatter", "index_copy", "copy"})
_WEIGHT_PORTS = {
    "linear": (1,),
    "embedding": (1,),
    "embedding_bag": (1,),
    "addmm": (2, 1),
    "baddbmm": (2, 1),
    "matmul": (1, 0),
    "mm": (1, 0),
    "bmm": (1, 0),
}
_KEEPS_CHANNELS = frozenset(
    (
        *("relu", "max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d"),
        *("adaptive_max_pool3d", "boolean_dispatch", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout"),
        *("feature_alpha_dropout", "feature_dropout", "stochastic_depth", "pad", "zero_pad2d", "clone", "contiguous"),
        *("detach", "identity", "alias", "to", "float", "type", "type_as", "cat", "concat", "concatenate"),
    )
)


def operator_of(op: OpNode) -> str:
    """Return the operator of an op, `NEITHER` if no table knows its function.

    A convolution whose groups are as many as its input channels is depthwise.

    >>> operator_of(OpNode(address="a", function="__iadd__")), operator_of(OpNode(address="b", function="topk"))
    ('Add', '')
    """
    if op.function in (INPUT, OUTPUT):
        return NEITHER
    name = canonical(op.function)
    if name in ("max", "min") and len(op.inputs) == 2:
        return {"max": "Maximum", "min": "Minimum"}[name]
    if name == "pad" and op.attributes.get("mode", "constant") == "constant" and op.attributes.get("value"):
        return NEITHER  # every grid holds zero, but not every other value
    operator = _OPERATORS.get(name, NEITHER)
    if name in _RESIZING and str(op.attributes.get("mode", "nearest")).startswith("nearest"):
        return "NearestInterpolate"
    groups = op.attributes.get("groups", 1)
    if operator == "Convolution" and groups > 1 and op.inputs and op.inputs[0].shape[1:2] == (groups,):
        return "DepthWiseConvolution"
    return operator


def activation_ports(op: OpNode) -> tuple[int, ...]:
    """Return the input ports that can carry activations, not coordinates, masks, biases or statistics."""
    name = canonical(op.function)
    operator = operator_of(op)
    count = len(op.inputs)
    if name in _ACTIVATION_PORTS:
        ports: tuple[int, ...] = tuple(port % count if count else port for port in _ACTIVATION_PORTS[name])
    elif operator in _VARIADIC or operator == NEITHER or name in _MIXES:
        ports = tuple(range(count))
    elif name in _TWO_OPERANDS or operator in LINEAR:
        ports = (0, 1)
    else:
        ports = (0,)
    return tuple(sorted({port for port in ports if port < count and port not in op.parameters}))


def weight_ports(op: OpNode) -> tuple[int, ...]:
    """Return the input ports where the op takes its only weight, the usual one first; empty for other ops."""
    operator = operator_of(op)
    if operator in LINEAR or operator == "Embedding":
        return _WEIGHT_PORTS.get(canonical(op.function), (1,))
    return ()


def is_scalar_arithmetic(op: OpNode) -> bool:
    """Whether the op combines one tensor with a plain number, as ``x / 8`` does.

    >>> from lightning_nncf.graph.graph import TensorInfo
    >>> is_scalar_arithmetic(OpNode(address="a", function="mul", inputs=(TensorInfo(shape=(2,), dtype="float32"),)))
    True
    """
    big = [info for info in op.inputs if info.shape]
    return operator_of(op) in ELEMENTWISE and len(big) == 1 and not op.parameters


def keeps_channels(op: OpNode) -> bool:
    """Whether axis 1 of the op's output is axis 1 of its input, so that ranges per channel can move through."""
    return canonical(op.function) in _KEEPS_CHANNELS


def is_replaceable(op: OpNode) -> bool:
    """Whether replacing what the op returns replaces the tensor that is used afterwards.

    An op that writes into its argument is often called for that effect alone.

    >>> is_replaceable(OpNode(address="a", function="relu_")), is_replaceable(OpNode(address="b", function="__add__"))
    (False, True)
    """
    name = op.function
    return name != "__setitem__" and not (name.endswith("_") and not name.endswith("__"))

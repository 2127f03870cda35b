"""What each runtime executes on integers, kind of layer by kind of layer, quantized with the smallest configuration.

    python -m benchmarks.integer_layers

Every kind is a network of a few layers, once behind a ReLU (unsigned integers) and once not (signed). Results:
``benchmarks/results/integer_layers.json`` and ``integer_layers.md``.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.machine import machine, write_results
from lightning_nncf import compress, export_onnx
from lightning_nncf.proof import OpenVINOModel
from lightning_nncf.proof.sessions import OnnxRuntimeSession

_FILE = Path(__file__).parent / "results" / "integer_layers.md"
_RUNTIMES = ("onnxruntime", "openvino")
_SIZES = {1: (12,), 2: (12, 12), 3: (6, 6, 6)}
_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_INTEGER_PREFIXES = ("QLinear", "QGemm", "MatMulInteger", "MatMulNBits", "ConvInteger", "DynamicQuantize")
_MOVING = ("Concat", "Gather", "MaxPool", "Reshape", "Resize", "Slice", "Squeeze", "Transpose", "Unsqueeze")
Op = Callable[[Tensor], Tensor]


class Around(nn.Module):
    """A layer between two convolutions, or linear layers over tokens, behind a ReLU or not."""

    def __init__(self, op: Op, *, rank: int, signed: bool, channels: int = 16) -> None:
        super().__init__()
        self.before, self.after = (self._layer(rank, inputs) for inputs in (16, channels))
        self.op, self.signed = op, signed

    @staticmethod
    def _layer(rank: int, inputs: int) -> nn.Module:
        return _CONVOLUTIONS[rank](inputs, 16, 1) if rank else nn.Linear(inputs, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return self.after(self.op(x if self.signed else F.relu(x)))


class Tokens(nn.Module):
    """A layer that looks tokens up or reads them one after the other, and a linear layer."""

    def __init__(self, layer: nn.Module, width: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.layer, self.head = layer, nn.Linear(width, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.layer(self.embedding(tokens))
        return self.head(x[0] if isinstance(x, tuple) else x)


def _module(layer: nn.Module) -> Op:
    layer.requires_grad_(True)
    return layer


def _kinds() -> dict[str, tuple[int, Callable[[], Op], str, str]]:
    """Return by kind the rank of its input, the op, and what the runtimes call it."""
    kinds: dict[str, tuple[int, Callable[[], Op], str, str]] = {}
    conv, ours = "Conv", "Convolution|GroupConvolution"
    for rank in _SIZES:
        layers, transposed = _CONVOLUTIONS[rank], _TRANSPOSED[rank]
        for name, groups in (("", 1), (" grouped", 4), (" depthwise", 16)):
            make = lambda layers=layers, groups=groups: _module(layers(16, 16, 3, padding=1, groups=groups))  # noqa: E731
            kinds[f"convolution {rank}-D{name}"] = (rank, make, conv, ours)
        make = lambda transposed=transposed: _module(transposed(16, 16, 2, 2))  # noqa: E731
        kinds[f"transposed convolution {rank}-D"] = (rank, make, "ConvTranspose", "Deconvolution")
    product = ("MatMul|Gemm", "MatMul|FullyConnected")
    kinds |= {
        "linear": (0, lambda: _module(nn.Linear(16, 16)), *product),
        "product of activations": (0, lambda: lambda x: x @ x.transpose(1, 2) @ x, *product),
        "attention": (0, lambda: lambda x: F.scaled_dot_product_attention(x, x, x), *product),
        "addition": (2, lambda: lambda x: x + x.flip(3), "Add", "Eltwise|Subgraph"),
        "multiplication": (2, lambda: lambda x: x * x.flip(3), "Mul", "Eltwise|Subgraph"),
        "concatenation": (2, lambda: lambda x: torch.cat([x, x.flip(3)], 2), "Concat", "Concatenation"),
        "max pooling": (2, lambda: lambda x: F.max_pool2d(x, 2), "MaxPool", "Pooling"),
        "average pooling": (2, lambda: lambda x: F.avg_pool2d(x, 2), "AveragePool", "Pooling"),
        "global average pooling": (
            2, lambda: lambda x: F.adaptive_avg_pool2d(x, 1), "GlobalAveragePool|ReduceMean", "Pooling|Reduce",
        ),
        "softmax": (0, lambda: lambda x: F.softmax(x, -1), "Softmax", "Softmax"),
        "layer norm": (0, lambda: _module(nn.LayerNorm(16)), "LayerNormalization", "MVN"),
        "GELU": (0, lambda: F.gelu, "Gelu|BiasGelu|Erf", "Eltwise|Subgraph|FullyConnected"),
        "ReLU": (2, lambda: lambda x: F.relu(x.flip(3)), "Relu|Clip", "Eltwise|Subgraph"),
        "hard swish": (2, lambda: F.hardswish, "HardSwish|HardSigmoid", "Eltwise|Subgraph|Convolution"),
        "SiLU": (2, lambda: F.silu, "Sigmoid|QuickGelu", "Eltwise|Subgraph|Convolution"),
        "nearest interpolation": (2, lambda: lambda x: F.interpolate(x, scale_factor=2), "Resize", "Interpolate"),
        "linear interpolation": (
            2, lambda: lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), "Resize", "Interpolate",
        ),
    }  # fmt: skip
    return kinds


_TOKEN_KINDS: Mapping[str, tuple[Callable[[], nn.Module], tuple[str, str]]] = {
    "embedding": (nn.Identity, ("Gather", "Gather")),
    "LSTM": (lambda: nn.LSTM(16, 16, batch_first=True), ("LSTM|DynamicQuantizeLSTM", "LSTMSequence|LSTMCell|RNNSeq")),
    "GRU": (lambda: nn.GRU(16, 16, batch_first=True), ("GRU", "GRUSequence|GRUCell|RNNSeq")),
}


def _exported(network: nn.Module, x: Tensor, path: Path) -> None:
    compressed = compress(network.eval(), {"compression": {"algorithm": "quantization"}}, [x, x])
    export_onnx(compressed.exportable(), ((x,), {}), path)


def _status(found: set[bool]) -> str:
    return {frozenset((True,)): "integers", frozenset((False,)): "float", frozenset(): "-"}.get(
        frozenset(found), "partly"
    )


def _is_other(names: Sequence[str]) -> bool:
    """Whether a layer stands before or behind the one that is looked at; names without a path say nothing."""
    known = [name for name in names if "/" in name]
    return bool(known) and all(name.startswith(("before", "after", "head")) for name in known)


def _in_onnxruntime(path: Path, ops: str) -> str:
    """Say how ONNX Runtime computes the ops of a kind; what only moves values may take integers or floats."""
    optimized = path.with_name("optimized.onnx")
    OnnxRuntimeSession(str(path), None, str(optimized))
    graph = onnx.load(optimized).graph
    quantized = {node.output[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    quantized |= {tensor.name for tensor in graph.initializer if tensor.data_type in (2, 3)}
    found = set()
    for node in graph.node:
        integer = node.op_type.startswith(_INTEGER_PREFIXES)
        # On integers, results of integer ops but those that give floats, and what is moved of them.
        moves = _plain(node.op_type) in _MOVING and node.input[0] in quantized
        if (integer and not node.op_type.endswith("ToFloat")) or moves:
            quantized.update(node.output)
        if _plain(node.op_type) in ops.split("|") and not _is_other([node.name]):
            found.add(integer or moves)
    return _status(found)


def _plain(op: str) -> str:
    for start in ("NhwcFused", "Nhwc", "Fused", "QLinear", "Q"):
        op = op.removeprefix(start) if op != "QuickGelu" else op
    return op.removesuffix("IntegerToFloat").removesuffix("Integer")


def _in_openvino(path: Path, ops: str) -> str:
    return _status(
        {
            precision in ("u8", "i8", "u4", "i4")
            for kind, precision, names in OpenVINOModel(path).session.layers()
            if kind in ops.split("|") and not _is_other(names.split(","))
        }
    )


def measure() -> dict[str, dict[str, dict[str, str]]]:
    """Return by kind, behind a ReLU or not, and runtime how a layer is executed."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        for kind, (rank, make, *ops) in _kinds().items():
            found[kind] = {}
            for label, signed in (("unsigned", False), ("signed", True)):
                torch.manual_seed(0)
                x = torch.randn(2, 16, *_SIZES[rank]) if rank else torch.randn(2, 16, 16)
                _exported(Around(make(), rank=rank, signed=signed), x, path)
                found[kind][label] = _executed(path, ops)
        for kind, (layer, ops) in _TOKEN_KINDS.items():
            torch.manual_seed(0)
            _exported(Tokens(layer()), torch.randint(0, 20, (2, 8)), path)
            found[kind] = {"signed": _executed(path, ops)}
    return found


def _executed(path: Path, ops: Sequence[str]) -> dict[str, str]:
    return {"onnxruntime": _in_onnxruntime(path, ops[0]), "openvino": _in_openvino(path, ops[1])}


def table(found: Mapping[str, Mapping[str, Mapping[str, str]]], versions: Mapping[str, str]) -> str:
    """Write the results as a table in Markdown."""
    lines = [
        f"ONNX Runtime {versions['onnxruntime']}, OpenVINO {versions['openvino']}, on a CPU. Kinds of layers between",
        "two others, quantized with the smallest configuration; of several ops that make one layer, `partly` only some",
        "run on integers. `-`: the runtime has merged it with a neighbour.",
        "",
        "| layer | ONNX Runtime, unsigned input | signed | OpenVINO, unsigned input | signed |",
        "|---|---|---|---|---|",
    ]
    for kind, rows in found.items():
        cells = [rows.get(label, {}).get(name, "") for name in _RUNTIMES for label in ("unsigned", "signed")]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    warnings.filterwarnings("ignore")
    found = measure()
    write_results("integer_layers", found)
    _FILE.write_text(table(found, machine()["versions"]))


if __name__ == "__main__":
    main()

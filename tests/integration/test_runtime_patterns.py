"""Networks whose obvious export one of the runtimes computes wrongly, or in float, beside quantizers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_nncf import compress, export_and_verify
from lightning_nncf.proof.int8_layers import count_int8_layers
from lightning_nncf.proof.runtimes import OnnxRuntimeModel, OpenVINOModel

_Head = Callable[[Tensor], Tensor]


class _Images(nn.Module):
    """A convolution over ``[N, 3, 9, 8]``, an op, a convolution or a linear layer if asked."""

    shape = (3, 9, 8)

    def __init__(self, op: _Head, last: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.op = op
        self.last = last or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.op(self.conv(x)))


class _Tokens(nn.Module):
    """Two linear layers over ``[N, 7, 10]``, an op, a linear layer if asked."""

    shape = (7, 10)

    def __init__(self, op: _Head, last: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(10, 16), nn.Linear(16, 8)
        self.op = op
        self.last = last or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.op(self.second(torch.relu(self.first(x)))))


class _Sequences(nn.Module):
    """A convolution over ``[N, 4, 12]`` to 10 channels, and an op."""

    shape = (4, 12)

    def __init__(self, op: _Head) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 10, 3, padding=1)
        self.op = op

    def forward(self, x: Tensor) -> Tensor:
        return self.op(self.conv(x))


class _SpatialAttention(nn.Module):
    """A map of attention from the largest and the mean channel."""

    shape = (3, 9, 8)

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(2, 1, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        both = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return self.last(x * torch.sigmoid(self.gate(both)))


class _ClassToken(nn.Module):
    """Patches of an image as tokens, behind one that is learned."""

    shape = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(1, 1, 8))
        with torch.no_grad():
            self.patches.bias.copy_(torch.linspace(-1.0, 1.0, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        return torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)


class _Scaled(nn.Module):
    """A layer scale of both signs behind an activation, before a layer."""

    shape = (3, 9, 8)

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)
        self.scale = nn.Parameter(torch.linspace(-1.0, 1.2, 8).reshape(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.scale * torch.relu(self.conv(x)))


_PATTERNS: dict[str, Callable[[], nn.Module]] = {
    "layer scale of both signs": _Scaled,
    "class token before patches": _ClassToken,
    "mean of tokens": lambda: _Tokens(lambda x: x.mean(1)),
    "kept mean of tokens": lambda: _Tokens(lambda x: torch.relu(x).mean(1, keepdim=True)),
    "mean over time": lambda: _Sequences(lambda x: x.mean(-1)),
    "mean of a sample": lambda: _Sequences(lambda x: x.mean((1, 2))),
    "mean of a flat map": lambda: _Images(lambda x: x.flatten(2).mean(-1), nn.Linear(8, 5)),
    "largest of a map": lambda: _Images(lambda x: x.amax((2, 3)), nn.Linear(8, 5)),
    "smallest of a map": lambda: _Images(lambda x: x.amin((2, 3), keepdim=True).flatten(1), nn.Linear(8, 5)),
    "largest token": lambda: _Tokens(lambda x: x.max(1)[0], nn.Linear(8, 5)),
    "spatial attention": _SpatialAttention,
    "padded average pool": lambda: _Images(lambda x: F.avg_pool2d(x, 3, 2, 1), nn.Conv2d(8, 5, 1)),
    "padded average pool of a difference": lambda: _Images(
        lambda x: F.avg_pool2d(x - 3.0, 2, 1, 1), nn.Conv2d(8, 5, 1)
    ),
    "padding before an average pool": lambda: _Images(lambda x: F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2)),
    "padded average pool over time": lambda: _Sequences(lambda x: F.avg_pool1d(x, 3, 2, 1)),
    "overhanging average pool": lambda: _Images(lambda x: F.avg_pool2d(x, 2, 2, ceil_mode=True), nn.Conv2d(8, 5, 1)),
    "overhanging padded average pool": lambda: _Images(
        lambda x: F.avg_pool2d(torch.relu(x), 3, 2, 1, ceil_mode=True), nn.Conv2d(8, 5, 1)
    ),
}


def _compressed(network: nn.Module, x: Tensor, preset: str = "performance") -> object:
    return compress(network.eval(), {"compression": {"algorithm": "quantization", "preset": preset}}, [x, x])


@pytest.mark.parametrize("pattern", _PATTERNS)
def test_pattern_is_right_in_both_runtimes_at_any_batch_size(pattern: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = _PATTERNS[pattern]().eval()
    shape = getattr(network, "shape", ())
    compressed = _compressed(network, torch.randn(8, *shape), "mixed" if "pool" in pattern else "performance")
    export_and_verify(compressed, tmp_path / "m.onnx", verify=False)  # type: ignore[arg-type]
    loaded = [runtime(tmp_path / "m.onnx") for runtime in (OnnxRuntimeModel, OpenVINOModel)]
    for batch in (1, 3, 8, 32):
        x = torch.randn(batch, *shape)
        expected = network(x).detach()
        for model in loaded:
            error = (model(x) - expected).square().mean().sqrt() / expected.square().mean().sqrt()
            assert error < 0.02, f"{type(model).__name__} at batch {batch}"


class _Residual(nn.Module):
    """Two convolutions with an addition and a global average pool: what must stay on integers as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(x + self.second(x))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def test_ordinary_networks_keep_all_their_integer_layers(tmp_path: Path) -> None:
    compressed = _compressed(_Residual(), torch.randn(4, 3, 8, 8))
    export_and_verify(compressed, tmp_path / "m.onnx", verify=False)  # type: ignore[arg-type]
    for runtime in (OnnxRuntimeModel, OpenVINOModel):
        layers = count_int8_layers(runtime(tmp_path / "m.onnx"))
        assert (layers.convolutions, layers.matmuls) == (2, 1)


class _Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.up = nn.Conv2d(3, 8, 3, padding=1), nn.ConvTranspose2d(8, 8, 4, 2, 1)
        self.last = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.leaky_relu(self.up(F.leaky_relu(self.first(x)))))


class _Products(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return torch.bmm(self.first(x), self.second(x).transpose(1, 2))


@pytest.mark.parametrize(
    ("make", "shape", "convolutions", "matmuls"),
    [
        pytest.param(_Decoder, (4, 3, 8, 8), 3, 0, id="transposed convolution"),
        pytest.param(_Products, (4, 6, 16), 0, 3, id="product of activations"),
    ],
)
def test_signed_inputs_run_on_integers_in_openvino(
    make: Callable[[], nn.Module], shape: tuple[int, ...], convolutions: int, matmuls: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network, x = make().eval(), torch.randn(shape)
    export_and_verify(_compressed(network, x), tmp_path / "m.onnx", verify=False)  # type: ignore[arg-type]
    loaded = OpenVINOModel(tmp_path / "m.onnx")
    layers = count_int8_layers(loaded)
    assert (layers.convolutions, layers.matmuls) == (convolutions, matmuls)
    for model in (loaded, OnnxRuntimeModel(tmp_path / "m.onnx")):
        expected = network(x).detach()
        assert (model(x) - expected).square().mean().sqrt() < 0.02 * expected.square().mean().sqrt()


class _Packed(nn.Module):
    """A recurrent layer over sequences of several lengths, longest first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.recurrent, self.last = nn.Linear(6, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(self.first(x), lengths, batch_first=True)
        output, _ = nn.utils.rnn.pad_packed_sequence(self.recurrent(packed)[0], batch_first=True, total_length=7)
        return self.last(output)


def test_packed_sequences_end_in_both_runtimes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, lengths = _Packed().eval(), torch.tensor([7, 5, 3, 2])
    inputs = {"x": torch.randn(4, 7, 6), "lengths": lengths}
    compressed = compress(network, {"compression": {"algorithm": "quantization"}}, [inputs, inputs])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_and_verify(compressed, tmp_path / "m.onnx", inputs=((), inputs), verify=False)
    for runtime in (OnnxRuntimeModel, OpenVINOModel):
        model = runtime(tmp_path / "m.onnx")
        for batch in (1, 3, 4):
            x = torch.randn(batch, 7, 6)
            expected = network(x, lengths[:batch]).detach()
            found = model(x=x, lengths=lengths[:batch])
            assert (found - expected).square().mean().sqrt() < 0.02 * expected.square().mean().sqrt()


@pytest.mark.parametrize("pattern", ["largest of a map", "class token before patches", "layer scale of both signs"])
def test_fake_quantize_files_are_right(pattern: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = _PATTERNS[pattern]().eval()
    compressed = _compressed(network, torch.randn(8, *network.shape))  # type: ignore[misc]
    export_and_verify(compressed, tmp_path / "m.onnx", verify=False, export_format="openvino_fq")  # type: ignore[arg-type]
    x = torch.randn(3, *network.shape)  # type: ignore[misc]
    expected = network(x).detach()
    error = (OpenVINOModel(tmp_path / "m.onnx")(x) - expected).square().mean().sqrt()
    assert error < 0.02 * expected.square().mean().sqrt()

"""Kinds of convolutions that ONNX Runtime computed in float for want of a quantizer or of folding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_nncf import compress, export_onnx
from lightning_nncf.proof.int8_layers import count_int8_layers
from lightning_nncf.proof.runtimes import OnnxRuntimeModel, OpenVINOModel

_CHANNELS = 8
_Body = Callable[["_Network", Tensor], Tensor]


class _Network(nn.Module):
    """Convolutions of 8 channels that a body puts together, and a linear layer behind the last."""

    def __init__(self, body: _Body) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, _CHANNELS, 3, padding=1)
        self.a, self.b = nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1), nn.Conv2d(_CHANNELS, _CHANNELS, 1)
        self.joined = nn.Conv2d(2 * _CHANNELS, _CHANNELS, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(_CHANNELS) for _ in range(3))
        self.token_norm, self.mixer = nn.LayerNorm(_CHANNELS), nn.Linear(_CHANNELS, _CHANNELS)
        self.head = nn.Linear(_CHANNELS, 5)
        self.gamma = nn.Parameter(torch.rand(_CHANNELS, 1, 1) - 0.5)
        self.register_buffer("factor", torch.rand(1, _CHANNELS, 1, 1) - 0.4)
        self.register_buffer("shift", torch.randn(1, _CHANNELS, 1, 1) * 0.2)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self, x)
        return self.head(x.mean((2, 3)) if x.dim() == 4 else x.mean(1))


def _frozen_batch_norm(net: _Network, x: Tensor) -> Tensor:
    x = F.relu(net.stem(x) * net.factor + net.shift)
    return F.relu(net.a(x) * net.factor + net.shift)


def _norm_beside(net: _Network, x: Tensor) -> Tensor:
    """A convolution's result goes to another one and to a function that only knows floats."""
    x = F.relu(net.norms[0](net.stem(x)))
    return F.relu(net.a(x) + net.b(torch.cumsum(x, 3)))


def _patches(net: _Network, x: Tensor) -> Tensor:
    x = net.stem(x).flatten(2).transpose(1, 2)
    return x + net.mixer(torch.cumsum(x, 1))


def _split(net: _Network, x: Tensor) -> Tensor:
    left, right = net.a(net.stem(x)).chunk(2, 1)
    return net.b(torch.cat([torch.tanh(left) * torch.sigmoid(right)] * 2, 1))


def _layer_scale(net: _Network, x: Tensor) -> Tensor:
    x = F.relu(net.stem(x))
    return (x + net.b(F.gelu(net.a(x))) * net.gamma).cumsum(3)


def _constant_gain(net: _Network, x: Tensor) -> Tensor:
    x = F.relu(net.stem(x)) * 1.7
    x = F.relu(net.a(x) * 0.2 + net.b(x)) * 1.7
    return net.b(x)


def _branches(net: _Network, x: Tensor) -> Tensor:
    x = F.relu(net.stem(x))
    return F.relu(net.norms[0](net.a(x)) + net.norms[1](net.b(x)) + net.norms[2](x)).cumsum(3)


def _preactivation(net: _Network, x: Tensor) -> Tensor:
    x = net.stem(x)
    x = x + net.a(F.relu(x))
    return x + net.b(F.relu(x.flip(3)))


def _signed_neighbour(net: _Network, x: Tensor) -> Tensor:
    """Both sides of a concatenation share a grid, which holds negative numbers although one side has none."""
    x = F.relu(net.stem(x))
    return net.joined(torch.cat([x, net.a(F.max_pool2d(x, 3, 1, 1))], 1))


def _affine_behind(net: _Network, x: Tensor) -> Tensor:
    x = F.relu(net.stem(x)) * net.factor + net.shift
    return F.relu(net.a(x)) * net.factor + net.shift


def _padded_neighbour(net: _Network, x: Tensor) -> Tensor:
    x = F.relu(net.stem(x))
    x = torch.cat([F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 2, 1), F.relu(net.a(x))], 1)
    return F.relu(net.joined(x))


_KINDS: dict[str, tuple[_Body, int]] = {
    "frozen batch norm": (_frozen_batch_norm, 2),
    "a consumer in float": (_norm_beside, 3),
    "patch embedding": (_patches, 1),
    "split behind": (_split, 3),
    "layer scale": (_layer_scale, 3),
    "gain behind": (_constant_gain, 4),
    "branches": (_branches, 3),
    "activation before": (_preactivation, 3),
    "signed neighbour": (_signed_neighbour, 3),
    "affine behind an activation": (_affine_behind, 2),
    "padded neighbour": (_padded_neighbour, 3),
}


@pytest.mark.parametrize("kind", _KINDS)
def test_convolutions_run_on_integers_and_are_right_at_any_batch_size(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    body, convolutions = _KINDS[kind]
    network, path = _Network(body).eval(), tmp_path / "m.onnx"
    with torch.no_grad():
        for norm in network.norms:
            assert isinstance(norm, nn.BatchNorm2d)
            norm.weight.uniform_(-1, 1)
    x = torch.randn(8, 3, 8, 8)
    compress(network, {"compression": {"algorithm": "quantization"}}, [x, x])
    export_onnx(network, ((x,), {}), path)
    for runtime in (OnnxRuntimeModel, OpenVINOModel):
        model = runtime(path)
        layers = count_int8_layers(model)
        assert (layers.convolutions, layers.all_convolutions) == (convolutions, convolutions), runtime.__name__
        for batch in (1, 3, 8):
            expected = network(x[:batch]).detach()
            error = (model(x[:batch]) - expected).square().mean().sqrt() / expected.square().mean().sqrt()
            assert error < 0.02, f"{runtime.__name__} at batch {batch}"


def test_relu6_of_a_wider_range_leaves_its_convolution_on_integers(tmp_path: Path) -> None:
    """A range that grew in training no longer clips at 6 by itself."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.Conv2d(4, 4, 3), nn.ReLU6(), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        for conv in network[0], network[2]:
            assert isinstance(conv, nn.Conv2d)
            conv.weight.mul_(8)
    x, path = torch.randn(4, 3, 8, 8), tmp_path / "m.onnx"
    compressed = compress(network.eval(), {"compression": {"algorithm": "quantization"}}, [x, x])
    scales = [tensor for name, tensor in compressed.network.state_dict().items() if name.startswith("1.lnncf_out")]
    with torch.no_grad():
        for scale in scales:
            if scale.is_floating_point():
                assert 5 < scale.item() <= 6
                scale.fill_(6.5)
    export_onnx(network, ((x,), {}), path)
    model = OnnxRuntimeModel(path)
    assert count_int8_layers(model).convolutions == 2  # the last one gives the network's output
    torch.testing.assert_close(model(x), network(x).detach(), rtol=0, atol=0.05)

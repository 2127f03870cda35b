"""Parameters that a network writes in its own forward keep what it writes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nncf import compress
from lightning_nncf.capture.trace import trace
from lightning_nncf.hooks.insertion import inserted

X = torch.linspace(-2, 2, 24).reshape(6, 4)
IDS = torch.tensor([[0, 3], [2, 1]])


def _assign(weight: nn.Parameter) -> None:
    weight.data = weight.data.clamp(-0.1, 0.1)


def _through_data(weight: nn.Parameter) -> None:
    weight.data.clamp_(-0.1, 0.1)


@torch.no_grad()
def _in_place(weight: nn.Parameter) -> None:
    weight.clamp_(-0.1, 0.1)


@torch.no_grad()
def _item(weight: nn.Parameter) -> None:
    weight[1] = 0.05


@torch.no_grad()
def _view(weight: nn.Parameter) -> None:
    weight.view(-1)[:5].zero_()


@torch.no_grad()
def _out(weight: nn.Parameter) -> None:
    torch.mul(weight, 0.5, out=weight)


WRITES = [_assign, _through_data, _in_place, _item, _view, _out]


class Bounded(nn.Linear):
    """A layer that bounds its weight itself."""

    write: Callable[[nn.Parameter], None]

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            type(self).write(self.weight)
        return F.linear(x, self.weight, self.bias)


def _bounded(write: Callable[[nn.Parameter], None]) -> nn.Module:
    torch.manual_seed(0)
    layer = type("BoundedBy", (Bounded,), {"write": staticmethod(write)})(4, 4)
    return nn.Sequential(layer, nn.ReLU(), nn.Linear(4, 4))


class Codebook(nn.Module):
    """A vector quantizer whose codes follow the data."""

    def __init__(self) -> None:
        super().__init__()
        self.codes = nn.Embedding(5, 4)
        self.decoder = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        nearest = torch.cdist(x, self.codes.weight).argmin(1)
        if self.training:
            with torch.no_grad():
                self.codes.weight[nearest] = 0.9 * self.codes.weight[nearest] + 0.1 * x
        return self.decoder(self.codes(nearest))


class Limited(nn.Module):
    """A table whose rows PyTorch keeps short when they are looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4, max_norm=0.5)
        self.head = nn.Linear(4, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table(ids))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], str, Tensor]] = {
    **{write.__name__: (lambda write=write: _bounded(write), "0.weight", X) for write in WRITES},
    "codebook": (Codebook, "codes.weight", X),
    "limited": (Limited, "table.weight", IDS),
}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "quantization": {
        "algorithm": "quantization",
        "quantize_inputs": False,
        "initializer": {"batchnorm_adaptation": {"num_bn_adaptation_samples": 0}},
    },
    "n_m_sparsity": {"algorithm": "n_m_sparsity"},
}


CASES = [(name, "quantization") for name in NETWORKS] + [(write.__name__, "n_m_sparsity") for write in WRITES]


@pytest.mark.parametrize(("name", "algorithm"), CASES)
def test_a_parameter_that_the_forward_writes_is_left_as_it_is_by_name(name: str, algorithm: str) -> None:
    make, parameter, x = NETWORKS[name]
    torch.manual_seed(0)
    net = make()
    plain = copy.deepcopy(net)
    with pytest.warns(UserWarning, match=rf"'{parameter}' is not compressed, since the forward of .* writes it"):
        compress(net, {"compression": ALGORITHMS[algorithm]}, [x])
    assert len(list(inserted(net))) > 0
    for each in (net, plain):
        each.train()
        with torch.no_grad():
            each.get_parameter(parameter).mul_(3)
        each(x)
    torch.testing.assert_close(net.get_parameter(parameter), plain.get_parameter(parameter), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_trace_takes_back_what_the_forward_writes(name: str) -> None:
    make, parameter, x = NETWORKS[name]
    torch.manual_seed(0)
    net = make()
    weight = net.get_parameter(parameter)
    memory, values = weight.data_ptr(), weight.detach().clone()
    assert set(trace(net, lambda: net(x)).written) == {parameter}
    assert weight.data_ptr() == memory
    assert torch.equal(weight, values)


def test_writes_before_the_forward_of_the_reader_reach_the_compressed_weight() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    net[0].register_forward_pre_hook(lambda module, args: _in_place(module.weight))
    compress(net, {"compression": ALGORITHMS["n_m_sparsity"]}, [X])
    assert {site.key for site, _, _ in inserted(net)} == {"0.lnncf_weight", "2.lnncf_weight"}
    net(X)
    assert net[0].weight.abs().max() <= 0.1

"""The mask of a parameter acts wherever it is read."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from lightning_nncf import compress
from tests.hooks.shared_weights import NETWORKS


@pytest.mark.parametrize("algorithm", ["magnitude_sparsity", "rb_sparsity"])
@pytest.mark.parametrize("name", ["linear", "t", "codebook", "argument", "tied"])
def test_every_reading_sees_the_zeros(name: str, algorithm: str) -> None:
    make, parameter, x = NETWORKS[name]
    torch.manual_seed(0)
    net = make().eval()
    plain = copy.deepcopy(net)
    section = {"algorithm": algorithm, "sparsity_init": 0.5, "params": {"sparsity_target": 0.6}}
    algorithm_at_work = compress(net, {"compression": section}, [x, x]).algorithms[0]
    if algorithm == "rb_sparsity":
        for mask in algorithm_at_work.masks:
            mask.logits.data[::2] = -5.0
    kept = {
        place.name: torch.where(mask.kept(), place.parameter_of(net).detach(), 0.0)
        for place, mask in zip(algorithm_at_work.places, algorithm_at_work.masks, strict=True)
    }
    assert 0.2 < float((kept[parameter] == 0).float().mean()) < 0.9
    with torch.no_grad():
        expected = functional_call(plain, kept, (x,), tie_weights=True)
        torch.testing.assert_close(net(x), expected)
        assert not torch.allclose(plain(x), expected)


class Twice(nn.Module):
    """The network convolves with the weight of its layer, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.conv(torch.relu(self.first(x))), self.conv.weight)


def test_a_binary_weight_is_binary_in_every_reading() -> None:
    torch.manual_seed(0)
    net, x = Twice().eval(), torch.rand(2, 3, 6, 6)
    section = {"algorithm": "binarization", "ignored_scopes": ["first"]}
    compressed = compress(net, {"compression": section}, [x])
    (binarizer,) = compressed.algorithms[0].weights
    binarizer.enabled = True
    with torch.no_grad():
        weight = binarizer(net.conv.weight)
        hidden = F.conv2d(torch.relu(net.first(x)), weight, padding=1)
        torch.testing.assert_close(net(x), F.conv2d(hidden, weight))

"""A parameter has one compressed value, however and wherever it is read."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from lightning_nncf.capture.trace import trace
from lightning_nncf.hooks.insertion import insert, inserted, strip
from lightning_nncf.hooks.weight_sites import weight_sites
from tests.capture.networks import Affine
from tests.hooks.shared_weights import IDS, NETWORKS, Given, Passes, Table


def _hooked(name: str) -> tuple[nn.Module, Affine, nn.Module, Tensor]:
    """Return a network whose parameter is compressed, the module that does so, a plain copy, and an input."""
    make, parameter, x = NETWORKS[name]
    torch.manual_seed(0)
    net = make()
    plain, module = copy.deepcopy(net), Affine(1.3)
    graph = trace(net, lambda: net(x))
    for site in weight_sites(graph, net, parameter):
        insert(net, site, module, algorithm="test", priority=1)
    return net, module, plain, x


@pytest.mark.parametrize("name", NETWORKS)
def test_every_reading_and_its_gradient_see_the_compressed_value(name: str) -> None:
    net, module, plain, x = _hooked(name)
    parameter = NETWORKS[name][1]
    weights = dict(plain.named_parameters())
    factor = torch.tensor([1.3], requires_grad=True)
    expected = functional_call(plain, {parameter: weights[parameter] * factor + 0.05}, (x,), tie_weights=True)
    result = net(x)
    torch.testing.assert_close(result, expected)
    result.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(module.factor.grad, factor.grad, rtol=1e-4, atol=1e-4)
    for key, weight in weights.items():
        torch.testing.assert_close(dict(net.named_parameters())[key].grad, weight.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["linear", "argument", "tied"])
def test_copies_compress_every_reading_and_strip_leaves_the_plain_network(name: str) -> None:
    net, module, plain, x = _hooked(name)
    names = [key for key in net.state_dict() if "lnncf_" in key]
    assert names == ["emb.lnncf_weight.test.factor"]
    if name != "linear":  # its lambda cannot be pickled
        torch.testing.assert_close(pickle.loads(pickle.dumps(net))(x), net(x))
    other = copy.deepcopy(net)
    with torch.no_grad():
        module.factor.mul_(2)
        changed = next(found for _, _, found in inserted(other))
        changed.factor.mul_(2)
    torch.testing.assert_close(other(x), net(x))
    strip(net)
    assert torch.equal(net(x), plain(x))
    assert all("weight" not in part.__dict__ for part in net.modules())


def test_a_weight_read_by_several_modules_is_one_site() -> None:
    net = Table(F.linear)
    graph = trace(net, lambda: net(IDS))
    (site,) = weight_sites(graph, net, "emb.weight")
    assert (site.key, site.module, site.readers) == ("emb.lnncf_weight", "emb", ("",))
    assert type(site).from_dict(site.to_dict()) == site


def test_a_weight_given_as_an_argument_is_read_by_the_caller() -> None:
    net = Passes()
    graph = trace(net, lambda: net(IDS))
    assert graph["head/linear:0"].reader(1) == ""
    (site,) = weight_sites(graph, net, "emb.weight")
    assert (site.module, site.readers) == ("emb", ("",))


def test_a_weight_from_outside_every_forward_is_named() -> None:
    net = Given()
    net.table = nn.Parameter(torch.randn(3, 4))
    graph = trace(net, lambda: net(torch.randn(2, 4), net.table))
    with pytest.warns(UserWarning, match=r"'/linear:0' gets the weight 'table' from outside the forward"):
        assert weight_sites(graph, net, "table") == ()

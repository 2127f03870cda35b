"""A compressed network lists its own modules, parameters, buffers and state first, as a plain copy of it does."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from lightning_nncf.hooks.insertion import strip
from lightning_nncf.hooks.order import as_built, is_own_first, own_first
from tests.capture.networks import Net, hooked_net

LISTS: dict[str, Callable[[nn.Module], list[str]]] = {
    "modules": lambda net: [name for name, _ in net.named_modules()],
    "parameters": lambda net: [name for name, _ in net.named_parameters()],
    "all names of parameters": lambda net: [name for name, _ in net.named_parameters(remove_duplicate=False)],
    "buffers": lambda net: [name for name, _ in net.named_buffers()],
    "state": lambda net: list(net.state_dict()),
}


class Two(nn.Module):
    """A hooked or plain network between others, and once more under a second name."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.before = nn.BatchNorm1d(1)
        self.inner = nn.ModuleDict({"net": net, "behind": nn.BatchNorm1d(2)})
        self.again = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        like = next(self.inner.parameters())
        logits: torch.Tensor = self.again(x.to(like.dtype))["logits"]
        return logits


def _is_added(name: str) -> bool:
    return any(part.startswith("lnncf_") for part in name.split("."))


def _hooked() -> Two:
    module = Two(hooked_net()[0])
    own_first(module, "inner.net")
    return module


@pytest.mark.parametrize("listed", LISTS)
@pytest.mark.parametrize("path", ["", "inner", "inner.net", "inner.net.blocks"])
def test_own_of_every_part_come_first_and_in_their_order(path: str, listed: str) -> None:
    hooked, plain = _hooked().get_submodule(path), Two(Net()).get_submodule(path)
    found, own = LISTS[listed](hooked), LISTS[listed](plain)
    assert found[: len(own)] == own
    assert all(map(_is_added, found[len(own) :]))
    assert len(found) > len(own) or listed == "buffers"
    in_order = copy.deepcopy(hooked)
    for module in list(in_order.modules()):
        as_built(module)
    built = LISTS[listed](in_order)
    assert [name for name in built if _is_added(name)] == found[len(own) :]
    assert sorted(built) == sorted(found)
    assert built != found or listed == "buffers"


def test_names_carry_the_prefix_and_a_memo_is_kept() -> None:
    net = _hooked().inner.net
    memo = {net.blocks[0]}
    found = dict(net.named_modules(memo, "a.lnncf_b", remove_duplicate=True))
    assert found["a.lnncf_b"] is net
    assert net.blocks[0] not in found.values()
    assert set(found.values()) < memo
    names = list(found)
    assert names.index("a.lnncf_b.blocks.1") < min(i for i, n in enumerate(names) if ".lnncf_" in n[len("a.lnncf_b") :])


def _through_file(module: nn.Module) -> Any:
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize(
    "renew", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net)), _through_file], ids=["copy", "pickle", "file"]
)
def test_copies_list_themselves(renew: Callable[[nn.Module], Any]) -> None:
    module = _hooked()
    renewed = renew(module)
    for make in LISTS.values():
        assert make(renewed) == make(module)
    assert not {id(each) for each in renewed.modules()} & {id(each) for each in module.modules()}
    strip(module.inner.net)
    assert any(map(_is_added, LISTS["state"](renewed)))


def test_stripped_network_has_nothing_of_it_left() -> None:
    net, _ = hooked_net()
    types = {name: type(module) for name, module in Net().named_modules()}
    assert is_own_first(net)
    strip(net)
    assert {name: type(module) for name, module in net.named_modules()} == types
    for module in net.modules():
        assert not is_own_first(module)
        assert not module._state_dict_hooks


def test_state_of_a_parent_is_loaded_by_name_as_ever() -> None:
    module, other = _hooked(), _hooked()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1.0)
    other.load_state_dict(module.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))
    for name, value in module.state_dict(prefix="p.").items():
        assert value.data_ptr() == module.state_dict()[name.removeprefix("p.")].data_ptr()


def test_forward_that_looks_at_parameters_is_compiled_without_a_break() -> None:
    module = _hooked()
    x = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    torch._dynamo.reset()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), module(x))

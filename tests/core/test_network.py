from __future__ import annotations

import pytest
from torch import nn

from lightning_nncf.core.network import find_network
from lightning_nncf.errors import NetworkNotFoundError


class Module(nn.Module):
    def __init__(self, **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            setattr(self, name, child)


def test_only_child_with_parameters_is_the_network() -> None:
    module = Module(net=nn.Linear(1, 1), loss=nn.MSELoss())
    assert find_network(module) == ("net", module.net)


def test_module_itself_is_the_network_when_two_children_have_parameters() -> None:
    module = Module(encoder=nn.Linear(1, 1), head=nn.Linear(1, 1))
    assert find_network(module) == ("", module)


def test_path_leads_to_an_inner_module() -> None:
    module = Module(model=Module(backbone=nn.Linear(1, 1)))
    assert find_network(module, "model.backbone")[1] is module.model.backbone


def test_wrong_path_names_the_nearest() -> None:
    with pytest.raises(NetworkNotFoundError, match=r"modle.*'model'"):
        find_network(Module(model=nn.Linear(1, 1)), "modle")


def test_module_without_parameters_is_an_error() -> None:
    with pytest.raises(NetworkNotFoundError, match="no parameters"):
        find_network(Module(loss=nn.MSELoss()))

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from lightning_nncf.errors import ExportError
from lightning_nncf.export.structure import flatten, flatten_like, names_of, rebuild


@dataclass
class Output:
    logits: Tensor
    hidden: tuple[Tensor, ...] | None = None


class Pair(NamedTuple):
    first: Tensor
    second: int


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(Output(torch.ones(2), (torch.zeros(1), torch.ones(1))), id="dataclass"),
        pytest.param(Output(torch.ones(2)), id="dataclass with None"),
        pytest.param({"a": [torch.ones(1), 3], "b": {"c": (torch.zeros(2),)}}, id="nested dict"),
        pytest.param(Pair(torch.ones(1), 7), id="namedtuple"),
        pytest.param(torch.ones(3), id="tensor"),
    ],
)
def test_rebuild_undoes_flatten(value: object) -> None:
    tensors, structure = flatten(value)
    again = rebuild(structure, tensors)
    assert type(again) is type(value)
    assert repr(again) == repr(value)


def test_class_that_is_not_imported_becomes_a_dict() -> None:
    structure = {"kind": "dataclass", "class": "not.imported:Thing", "keys": ["a"], "items": [{"kind": "tensor"}]}
    assert rebuild(structure, [torch.ones(1)]) == {"a": torch.ones(1)}


def test_name_of_a_plain_object_is_not_called() -> None:
    structure = {
        "kind": "dataclass",
        "class": "os:system",
        "keys": ["command"],
        "items": [{"kind": "tensor"}],
    }
    assert rebuild(structure, ["ls"]) == {"command": "ls"}


def test_unknown_type_is_refused_with_its_place() -> None:
    with pytest.raises(ExportError, match=r"output\.boxes\[1\] is a builtins\.object"):
        flatten({"boxes": [torch.ones(1), object()]})


def test_names_come_from_keys_and_positions() -> None:
    _, structure = flatten(({"logits": torch.ones(1)}, torch.ones(1)))
    assert names_of(structure, "output") == ["0.logits", "output_1"]


def test_call_is_brought_into_the_order_of_the_export() -> None:
    first, second = torch.zeros(1), torch.ones(1)
    _, structure = flatten(((), {"ids": first, "mask": second}))
    assert flatten_like(structure, (), {"mask": second, "ids": first}) == [first, second]


def test_call_that_does_not_fit_is_refused() -> None:
    _, structure = flatten(((torch.zeros(1),), {"mask": torch.zeros(1)}))
    with pytest.raises(ExportError, match="exported with 1 positional arguments, the keywords"):
        flatten_like(structure, (torch.zeros(1),), {"maks": torch.zeros(1)})

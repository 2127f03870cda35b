from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from lightning_nncf import compress
from lightning_nncf.core.inputs import describe, generate, merge, same_shapes, tensor_descriptions
from lightning_nncf.core.values import describe_values, make_values, merge_values


def _again(tensor: torch.Tensor) -> torch.Tensor:
    description = json.loads(json.dumps(describe(tensor)))
    made = generate(description, torch.Generator().manual_seed(0))
    assert isinstance(made, torch.Tensor)
    assert made.shape == tensor.shape
    assert made.dtype == tensor.dtype
    return made


def test_large_positive_data_come_back_as_such() -> None:
    made = _again(torch.rand(64, 64) * 1e5)
    assert made.min() >= 0
    assert made.max() <= 1e5
    assert 4e4 < made.mean() < 6e4


def test_pixels_stay_whole_numbers() -> None:
    made = _again(torch.randint(0, 256, (4, 3, 16, 16)).float())
    assert torch.equal(made, made.round())
    assert made.max() > 200


def test_shape_of_the_distribution_is_kept() -> None:
    data = torch.rand(100, 100) ** 8  # nearly all of it small
    assert _again(data).median() == pytest.approx(data.median().item(), abs=0.01)


@pytest.mark.parametrize(
    "data",
    [
        torch.tensor([0, 7, 7, 3]).repeat(50),
        torch.tensor([True, False]).repeat(50),
        torch.tensor([0.0, float("-inf")]).repeat(50),
        torch.tensor([2.5, -1.0], dtype=torch.float16).repeat(50),
    ],
    ids=["integers", "bool", "mask", "half"],
)
def test_few_values_come_back_as_they_are(data: torch.Tensor) -> None:
    assert set(_again(data).tolist()) == set(data.tolist())


def test_many_integers_stay_between_the_least_and_the_largest() -> None:
    made = _again(torch.randint(5, 30000, (8, 64)))
    assert int(made.min()) >= 5
    assert int(made.max()) < 30000
    assert len(made.unique()) > 200


def test_nan_and_empty_tensors_are_described() -> None:
    assert describe_values(torch.tensor([float("nan"), 1.0])) == {"values": [1.0]}
    assert describe_values(torch.full((30,), float("nan"))) == {}
    assert describe_values(torch.zeros(0)) == {}


def test_description_of_an_older_checkpoint_still_makes_inputs() -> None:
    old = {"tuple": [{"shape": [2, 3], "dtype": "float32", "high": 0}, {"shape": [4], "dtype": "int64", "high": 9}]}
    x, ids = generate(old, torch.Generator().manual_seed(0))
    assert x.shape == (2, 3)
    assert 0 <= int(ids.min()) <= int(ids.max()) <= 9


def test_merged_descriptions_cover_both() -> None:
    first, second = describe(torch.linspace(0, 1, 100)), describe(torch.linspace(5, 9, 100))
    merged = merge(first, second)
    assert (merged["quantiles"][0], merged["quantiles"][-1]) == (0.0, 9.0)
    few = merge_values({"values": [0, 1]}, describe_values(torch.arange(100)), 0.5)
    assert (few["quantiles"][0], few["quantiles"][-1]) == (0.0, 99.0)
    assert merge(first, {"value": 3}) == first


def test_merging_keeps_shapes_of_the_first_and_takes_the_second_alone_where_told() -> None:
    first, second = describe((torch.randn(1, 4), 3)), describe((torch.rand(8, 4) * 100 + 50, 3))
    (x,) = tensor_descriptions(merge(first, second, 1.0))
    assert x["shape"] == [1, 4]
    assert x["quantiles"][0] >= 50


def test_infinite_values_beside_others_do_not_spoil_the_range() -> None:
    data = torch.cat([torch.linspace(0, 1, 100), torch.tensor([float("inf")])])
    made = make_values({"shape": [50], "dtype": "float32", **describe_values(data)}, torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(made).all())


def test_inputs_are_alike_whatever_their_batch() -> None:
    assert same_shapes(((torch.zeros(2, 3),), {"m": None}), ((torch.zeros(9, 3),), {"m": None}))
    assert not same_shapes((torch.zeros(2, 3),), (torch.zeros(2, 4),))
    assert not same_shapes((torch.zeros(2, 3),), (torch.zeros(2, 3).long(),))


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(x))


def test_calibration_tells_what_inputs_hold_and_keeps_some_of_them() -> None:
    data = [torch.rand(5, 6) * 1000 + step for step in range(4)]
    compressed = compress(
        _Net(), {"compression": {"algorithm": "quantization"}}, data, example_inputs=torch.zeros(1, 6)
    )
    (seen,) = tensor_descriptions(compressed.inputs)
    assert seen["shape"] == [1, 6]
    assert seen["quantiles"][0] == pytest.approx(min(float(x.min()) for x in data))
    assert seen["quantiles"][-1] == pytest.approx(max(float(x.max()) for x in data))
    assert compressed.samples is not None
    assert torch.equal(compressed.samples[0][0], data[0])
    (made,), _ = compressed.example_inputs()
    assert made.min() > 0


def test_samples_of_another_resolution_than_at_capture_are_not_taken() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    data = [torch.rand(2, 3, 12, 12)]
    compressed = compress(
        net, {"compression": {"algorithm": "quantization"}}, data, example_inputs=torch.zeros(1, 3, 8, 8)
    )
    assert compressed.samples is None
    (made,), _ = compressed.example_inputs()
    assert made.shape == (1, 3, 8, 8)
    assert 0.3 < made.mean() < 0.7


def test_samples_are_not_in_what_is_saved() -> None:
    compressed = compress(_Net(), {"compression": {"algorithm": "quantization"}}, [torch.rand(5, 6)])
    assert json.dumps(compressed.structure()["inputs"]).count("shape") == 1
    assert "samples" not in compressed.structure()

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from example_modules.optimization import check_schedule, group_parameters, make_optimizer, make_schedule

_NAMES: tuple[Any, ...] = ("sgd", "adam")


def _rates(name: Any, epochs: int, count: int, **arguments: Any) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make_schedule(name, optimizer, epochs, arguments)
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("constant", {}, [1, 1, 1, 1, 1]),
        ("cosine", {}, [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0]),
        ("multistep", {"milestones": [1, 3]}, [1, 0.1, 0.1, 0.01, 0.01]),
        ("multistep", {"milestones": [2], "gamma": 0.5}, [1, 1, 0.5, 0.5, 0.5]),
        ("step", {"step_size": 2}, [1, 1, 0.1, 0.1, 0.01]),
        ("poly", {}, [1, 0.75**0.9, 0.5**0.9, 0.25**0.9, 0]),
        ("exponential", {"gamma": 0.5}, [1, 0.5, 0.25, 0.125, 0.0625]),
    ],
)
def test_rates_over_four_epochs(name: str, arguments: dict[str, Any], expected: list[float]) -> None:
    assert _rates(name, 4, 5, **arguments) == pytest.approx(expected, abs=1e-12)


def test_plateau_waits_for_accuracy_that_does_not_rise_by_a_tenth_of_a_point() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make_schedule("plateau", optimizer, 9, {"patience": 1})
    rates = []
    for accuracy in (0.500, 0.502, 0.5025, 0.5028, 0.5029):
        schedule.step(accuracy)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1, 1, 1, 0.1, 0.1])


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("multistep", {}, "must hold milestones"),
        ("step", {"gama": 0.1}, "may be gamma, step_size, got 'gama'"),
        ("plateau", {"optimizer": 1}, "got 'optimizer'"),
    ],
)
def test_wrong_arguments_of_a_schedule_are_refused(name: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_schedule(name, arguments)


def test_only_sgd_has_momentum() -> None:
    arguments: dict[str, Any] = {"lr": 1.0, "momentum": 0.9, "nesterov": True}
    sgd, adam = (make_optimizer(name, [{"params": [nn.Parameter(torch.zeros(1))]}], **arguments) for name in _NAMES)
    assert (sgd.param_groups[0]["momentum"], sgd.param_groups[0]["nesterov"]) == (0.9, True)
    assert "momentum" not in adam.param_groups[0]


def test_parameters_go_into_the_first_group_that_matches() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    groups = group_parameters(network, [{"re": "bias$", "lr": 0.5}, {"re": "^0", "weight_decay": 0.0}])
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = [[names[id(parameter)] for parameter in group["params"]] for group in groups]
    assert found == [["0.bias", "1.bias", "2.bias"], ["0.weight"], ["1.weight", "2.weight"]]
    assert [{key: value for key, value in group.items() if key != "params"} for group in groups] == [
        {"lr": 0.5},
        {"weight_decay": 0.0},
        {},
    ]


@pytest.mark.parametrize("groups", [[{"re": "weigth_"}], [{"re": ""}, {"re": "bias"}], [{"lr": 1.0}]])
def test_groups_without_parameters_or_expression_are_refused(groups: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="parameter_groups"):
        group_parameters(nn.Linear(2, 3), groups)

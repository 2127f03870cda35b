from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_nncf.algorithms.quantization.precision import traces
from lightning_nncf.algorithms.quantization.precision.traces import average_traces, load_traces, save_traces
from lightning_nncf.calibration import CalibrationData
from lightning_nncf.core.compression import compress
from lightning_nncf.errors import ConfigError, InitializationError
from tests.algorithms.quantization.precision.networks import Mixed, batches, quantization


def _data(batches: list[Any], loss: Any) -> CalibrationData:
    return CalibrationData(batches=batches, forward=loss, batch_size=lambda batch: len(batch[0]), loss=loss)


def _regression(features: int = 40, samples: int = 96) -> tuple[nn.Linear, list[list[Tensor]]]:
    """Correlated features, so that the Hessian is far from diagonal."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(features, features, generator=generator) / features**0.5
    x = torch.randn(samples, features, generator=generator) @ (torch.eye(features) + 0.5 * mixing)
    y = torch.randn(samples, 3, generator=generator)
    return nn.Linear(features, 3), [[a, b] for a, b in zip(x.split(16), y.split(16), strict=True)]


def test_trace_of_linear_regression_is_that_of_its_closed_form() -> None:
    torch.manual_seed(0)
    network, data = _regression()
    loss = _data(data, lambda batch: F.mse_loss(network(batch[0]), batch[1]))
    found = average_traces(network, {"w": network.weight}, loss, num_data_points=96)["w"]
    # mean over samples and 3 outputs of squared errors: the Hessian of each output's row is 2 / 3 of E[x x'].
    x = torch.cat([batch[0] for batch in data]).double()
    expected = float(2 / 3 * 3 * (x.T @ x / len(x)).trace() / network.weight.numel())
    assert found == pytest.approx(expected, rel=0.05)


def test_mean_over_all_sign_vectors_is_the_trace_of_the_full_hessian(monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimate is unbiased: over every vector of -1 and 1 the cross terms cancel exactly."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Tanh(), nn.Linear(2, 2, bias=False)).double()
    x, y = torch.randn(8, 2, dtype=torch.float64), torch.arange(8) % 2
    weights = {"first": network[0].weight, "last": network[2].weight}
    signs = iter([torch.tensor(part, dtype=torch.float64).reshape(2, 2) for v in _signs(8) for part in (v[:4], v[4:])])
    monkeypatch.setattr(traces, "rademacher", lambda like, generator: next(signs))

    def loss(batch: Any) -> Tensor:
        return F.cross_entropy(network(batch[0]), batch[1])

    # two batches of different sizes: their mean is weighted by samples
    data = _data([[x[:5], y[:5]], [x[5:], y[5:]]], loss)
    found = average_traces(network, weights, data, iterations=256, tolerance=1e-300)
    for name, path in (("first", "0.weight"), ("last", "2.weight")):

        def of_weight(value: Tensor, path: str = path) -> Tensor:
            return F.cross_entropy(torch.func.functional_call(network, {path: value}, (x,)), y)

        hessian = torch.autograd.functional.hessian(of_weight, weights[name].detach().clone()).reshape(4, 4)
        assert found[name] == pytest.approx(float(hessian.trace()) / 4, rel=1e-9), name


@pytest.mark.parametrize("factor", [1e-8, 1e8])
def test_the_estimation_ends_at_the_same_place_for_any_scale_of_the_loss(factor: float) -> None:
    found = []
    for scale in (1.0, factor):
        torch.manual_seed(0)
        network, data = _regression()
        network = network.double()
        batches = [[part.double() for part in batch] for batch in data]
        loss = _data(batches, lambda batch, n=network, s=scale: F.mse_loss(n(batch[0]), batch[1]) * s)
        found.append(average_traces(network, {"w": network.weight}, loss, tolerance=1e-2)["w"] / scale)
    assert found[1] == pytest.approx(found[0], rel=1e-9)


def _signs(length: int) -> list[tuple[float, ...]]:
    return list(product((-1.0, 1.0), repeat=length))


def test_a_diagonal_hessian_is_exact_after_one_vector() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    network = nn.Module()
    network.weight = weight
    curvature = torch.tensor([1.0, 2.0, 6.0])
    data = _data([[torch.zeros(1)]], lambda batch: 0.5 * (curvature * weight**2).sum())
    assert average_traces(network, {"w": weight}, data, iterations=1) == {"w": pytest.approx(3.0)}


def test_traces_follow_the_seed_and_leave_the_network_as_it_was() -> None:
    network, data = Mixed().train(), batches()
    network.stem.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    loss = _data(data, lambda batch: F.cross_entropy(network(batch[0]), batch[1]))
    weights = {"stem": network.stem.weight, "left": network.left.weight}
    found = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        found.append(average_traces(network, weights, loss, iterations=5))
    assert found[0] == found[1] != found[2]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not network.stem.weight.requires_grad
    assert network.left.weight.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(module.training for module in network.modules())


def test_processes_agree_on_the_mean_over_their_data() -> None:
    """Two processes with half of the batches each, one after the other, against one process with all of them."""
    network, data = _regression()
    halves = [data[:2], data[2:]]
    drawn: list[list[Tensor]] = [[], []]

    def reduce_of(rank: int, other: list[Tensor] | None) -> Any:
        def reduce(values: Tensor, operation: str) -> Tensor:
            drawn[rank].append(values)
            position = len(drawn[rank]) - 1
            theirs = torch.zeros_like(values) if other is None else other[position]
            return values + theirs if operation == "sum" else torch.maximum(values, theirs)

        return reduce

    def run(batches: list[Any], reduce: Any) -> float:
        torch.manual_seed(5)
        loss = lambda batch: F.mse_loss(network(batch[0]), batch[1])  # noqa: E731
        values = CalibrationData(
            batches=batches, forward=loss, batch_size=lambda batch: len(batch[0]), loss=loss, reduce=reduce
        )
        return average_traces(network, {"w": network.weight}, values, num_data_points=96, iterations=3)["w"]

    run(halves[0], reduce_of(0, None))
    together = run(halves[1], reduce_of(1, drawn[0]))
    assert together == pytest.approx(run(data, None), rel=1e-6)


def test_a_loss_that_is_linear_in_a_weight_has_no_curvature() -> None:
    network = nn.Linear(2, 1)
    data = _data([[torch.ones(4, 2)]], lambda batch: network(batch[0]).mean())
    assert average_traces(network, {"w": network.weight}, data, iterations=2) == {"w": 0.0}


def test_no_data_no_loss_and_no_dependence_are_errors() -> None:
    network = Mixed()
    weights = {"stem": network.stem.weight}
    with pytest.raises(InitializationError, match="Hessian traces needs data"):
        average_traces(network, weights, _data([], lambda batch: torch.zeros(())))
    with pytest.raises(InitializationError, match="give `compress` a `loss`"):
        average_traces(network, weights, _data(batches(), lambda batch: network(batch[0])))
    with pytest.raises(InitializationError, match="does not depend on 'stem'"):
        average_traces(network, weights, _data(batches(), lambda batch: network.head.weight.square().sum()))


def test_infinite_curvature_is_an_error_that_names_the_layer() -> None:
    network = nn.Linear(2, 1)
    data = _data([[torch.full((1, 2), 1e30)]], lambda batch: network(batch[0]).square().sum())
    with pytest.raises(InitializationError, match="curvature of the loss at 'w' is not finite"):
        average_traces(network, {"w": network.weight}, data, iterations=2)


def test_attention_and_other_algorithms_have_second_derivatives() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Flatten(), nn.Linear(32, 2))
    x = [[torch.randn(4, 4, 8), torch.arange(4) % 2]]
    sparsity = {"algorithm": "magnitude_sparsity", "sparsity_init": 0.3}
    precision = {"type": "hawq", "bits": [4, 8], "iter_number": 3, "compression_ratio_of": "size"}
    config = quantization(precision)
    config["compression"] = [config["compression"], sparsity]

    def loss(batch: Any) -> Tensor:
        return F.cross_entropy(network(batch[0]), batch[1])

    compressed = compress(network, config, x, loss=loss)
    bits = {row["bits"] for row in compressed.rows() if row["algorithm"] == "quantization" and row["kind"] == "weight"}
    assert bits == {4, 8}


def test_a_file_of_traces_is_read_back(tmp_path: Path) -> None:
    save_traces({"a": 0.5, "b": 2.0}, tmp_path / "new" / "traces.json")
    assert load_traces(tmp_path / "new" / "traces.json", ["b", "a"]) == {"b": 2.0, "a": 0.5}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read a JSON object"),
        ("[1]", "cannot read a JSON object"),
        (json.dumps({"a": 1.0}), "has no trace for 'b'"),
        (json.dumps({"a": 1.0, "b": float("nan")}), "has no trace for 'b'"),
    ],
    ids=["absent", "a list", "a layer missing", "not a number"],
)
def test_a_wrong_file_of_traces_is_an_error(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "traces.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_traces(path, ["a", "b"])

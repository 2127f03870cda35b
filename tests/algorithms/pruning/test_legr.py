from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_nncf import compress
from lightning_nncf.algorithms.pruning import FilterPruning
from lightning_nncf.algorithms.pruning.config import LegrConfig
from lightning_nncf.algorithms.pruning.legr import Candidate, evolve, load_coefficients, save_coefficients
from lightning_nncf.errors import ConfigError, InitializationError
from tests.algorithms.pruning.networks import IMAGE, Residual


def test_evolution_tries_random_candidates_then_the_identity_then_mutations() -> None:
    tried: list[Candidate] = []

    def reward(candidate: Candidate) -> float:
        tried.append(candidate)
        return -abs(candidate["a"][0] - 3)

    settings = LegrConfig(generations=30, population_size=8, num_samples=4, mutate_percent=0.4)
    found = evolve({"a": 1.0, "b": 1.0, "c": 1.0}, settings, reward)
    assert len(tried) == 30
    assert tried[7] == {"a": (1.0, 0.0), "b": (1.0, 0.0), "c": (1.0, 0.0)}
    assert found == max(tried, key=lambda candidate: -abs(candidate["a"][0] - 3))
    for candidate in tried[8:]:
        closest = max(sum(candidate[k] == other[k] for k in "abc") for other in tried if other is not candidate)
        assert closest == 2
    # Different generations draw different numbers: NNCF seeds anew for each.
    assert len({candidate["a"] for candidate in tried[:7]}) == 7


def test_same_seed_gives_the_same_ranking() -> None:
    found = [evolve({"a": 2.0}, LegrConfig(generations=9, population_size=4), lambda c: c["a"][1]) for _ in range(2)]
    assert found[0] == found[1]


def test_coefficients_survive_their_file_and_missing_layers_are_named(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "ranking.json"
    save_coefficients({"a": (1.5, -0.25)}, path)
    assert load_coefficients(path, {"a": 1.0}) == {"a": (1.5, -0.25)}
    with pytest.raises(ConfigError, match="no coefficients for b;"):
        load_coefficients(path, {"a": 1.0, "b": 1.0})
    with pytest.raises(ConfigError, match="cannot read coefficients"):
        load_coefficients(tmp_path / "absent.json", {})


def _section(path: Path, **params: object) -> dict[str, object]:
    legr = {"generations": 4, "train_steps": 2, "population_size": 3, "num_samples": 2}
    learned = {"interlayer_ranking_type": "learned_ranking", "pruning_flops_target": 0.3, "grouping": "full"}
    common = {"schedule": "baseline", "legr_params": legr}
    return {"compression": {"algorithm": "filter_pruning", "params": {**learned, **common, **params}}}


def _batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(0)
    return [(torch.rand(IMAGE), torch.tensor([0, 1])) for _ in range(6)]


def test_ranking_is_learned_saved_and_used_and_leaves_the_weights_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Residual()
    for _ in range(40):  # statistics that fit the data stay as they are
        network(_batches()[0][0])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    path = tmp_path / "ranking.json"
    compressed = compress(
        network,
        _section(path, save_ranking_coeffs_path=str(path), num_init_steps=1),
        _batches(),
        forward=lambda batch: F.cross_entropy(network(batch[0]), batch[1]),
    )
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    pruning = compressed.algorithms[0]
    assert isinstance(pruning, FilterPruning)
    assert set(pruning.ranking.coefficients) == {"stem.weight", "body.weight", "inner.weight"}
    assert load_coefficients(path, {}) == {}
    compressed.epoch_step()
    compressed.epoch_step()
    assert compressed.statistics()["flops_ratio"] <= 0.7


def test_data_without_a_loss_is_refused() -> None:
    with pytest.raises(InitializationError, match="returned Tensor and no loss"):
        compress(Residual(), _section(Path()), _batches())


def test_learned_ranking_is_read_instead_of_learned(tmp_path: Path) -> None:
    path = tmp_path / "ranking.json"
    save_coefficients({"stem.weight": (1.0, 0.0), "inner.weight": (1.0, 0.0), "body.weight": (1.0, 1e6)}, path)
    network: nn.Module = Residual()
    section = _section(path, load_ranking_coeffs_path=str(path), num_init_steps=0)
    compressed = compress(network, section, _batches())
    compressed.epoch_step()
    rows = {row["parameter"]: row for row in compressed.rows()}
    assert rows["body.weight"]["filters_left"] == 8
    assert rows["stem.weight"]["filters_left"] < 8

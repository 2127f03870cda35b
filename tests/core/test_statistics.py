from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_nncf import compress


def images(count: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(8, 3, 8, 8, generator=generator) for _ in range(count)]


def untrained(layers: int = 8, scale: float = 12.0) -> nn.Sequential:
    """A deep network whose norms never ran, and without which every layer would make values larger."""
    torch.manual_seed(0)
    network = nn.Sequential()
    for index in range(layers):
        conv = nn.Conv2d(3 if index == 0 else 4, 4, 3, padding=1, bias=False)
        nn.init.normal_(conv.weight, std=scale / 6)
        network.extend([conv, nn.BatchNorm2d(4), nn.ReLU()])
    return network.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten()).append(nn.Linear(4, 2))


def gradient_norm(network: nn.Module) -> float:
    network.train()
    network(images()[0]).square().mean().backward()
    grads = [parameter.grad for name, parameter in network.named_parameters() if name.endswith("weight")]
    return float(torch.stack([grad.norm() for grad in grads if grad is not None]).norm())


def quantization(samples: int = 2000, **initializer: Any) -> dict[str, Any]:
    adaptation = {"num_bn_adaptation_samples": samples}
    return {
        "compression": {
            "algorithm": "quantization",
            "initializer": {"batchnorm_adaptation": adaptation, **initializer},
        }
    }


def test_an_untrained_network_trains_quantized_as_it_does_in_float() -> None:
    network = untrained()
    with pytest.warns(UserWarning, match=r"\d of 8 batch norms, such as '1', had running statistics far from"):
        compress(network, quantization(), images())
    assert gradient_norm(network) == pytest.approx(gradient_norm(untrained()), rel=0.5)


def test_biases_and_ranges_alike_are_measured_behind_right_statistics() -> None:
    network = untrained()
    with pytest.warns(UserWarning, match="batch norms"):
        compress(network, quantization(bias_correction={"num_samples": 16}, range={"num_init_samples": 0}), images())
    assert all(norm.running_var.min() != 1 for norm in network.modules() if isinstance(norm, nn.BatchNorm2d))


def test_where_adaptation_is_off_statistics_stay_and_the_user_is_told() -> None:
    network = untrained()
    with pytest.warns(UserWarning, match="stay as they are because `num_bn_adaptation_samples` is 0"):
        compress(network, quantization(0), images())
    assert network[1].running_var.tolist() == [1.0] * 4


def test_a_learned_ranking_is_learned_behind_right_statistics() -> None:
    network = untrained(3)
    legr = {"generations": 2, "train_steps": 1, "population_size": 1, "num_samples": 1}
    params = {"interlayer_ranking_type": "learned_ranking", "pruning_target": 0.5, "legr_params": legr}
    section = {"algorithm": "filter_pruning", "params": params}
    with pytest.warns(UserWarning, match="of 3 batch norms"):
        compress(
            network,
            {"compression": section},
            [(x, torch.zeros(8, dtype=torch.int64)) for x in images()],
            forward=lambda batch: network(batch[0]),
            loss=lambda batch: F.cross_entropy(network(batch[0]), batch[1]),
        )


def test_later_ranges_leave_trained_statistics_alone() -> None:
    network = untrained(2).train()
    for batch in images() * 20:
        network(batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        compressed = compress(network, quantization(0), images())
        network[1].running_var.fill_(1e-3)
        compressed.initialize_ranges()
    assert network[1].running_var.tolist() == pytest.approx([1e-3] * 4)


def test_a_norm_frozen_by_hand_is_left_alone() -> None:
    network = untrained(2).train()
    network[1].eval()
    with pytest.warns(UserWarning, match="1 of 1 batch norms, such as '4'"):
        compress(network, quantization(), images())
    assert network[1].running_var.tolist() == [1.0] * 4
    assert [network[1].training, network[4].training] == [False, True]


def test_an_instance_norm_keeps_the_statistics_that_it_got() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True))
    with torch.no_grad():
        network[0].weight.mul_(30)
    with pytest.warns(UserWarning, match="1 of 1 batch norms"):
        compress(network, quantization(), images())
    assert network[1].running_var.min() > 10


def test_capture_survives_instance_norms_over_a_single_value() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 8), nn.InstanceNorm2d(4, track_running_stats=True), nn.Flatten())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compressed = compress(network, quantization(), images())
    assert not [warning for warning in caught if "failed in train mode" in str(warning.message)]
    assert compressed.graph is not None
    assert "1/instance_norm:0" in [op.address for op in compressed.graph.ops()]

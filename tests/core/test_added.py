"""Learning rate and weight decay of what compression adds."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_nncf import compress, compression_parameter_groups
from lightning_nncf.core.added import added_parameters
from lightning_nncf.core.compressed import CompressedNetwork

X = torch.randn(8, 2, 4, 4, generator=torch.Generator().manual_seed(0))
QUANTIZATION = {"algorithm": "quantization", "initializer": {"batchnorm_adaptation": {"num_bn_adaptation_samples": 0}}}
SECTIONS: dict[str, dict[str, Any]] = {
    "quantization": QUANTIZATION,
    "binarization": {
        "algorithm": "binarization",
        "params": {"activations_quant_start_epoch": 0, "weights_quant_start_epoch": 0},
    },
    "movement_sparsity": {
        "algorithm": "movement_sparsity",
        "params": {
            "warmup_start_epoch": 0,
            "warmup_end_epoch": 5,
            "importance_regularization_factor": 0.1,
            "enable_structured_masking": False,
        },
    },
    "knowledge_distillation": {
        "algorithm": "knowledge_distillation",
        "type": "mse",
        "features": [{"student": "0/conv2d:0", "projection": True}],
    },
}


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(16, 3))


def _compressed(name: str, **root: Any) -> CompressedNetwork:
    section = copy.deepcopy(SECTIONS[name])
    section.update(root.pop("own", {}))
    return compress(_network(), {"compression": section, **root}, [X])


def _gradients(compressed: CompressedNetwork) -> list[Tensor]:
    compressed.network.train()
    compressed.attach([])
    compressed.announce_steps(4)
    compressed.epoch_step()
    compressed.step()
    loss = compressed.network(X).square().mean() + compressed.loss()
    loss.backward()
    return [each.grad for each in added_parameters(compressed.network) if each.grad is not None]


@pytest.mark.parametrize("name", SECTIONS)
def test_multiplier_acts_on_every_added_parameter_and_the_section_overrides_the_root(name: str) -> None:
    plain = _gradients(_compressed(name))
    root = _gradients(_compressed(name, compression_lr_multiplier=3.0))
    own = _gradients(_compressed(name, compression_lr_multiplier=3.0, own={"compression_lr_multiplier": 0.5}))
    assert any(bool(gradient.abs().max() > 0) for gradient in plain)
    for one, three, half in zip(plain, root, own, strict=True):
        torch.testing.assert_close(three, 3.0 * one)
        torch.testing.assert_close(half, 0.5 * one)


def test_multiplier_acts_on_the_steps_that_rb_takes_itself() -> None:
    moves = []
    for multiplier in (1.0, 0.0):
        # the level asked for is that of the beginning, so that only gradients move logits
        section = {"algorithm": "rb_sparsity", "compression_lr_multiplier": multiplier}
        compressed = compress(_network(), {"compression": section}, [X])
        optimizer = torch.optim.SGD(compressed.network.parameters(), lr=0.0)
        before = [each.detach().clone() for each in added_parameters(compressed.network)]
        compressed.attach([optimizer])
        compressed.epoch_step()
        compressed.step()
        (compressed.network.train()(X).square().mean() + compressed.loss()).backward()
        optimizer.step()
        after = added_parameters(compressed.network)
        moves.append(torch.cat([(b - a).flatten() for a, b in zip(before, after, strict=True)]).detach().std())
    assert moves[0] > 0.01
    assert moves[1] < 1e-6


@pytest.mark.parametrize(
    "make",
    [
        lambda groups: torch.optim.SGD(groups, lr=0.5, momentum=0.9, weight_decay=0.1),
        lambda groups: torch.optim.AdamW(groups, lr=0.5, weight_decay=0.1),
    ],
    ids=["sgd", "adamw"],
)
@pytest.mark.parametrize("closure", [False, True], ids=["plain", "closure"])
def test_added_parameters_are_not_decayed_and_the_optimizer_stays_as_it_is(make: Any, closure: bool) -> None:
    compressed = _compressed("quantization")
    network = compressed.network
    optimizer = make(network.parameters())
    compressed.attach([optimizer])
    group = optimizer.param_groups[0]
    members = list(group["params"])
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step((lambda: torch.zeros(())) if closure else None)
    added = {id(each) for each in added_parameters(network)}
    assert added
    for name, value in network.named_parameters():
        factor = 1.0 if id(value) in added else 1 - 0.5 * 0.1 if "Adam" in type(optimizer).__name__ else 0.95
        torch.testing.assert_close(value.detach(), factor * before[name], msg=name)
    assert optimizer.param_groups == [group]
    assert all(a is b for a, b in zip(group["params"], members, strict=True))
    assert len(optimizer.state) == len(members)


def test_groups_that_hold_nothing_else_keep_their_decay() -> None:
    compressed = _compressed("quantization")
    groups = compression_parameter_groups(
        compressed.network, lr=0.5, weight_decay=0.0, compression_lr=0.1, compression_weight_decay=0.5
    )
    assert [group["lr"] for group in groups] == [0.5, 0.1]
    assert [len(group["params"]) for group in groups] == [6, len(added_parameters(compressed.network))]
    optimizer = torch.optim.SGD(groups)
    compressed.attach([optimizer])
    scale = added_parameters(compressed.network)[0]
    before = scale.detach().clone()
    for parameter in compressed.network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(scale.detach(), 0.95 * before)


def test_a_step_that_fails_does_not_leave_groups_parted() -> None:
    compressed = _compressed("quantization")
    optimizer = torch.optim.SGD(compressed.network.parameters(), lr=0.5, weight_decay=0.1)
    compressed.attach([optimizer])
    members = len(optimizer.param_groups[0]["params"])

    def fail() -> Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        optimizer.step(fail)
    optimizer.step()
    assert [len(group["params"]) for group in optimizer.param_groups] == [members]

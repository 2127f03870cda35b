"""The loss against a loop written by hand, features, pruned students, restarts and errors."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_nncf import compress, load
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.errors import CheckpointError, ConfigError
from lightning_nncf.hooks.insertion import inserted


class Small(nn.Module):
    """A convolution with a batch norm, another one, and a head."""

    def __init__(self, width: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.body = nn.Conv2d(width, 16, 3, padding=1)
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)))
        return self.head(F.relu(self.body(x)).mean((2, 3)))


class Several(nn.Module):
    """Returns a nest of outputs, of which some cannot be compared."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Any]:
        y = self.fc(x)
        return {"logits": y, "more": [y.tanh(), (y.reshape(-1, 3, 1),)], "loss": y.sum(), "frozen": x, "count": 3}


def _images(seed: int = 0, samples: int = 4) -> Tensor:
    return torch.randn(samples, 1, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _section(kind: str = "softmax", **keys: Any) -> dict[str, Any]:
    return {"algorithm": "knowledge_distillation", "type": kind, **keys}


def _compress(network: nn.Module, *sections: dict[str, Any], inputs: Any = None) -> CompressedNetwork:
    inputs = _images() if inputs is None else inputs
    compressed = compress(network, {"compression": list(sections)}, example_inputs=inputs)
    compressed.activate()
    return compressed


def _network(seed: int = 0, width: int = 8) -> Small:
    torch.manual_seed(seed)
    return Small(width).double()


def _by_hand(kind: str, student: Tensor, teacher: Tensor, scale: float, temperature: float) -> Tensor:
    """The loss as sums over its elements."""
    if kind == "mse":
        return scale * ((student - teacher) ** 2).sum() / student.numel()
    total = torch.zeros((), dtype=torch.float64)
    for row, target in zip(student / temperature, teacher / temperature, strict=True):
        probabilities = target.exp() / target.exp().sum()
        total = total - (probabilities * (row - row.exp().sum().log())).sum()
    return scale * temperature**2 * total / len(student)


@pytest.mark.parametrize("kind", ["softmax", "mse"])
def test_steps_equal_a_loop_with_teacher_and_student_written_by_hand(kind: str) -> None:
    network, plain, teacher = _network(), _network(), _network().eval()
    compressed = _compress(network, _section(kind, scale=0.7, temperature=3.0))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    by_hand = torch.optim.SGD(plain.parameters(), lr=0.1)
    compressed.attach([optimizer])
    targets = torch.tensor([0, 1, 2, 0])
    for step in range(3):
        x = _images(step)
        optimizer.zero_grad()
        task = F.cross_entropy(network(x), targets)
        added = compressed.loss()
        (task + added).backward()
        by_hand.zero_grad()
        output = plain(x)
        with torch.no_grad():
            answer = teacher(x)
        expected = _by_hand(kind, output, answer, 0.7, 3.0)
        (F.cross_entropy(output, targets) + expected).backward()
        assert math.isclose(added.item(), expected.item(), rel_tol=1e-6)
        for (name, mine), other in zip(network.named_parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-6, atol=1e-9, msg=name)
        optimizer.step()
        by_hand.step()
    assert teacher(x).std() > 0  # the teacher that was compared with says something


def test_nested_outputs_are_paired_by_their_place_and_others_are_left_out() -> None:
    torch.manual_seed(0)
    network, x = Several(), torch.randn(5, 4)
    teacher = copy.deepcopy(network)
    compressed = _compress(network, _section("mse"), inputs=x)
    compressed.attach([torch.optim.SGD(network.parameters(), lr=0.1)])
    with torch.no_grad():
        network.fc.weight.add_(0.5)
    network(x)
    mine, other = network.fc(x), teacher.fc(x)
    expected = F.mse_loss(mine, other) * 2 + F.mse_loss(mine.tanh(), other.tanh())
    torch.testing.assert_close(compressed.loss(), expected)
    # softmax takes outputs of two dimensions alone
    soft = _compress(copy.deepcopy(teacher), _section("softmax"), inputs=x)
    soft.attach([])
    soft.network(x)
    each = [-(y.log_softmax(1) * y.softmax(1)).sum(1).mean() for y in (other, other.tanh())]
    torch.testing.assert_close(soft.loss(), sum(each))


def test_several_calls_count_by_their_mean_and_each_loss_is_taken_once() -> None:
    network = _network()
    teacher = _network().eval()
    compressed = _compress(network, _section("mse"))
    compressed.attach([])
    with torch.no_grad():
        network.head.bias.add_(1.0)
    outputs = [network(_images(seed)) for seed in (1, 2)]
    expected = sum(F.mse_loss(y, teacher(_images(seed))) for y, seed in zip(outputs, (1, 2), strict=True)) / 2
    torch.testing.assert_close(compressed.loss(), expected)
    assert compressed.present_loss() is None
    with torch.no_grad():
        network(_images())
    network.eval()(_images())
    assert compressed.present_loss() is None  # nobody learns from such calls


def test_what_nobody_took_is_forgotten_with_the_next_step() -> None:
    network = _network()
    compressed = _compress(network, _section("mse"))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    compressed.attach([optimizer])
    network(_images(1)).sum().backward()
    optimizer.step()
    assert compressed.algorithms[0]._pending  # type: ignore[attr-defined]
    y = network(_images(2))
    torch.testing.assert_close(compressed.loss(), F.mse_loss(y, _network().eval()(_images(2))))


def test_teacher_is_in_nothing_that_is_trained_or_saved_and_learns_nothing() -> None:
    network = _network()
    names = [name for name, _ in network.named_parameters()]
    compressed = _compress(network, _section())
    teacher = compressed.algorithms[0].teacher.network  # type: ignore[attr-defined]
    before = copy.deepcopy(teacher.state_dict())
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    compressed.attach([optimizer])
    for _ in range(2):
        network(_images())
        compressed.loss().backward()
        optimizer.step()
    assert [name for name, _ in network.named_parameters()] == names
    assert len(list(network.modules())) == len(list(_network().modules()))
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


class Writing(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.add_(1.0))


def test_a_network_that_writes_into_its_input_does_not_disturb_its_teacher() -> None:
    torch.manual_seed(0)
    network = Writing().double()
    compressed = _compress(network, _section("mse"), inputs=_images().clone())
    compressed.attach([])
    teacher = copy.deepcopy(network).eval()
    for seed in (1, 2):
        network(_images(seed))
        with torch.no_grad():
            expected = F.mse_loss(copy.deepcopy(teacher).train()(_images(seed)), teacher(_images(seed)))
        torch.testing.assert_close(compressed.loss().detach(), expected)


def test_copies_of_the_network_have_no_teacher_and_cost_none() -> None:
    network = _network()
    compressed = _compress(network, _section())
    compressed.attach([])
    copied = copy.deepcopy(network)
    copied(_images())
    assert compressed.present_loss() is None
    both = copy.deepcopy(compressed)
    both.attach([])
    for hooks in ("_forward_hooks", "_forward_pre_hooks"):
        assert len(getattr(both.network, hooks)) == len(getattr(network, hooks))
    both.network(_images())
    assert both.present_loss() is not None
    compressed.strip()
    network(_images())
    assert compressed.present_loss() is None
    assert not network._forward_hooks
    assert not network._forward_pre_hooks


# Features -------------------------------------------------------------------------------------------------------------


def test_features_are_compared_where_their_addresses_are() -> None:
    network, teacher = _network(), _network().eval()
    compressed = _compress(network, _section("mse", scale=0.0, features=[{"student": "body/conv2d:0", "scale": 2.0}]))
    compressed.attach([])
    with torch.no_grad():
        network.body.weight.add_(0.3)
    seen: dict[int, Tensor] = {}
    for each in (network, teacher):
        each.body.register_forward_hook(lambda module, args, result: seen.update({id(module): result}))
    network(_images(1))
    teacher(_images(1))
    torch.testing.assert_close(compressed.loss(), 2.0 * F.mse_loss(seen[id(network.body)], seen[id(teacher.body)]))


def _wide_teacher(tmp_path: Path) -> dict[str, Any]:
    torch.manual_seed(1)
    torch.save(Small(12).double().state_dict(), tmp_path / "wide.pt")
    return {
        "class_path": f"{__name__}.Small",
        "init_args": {"width": 12},
        "checkpoint": str(tmp_path / "wide.pt"),
        "network": "",
    }


def test_a_projection_maps_channels_and_learns(tmp_path: Path) -> None:
    network = _network()
    feature = {"student": "conv/conv2d:0", "projection": True}
    compressed = _compress(network, _section(teacher=_wide_teacher(tmp_path), features=[feature], scale=0.0))
    (name,) = [name for name, _ in network.named_parameters() if "lnncf" in name]
    projection = dict(network.named_parameters())[name]
    assert projection.shape == (12, 8)
    compressed.attach([])
    torch.manual_seed(1)
    teacher = Small(12).double()
    network(_images())
    mine = torch.einsum("oc,nchw->nohw", projection.double(), network.conv(_images()))
    loss = compressed.loss()
    torch.testing.assert_close(loss, F.mse_loss(mine, teacher.conv(_images())))
    loss.backward()
    assert projection.grad is not None
    assert projection.grad.abs().max() > 0


@pytest.mark.parametrize("projection", [False, True])
def test_a_student_whose_filters_go_compares_the_channels_that_it_has_left(projection: bool) -> None:
    network, teacher = _network(width=16), _network(width=16).eval()
    pruning = {
        "algorithm": "filter_pruning",
        "params": {
            "pruning_target": 0.5,
            "schedule": "baseline",
            "num_init_steps": 0,
            "shrink_at": 1,
            "prune_first_conv": True,
        },
    }
    feature = {"student": "conv/conv2d:0", "projection": projection}
    compressed = _compress(network, _section(scale=0.0, features=[feature]), pruning)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    compressed.attach([optimizer])
    for _ in range(3):
        compressed.epoch_step()
        compressed.step()
        optimizer.zero_grad()
        network(_images())
        loss = compressed.loss()
        (loss + network(_images()).sum()).backward()
        optimizer.step()
    assert network.conv.out_channels == 8
    network(_images())
    loss = compressed.loss()
    kept = compressed.algorithms[1].masks[0].nonzero().flatten()  # type: ignore[attr-defined]
    mine, other = network.conv(_images()), teacher.conv(_images())
    if projection:
        (tap,) = [module for _, name, module in inserted(network) if name == "knowledge_distillation"]
        mine = torch.einsum("oc,nchw->nohw", tap.weight.double(), mine)
    else:
        other = other[:, kept]
    torch.testing.assert_close(loss, F.mse_loss(mine, other))


# Restarts -------------------------------------------------------------------------------------------------------------


def test_training_goes_on_from_a_file_with_the_same_teacher(tmp_path: Path) -> None:
    network = _network()
    section = _section("mse", features=[{"student": "conv/conv2d:0", "projection": True}])
    compressed = _compress(network, section)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    compressed.attach([optimizer])
    network(_images(1))
    compressed.loss().backward()
    with torch.no_grad():
        network.head.bias.add_(0.5)
    optimizer.step()
    compressed.save(tmp_path / "half.pt")
    restored = load(_network(), tmp_path / "half.pt")
    restored.attach([])
    losses = []
    for each in (compressed, restored):
        each.network.train()(_images(2))
        losses.append(each.loss())
    assert losses[0].item() == losses[1].item() > 0


def test_a_module_with_other_weights_cannot_go_on_training_but_runs(tmp_path: Path) -> None:
    compressed = _compress(_network(), _section())
    compressed.save(tmp_path / "half.pt")
    restored = load(_network(seed=5), tmp_path / "half.pt")
    assert torch.equal(restored.network(_images()), compressed.network(_images()))
    with pytest.raises(ConfigError, match=r"came with other weights.*`teacher.checkpoint`"):
        restored.attach([])


def test_a_teacher_from_a_checkpoint_is_read_again(tmp_path: Path) -> None:
    source = _network(seed=3)
    torch.save({"state_dict": {f"model.{name}": value for name, value in source.state_dict().items()}}, tmp_path / "t")
    compressed = _compress(_network(), _section("mse", teacher={"checkpoint": str(tmp_path / "t")}))
    compressed.save(tmp_path / "half.pt")
    restored = load(_network(seed=5), tmp_path / "half.pt")
    for each in (compressed, restored):
        each.attach([])
        y = each.network.train()(_images())
        torch.testing.assert_close(each.loss(), F.mse_loss(y, source.eval()(_images())))


def test_a_teacher_in_bfloat16_answers_in_it() -> None:
    network, teacher = _network(), _network().eval().bfloat16()
    compressed = _compress(network, _section("mse", teacher={"dtype": "bfloat16"}))
    compressed.attach([])
    y = network(_images())
    expected = F.mse_loss(y, teacher(_images().bfloat16()).double())
    torch.testing.assert_close(compressed.loss(), expected)


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"teacher": {"class_path": f"{__name__}.Small", "init_args": {"classes": 5}, "network": ""}},
            r"output of the call of the network is \[4, 3\] and that of its teacher \[4, 5\]",
        ),
        ({"teacher": {"class_path": f"{__name__}.Nothing"}}, "class_path.*cannot make"),
        ({"features": [{"student": "body/conv2d:1"}]}, r"features\[0\].*student.*body/conv2d:0"),
        (
            {
                "teacher": {"class_path": f"{__name__}.Small", "init_args": {"width": 12}, "network": ""},
                "features": [{"student": "conv/conv2d:0"}],
            },
            r"\[4, 8, 6, 6\] is not the teacher's \[4, 12, 6, 6\]; `projection: true`",
        ),
    ],
    ids=["outputs", "class", "address", "channels"],
)
def test_a_teacher_that_does_not_fit_is_refused_before_training(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _compress(_network(), _section(**keys))


def test_outputs_that_no_loss_can_compare_are_refused() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3)).double()
    with pytest.raises(ConfigError, match=r"type: softmax.*returns \[4, 2, 4, 4\].*type: mse"):
        _compress(network, _section("softmax"))


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "t")
    with pytest.raises(CheckpointError, match="holds no networks with the parameters of Small"):
        _compress(_network(), _section(teacher={"checkpoint": str(tmp_path / "t")}))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"temperature": 0.0}, "temperature` must be greater than 0"),
        ({"teacher": {"network": "a"}}, "no `class_path`"),
        ({"features": [{"student": "a"}, {"student": "a"}]}, "repeats 'a'"),
    ],
)
def test_wrong_settings_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _compress(_network(), _section(**keys))

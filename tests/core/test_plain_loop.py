"""The training loop that the README shows, with every algorithm, and what `attach` does to optimizers."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from lightning_nncf import compress
from lightning_nncf.core.compressed import CompressedNetwork
from tests.core.sections import ALGORITHMS, COMBINATIONS, RB, config_of

README = Path(__file__).parents[2] / "README.md"
_EXPORT = 'export_and_verify(compressed, "model.onnx")\n'


def loop() -> str:
    """The block of the README that attaches an optimizer."""
    (found,) = (
        text for text in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if ".attach(" in text
    )
    return found


def run(code: str, config: Any = None) -> dict[str, Any]:
    if config is not None:
        code, count = re.subn(r"^config = .*$", "config = CONFIG", code, flags=re.MULTILINE)
        assert count == 1
    torch.manual_seed(0)
    names: dict[str, Any] = {"CONFIG": config}
    exec(code, names)
    return names


def test_loop_of_the_readme_writes_a_proven_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run(loop())
    assert (tmp_path / "model.onnx").exists()
    assert "lnncf_" not in "".join(names["network"].state_dict())


@pytest.mark.parametrize("name", [*ALGORITHMS, *COMBINATIONS])
def test_every_algorithm_reaches_its_target_in_the_loop_of_the_readme(name: str) -> None:
    code = loop()
    assert _EXPORT in code
    names = run(code.replace(_EXPORT, "").replace("compressed.strip()", ""), config_of(name))
    compressed: CompressedNetwork = names["compressed"]
    assert compressed.stage.name == "FULLY_COMPRESSED"
    statistics = compressed.statistics()
    if "sparsity_target" in statistics:
        # Learned masks need more steps than these; removed filters count no longer.
        exact = not name.startswith(("rb", "shrunk"))
        assert statistics["sparsity_level"] == pytest.approx(0.5, abs=0.02 if exact else 0.25)
    assert all(bool(torch.isfinite(p).all()) for p in compressed.network.parameters())


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3))


X = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Watched:
    """A compressed network whose looks at gradients are noted: which gradient of the first weight each one saw."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.compressed = compress(network(), {"compression": RB}, [X])
        self.network = self.compressed.network
        self.seen: list[Tensor | None] = []
        monkeypatch.setattr(self.compressed.algorithms[0], "before_optimizer_step", self._note)

    def _note(self) -> None:
        gradient = self.network[0].weight.grad  # type: ignore[union-attr,index]
        self.seen.append(None if gradient is None else gradient.clone())

    def backward(self) -> Tensor:
        self.network.zero_grad()
        loss: Tensor = self.network(X).square().mean()
        loss.backward()
        return loss


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_gradients_are_looked_at_once_per_step(watched: Watched, times: int) -> None:
    optimizer = torch.optim.SGD(watched.network.parameters(), lr=0.1)
    for _ in range(times):
        watched.compressed.attach([optimizer, optimizer])
    watched.backward()
    expected = watched.network[0].weight.grad.clone()  # type: ignore[union-attr,index]
    optimizer.step()
    (seen,) = watched.seen
    assert seen is not None
    assert torch.equal(seen, expected)


@pytest.mark.parametrize("keyword", [False, True], ids=["position", "keyword"])
def test_gradients_that_a_closure_makes_are_looked_at_behind_it(watched: Watched, keyword: bool) -> None:
    optimizer = torch.optim.SGD(watched.network.parameters(), lr=0.1)
    watched.compressed.attach([optimizer])
    returned = optimizer.step(closure=watched.backward) if keyword else optimizer.step(watched.backward)
    assert isinstance(returned, Tensor)
    (seen,) = watched.seen
    assert seen is not None
    assert bool(seen.any())


def test_a_look_before_clipping_replaces_the_one_of_the_optimizer(watched: Watched) -> None:
    optimizers = [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in (watched.network[0], watched.network[3])]  # type: ignore[union-attr,index]
    watched.compressed.attach(optimizers)
    for steps in (1, 2):
        watched.backward()
        watched.compressed.before_optimizer_step()
        nn.utils.clip_grad_norm_(watched.network.parameters(), 1e-3)
        for optimizer in optimizers:
            optimizer.step()
        assert len(watched.seen) == steps
        assert watched.seen[-1] is not None
        assert watched.seen[-1].norm() > 1e-2


def test_optimizers_that_do_not_train_the_network_are_left_alone(watched: Watched) -> None:
    other = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    watched.compressed.attach([optimizer, torch.optim.SGD(watched.network.parameters(), lr=0.1)])
    other(torch.ones(1)).sum().backward()
    optimizer.step()
    assert watched.seen == []


def test_parameters_that_an_optimizer_gets_later_count(watched: Watched) -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    watched.compressed.attach([optimizer])
    optimizer.add_param_group({"params": watched.network.parameters()})
    watched.backward()
    optimizer.step()
    assert len(watched.seen) == 1


def test_steps_that_a_gradient_scaler_skips_are_not_looked_at(watched: Watched) -> None:
    optimizer = torch.optim.SGD(watched.network.parameters(), lr=0.1)
    watched.compressed.attach([optimizer])
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for factor in (float("inf"), 1.0):
        watched.network.zero_grad()
        scaler.scale(factor * watched.network(X).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
    (seen,) = watched.seen
    watched.backward()
    assert seen is not None
    assert bool(torch.isfinite(seen).all())


@pytest.mark.parametrize("end", ["strip", "other"])
def test_hooks_go_with_the_compression_and_with_other_optimizers(watched: Watched, end: str) -> None:
    optimizer = torch.optim.SGD(watched.network.parameters(), lr=0.1)
    watched.compressed.attach([optimizer])
    if end == "strip":
        watched.compressed.strip()
    else:
        watched.compressed.attach([torch.optim.SGD(watched.network.parameters(), lr=0.1)])
    watched.backward()
    optimizer.step()
    assert watched.seen == []
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_copies_of_optimizers_and_networks_are_made_without_the_other(watched: Watched) -> None:
    optimizer = torch.optim.SGD(watched.network.parameters(), lr=0.1, momentum=0.9)
    watched.compressed.attach([optimizer])
    copied = copy.deepcopy(optimizer)
    assert not copied._optimizer_step_pre_hooks
    assert pickle.loads(pickle.dumps(optimizer)).defaults["momentum"] == 0.9
    assert copy.deepcopy(watched.compressed._hooks)._optimizers == []


def test_loss_is_zero_where_no_algorithm_has_one() -> None:
    net = network().double()
    compressed = compress(net, config_of("int8"), [X.double()])
    loss = compressed.loss()
    assert (loss.shape, loss.dtype, loss.device, float(loss)) == ((), torch.float64, net[0].weight.device, 0.0)
    assert compressed.present_loss() is None
    assert (net(X.double()).sum() + loss).requires_grad


def test_loss_lies_on_the_device_of_the_network() -> None:
    net = network()
    compressed = compress(net, config_of("int8"), example_inputs=X)
    net.to("meta")
    assert compressed.loss().device.type == "meta"


def test_optimizer_in_the_wrapper_of_fabric_is_looked_at_once(watched: Watched) -> None:
    fabric = Fabric(accelerator="cpu")
    optimizer = torch.optim.SGD(watched.network.parameters(), lr=0.1)
    wrapped = fabric.setup_optimizers(optimizer)
    watched.compressed.attach([wrapped, optimizer])
    for steps in (1, 2):
        watched.backward()
        if steps == 2:
            watched.compressed.before_optimizer_step()
        wrapped.step()
        assert len(watched.seen) == steps

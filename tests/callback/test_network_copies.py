"""Copies of the network beside it: what pairs both by their order pairs the same parameters."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lightning_nncf import NNCFCallback, load_from_checkpoint
from lightning_nncf.core.copies import copies_of
from lightning_nncf.errors import CheckpointError
from lightning_nncf.hooks.insertion import inserted
from tests.callback.modules import Classifier, Net, dataset, loader, trainer
from tests.callback.test_averaging import COMPRESSIONS

DECAY = 0.8


class MeanTeacher(Classifier):
    """Averages the network as most code for mean teachers does."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = copy.deepcopy(self.net).requires_grad_(False)

    def on_train_batch_end(self, *_: Any) -> None:
        for average, parameter in zip(self.teacher.parameters(), self.net.parameters(), strict=False):
            average.lerp_(parameter, 1 - DECAY)


class Wrapped(MeanTeacher):
    """Has its network inside of something that is averaged as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential()
        for name, part in (("first", nn.Conv2d(1, 1, 1)), ("backbone", Net()), ("last", nn.Linear(3, 3))):
            self.net.add_module(name, part)
        self.teacher = copy.deepcopy(self.net).requires_grad_(False)


class Held(Classifier):
    """Averages with torch's class, and validates the average."""

    def __init__(self, use_buffers: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters()
        average = get_ema_multi_avg_fn(DECAY)
        self.average = AveragedModel(self.net, multi_avg_fn=average, use_buffers=use_buffers).requires_grad_(False)
        self.average.eval()

    def on_train_batch_end(self, *_: Any) -> None:
        self.average.update_parameters(self.net)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.average(batch[0]), batch[1]))


class Pair(Classifier):
    """Trains two networks that are built alike, and averages both."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = copy.deepcopy(self.net)
        self.average = AveragedModel(self.net).requires_grad_(False)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self.net(batch[0]), batch[1]) + F.cross_entropy(self.teacher(batch[0]), batch[1])


class ByName(pl.Callback):
    """Averages the state of a part of the module by name.

    Args:
        part: The part.
        begin: Another part, with whose state the average begins; without it, it begins with the first state.
    """

    def __init__(self, part: str = "net", begin: str | None = None) -> None:
        self.part = part
        self.begin = begin
        self.average: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if self.begin is not None:
            self.average = {n: value.clone() for n, value in pl_module.get_submodule(self.begin).state_dict().items()}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        values = pl_module.get_submodule(self.part).state_dict()
        if not self.average:
            self.average = {name: value.clone() for name, value in values.items()}
        else:
            for name, known in self.average.items():
                known.copy_(DECAY * known + (1 - DECAY) * values[name])


def fit(folder: Path, module: Any, compression: str, *callbacks: Any, **kwargs: Any) -> NNCFCallback:
    network = kwargs.pop("network", None)
    nncf = NNCFCallback({"compression": COMPRESSIONS[compression]}, network=network, export_path=None)
    ckpt_path = kwargs.pop("ckpt_path", None)
    run = trainer(folder, nncf, *callbacks, **{"max_epochs": 3, "limit_val_batches": 0, **kwargs})
    run.fit(module, loader(), loader(), ckpt_path=ckpt_path)
    return nncf


@pytest.mark.parametrize("compression", ["int8", "magnitude+int8", "rb", "pruning", "binary"])
def test_mean_teacher_by_zip_is_the_average_by_name(tmp_path: Path, compression: str) -> None:
    module, expected = MeanTeacher(), ByName(begin="teacher")
    fit(tmp_path, module, compression, expected, network="net")
    own = dict(module.net.named_parameters())
    for name, value in module.teacher.named_parameters():
        torch.testing.assert_close(value, expected.average[name], msg=name)
        assert not torch.equal(value, own[name])


@pytest.mark.parametrize("network", ["net.backbone", "net", ""])
def test_copy_of_what_the_network_is_in_pairs_too(tmp_path: Path, network: str) -> None:
    module, expected = Wrapped(), ByName(begin="teacher")
    fit(tmp_path, module, "int8", expected, network=network)
    for name, value in module.teacher.named_parameters():
        if "lnncf_" not in name:  # a teacher inside of the network, which runs in no step, stays plain all the same
            torch.testing.assert_close(value, expected.average[name], msg=name)


@pytest.mark.parametrize("version", ["ModelEmaV2", "ModelEmaV3"])
def test_average_of_timm_is_the_average_by_name(tmp_path: Path, version: str) -> None:
    utils = pytest.importorskip("timm.utils", reason="timm is not installed")

    class Timm(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.ema = getattr(utils, version)(self.net, decay=DECAY)

        def on_train_batch_end(self, *_: Any) -> None:
            self.ema.update(self.net)

    module, expected = Timm(), ByName(begin="ema.module")
    fit(tmp_path, module, "magnitude+int8", expected, network="net")
    found = module.ema.module.state_dict()
    assert found.keys() == Net().state_dict().keys()
    for name in dict(Net().named_parameters()):
        torch.testing.assert_close(found[name], expected.average[name], msg=name)


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("compression", ["int8", "magnitude+int8", "rb", "staged", "pruning+int8 shrunk"])
def test_averaged_model_is_compressed_with_the_network(tmp_path: Path, compression: str, use_buffers: bool) -> None:
    module, expected = Held(use_buffers), ByName()
    until = {"max_epochs": 1} if "shrunk" in compression or compression == "staged" else {}
    fit(tmp_path, module, compression, expected, **until)
    for name, value in module.average.module.named_parameters():
        if "logits" not in name and (compression != "staged" or "lnncf_" not in name):
            torch.testing.assert_close(value, expected.average[name], msg=name)
    mean = module.average.module.norm.running_mean
    torch.testing.assert_close(
        mean, expected.average["norm.running_mean"] if use_buffers else module.net.norm.running_mean
    )
    for (_, _, own), (_, _, averaged) in zip(inserted(module.net), inserted(module.average.module), strict=True):
        if hasattr(own, "mask"):
            assert torch.equal(own.kept(), averaged.kept())
        else:
            assert (own.enabled, own.config) == (averaged.enabled, averaged.config)


@pytest.mark.parametrize("compression", ["magnitude+int8", "rb", "binary", "pruning+int8 shrunk"])
def test_averaged_model_comes_back_from_a_checkpoint(tmp_path: Path, compression: str) -> None:
    class Saver(pl.Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 2:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    torch.manual_seed(0)
    whole = Held()
    fit(tmp_path, whole, compression, Saver(), max_epochs=4)
    resumed = Held()
    nncf = fit(tmp_path, resumed, compression, max_epochs=4, ckpt_path=tmp_path / "middle.ckpt")
    expected, found = whole.state_dict(), resumed.state_dict()
    assert list(expected) == list(found)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    x = dataset()[:4][0]
    average = resumed.average(x)
    torch.testing.assert_close(average, whole.average(x))
    loaded = load_from_checkpoint(Held, tmp_path / "middle.ckpt")
    assert loaded.average(x).shape == (4, 3)
    resumed.net.load_state_dict(resumed.average.module.state_dict())
    torch.testing.assert_close(resumed.eval().net(x), average)
    nncf.strip()
    assert type(resumed.average.module) is Net
    assert not any("lnncf_" in name for name in resumed.state_dict())
    assert not any(part._state_dict_hooks or "named_modules" in vars(part) for part in resumed.modules())
    assert type(resumed.average.module.stem) is nn.Conv2d


def test_average_that_has_begun_keeps_its_values(tmp_path: Path) -> None:
    module, expected = Held(), ByName(begin="average.module")
    with torch.no_grad():
        for value in module.average.module.parameters():
            value.add_(1.0)
    module.average.n_averaged.fill_(5)
    fit(tmp_path, module, "int8", expected, max_epochs=1)
    for name, value in module.average.module.named_parameters():
        torch.testing.assert_close(value, expected.average[name], msg=name)
        assert not value.requires_grad
    assert not module.average.module.stem.training


def test_averages_of_two_networks_follow_each_its_own(tmp_path: Path) -> None:
    class Both(Pair):
        def __init__(self) -> None:
            super().__init__()
            torch.nn.init.ones_(self.teacher.head.weight)
            self.second = AveragedModel(self.teacher)

        def on_train_batch_end(self, *_: Any) -> None:
            self.average.update_parameters(self.net)
            self.second.update_parameters(self.teacher)

    module = Both()
    callbacks = [
        NNCFCallback({"compression": COMPRESSIONS[name]}, network=path, export_path=None)
        for name, path in (("magnitude+int8", "net"), ("rb", "teacher"))
    ]
    trainer(tmp_path, *callbacks, limit_val_batches=0).fit(module, loader())
    for average, path in ((module.average, "net"), (module.second, "teacher")):
        assert [n for n, _ in average.module.named_parameters()] == [
            n for n, _ in module.get_submodule(path).named_parameters()
        ]
    own = [name for name, _ in module.named_parameters() if "lnncf_" not in name]
    assert (
        [name for name, _ in module.named_parameters()][: len(own)] == own == [n for n, _ in Both().named_parameters()]
    )
    callbacks[0].strip()
    assert "named_modules" in vars(module)
    callbacks[1].strip()
    assert "named_modules" not in vars(module)


def test_plain_copy_beside_a_network_that_shrinks_is_named_with_the_cure(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"holds 'teacher', built as the network 'net'.*AveragedModel.*shrink_at"):
        fit(tmp_path, MeanTeacher(), "pruning+int8 shrunk", network="net", max_epochs=0)


def test_average_inside_of_the_network_is_named_with_the_cure(tmp_path: Path) -> None:
    class Trained(Held):
        validation_step = Classifier.validation_step

    with pytest.warns(
        UserWarning, match=r"holds the average 'average' of a part of it.*NNCFCallback\(network=\.\.\.\)"
    ):
        fit(tmp_path, Trained(), "int8", network="", max_epochs=0)


@pytest.mark.parametrize("networks", [("net", "teacher"), ("teacher", "net")], ids=" then ".join)
def test_networks_that_are_compressed_alike_are_no_copies_to_warn_of(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, networks: tuple[str, str]
) -> None:
    shrunk = {"compression": COMPRESSIONS["pruning+int8 shrunk"]}
    callbacks = [NNCFCallback(shrunk, network=name, export_path=None) for name in networks]
    trainer(tmp_path, *callbacks, limit_val_batches=0, max_epochs=0).fit(Pair(), loader())
    assert not [warning for warning in recwarn if "built as the network" in str(warning.message)]


def test_parts_of_the_network_and_networks_that_share_weights_are_no_copies() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied = nn.Sequential(network[0], nn.Linear(2, 2))
    other = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    average = AveragedModel(network)
    parts = nn.ModuleDict({"network": network, "tied": tied, "other": other, "average": average})
    assert copies_of(parts, "network") == {"average.module": "network"}
    assert not copies_of(nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}), "a")  # layers are everywhere


def test_checkpoint_without_the_average_that_the_module_lost_is_refused(tmp_path: Path) -> None:
    module = Held()
    fit(tmp_path, module, "int8", max_epochs=1)
    module.trainer.save_checkpoint(tmp_path / "held.ckpt")
    with pytest.raises(CheckpointError, match="with an `AveragedModel` of its network as 'average', which Classifier"):
        load_from_checkpoint(Classifier, tmp_path / "held.ckpt")


@pytest.mark.parametrize("held", [False, True], ids=["fresh", "compressed already"])
def test_checkpoint_of_an_earlier_format_goes_on_in_its_own_order(
    tmp_path: Path, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Saver(pl.Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    earlier, resumed = Classifier(), Classifier()
    with monkeypatch.context() as before:
        before.setattr("lightning_nncf.core.surroundings.own_first", lambda *_: [])
        fit(tmp_path, earlier, "magnitude+int8", Saver(), max_epochs=2)
    checkpoint = torch.load(tmp_path / "middle.ckpt", weights_only=True)
    checkpoint["lightning_nncf"]["format"] = 2
    for key in ("own_first", "averages"):
        del checkpoint["lightning_nncf"]["networks"]["net"]["structure"][key]
    torch.save(checkpoint, tmp_path / "format2.ckpt")
    path = tmp_path / "format2.ckpt"
    nncf = NNCFCallback({"compression": COMPRESSIONS["magnitude+int8"]}, export_path=None)
    if held:
        trainer(tmp_path, nncf).fit(resumed, loader(), loader())
    run = trainer(tmp_path, nncf, max_epochs=2)
    run.fit(resumed, loader(), loader(), ckpt_path=path)
    for name, value in earlier.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    momenta = [run.optimizers[0].state[p]["momentum_buffer"].shape == p.shape for p in resumed.parameters()]
    assert all(momenta)
    run.save_checkpoint(tmp_path / "again.ckpt")
    once_more = Classifier()
    nncf = NNCFCallback({"compression": COMPRESSIONS["magnitude+int8"]}, export_path=None)
    trainer(tmp_path, nncf, max_epochs=3).fit(once_more, loader(), loader(), ckpt_path=tmp_path / "again.ckpt")
    assert [name for name, _ in once_more.named_parameters()] == [name for name, _ in earlier.named_parameters()]
    assert list(once_more.state_dict()) != [name for name, _ in Classifier().named_parameters()]

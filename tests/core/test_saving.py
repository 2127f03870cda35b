"""Compressed networks saved and restored without Lightning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_nncf import compress, load, load_from_checkpoint, load_weights
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.errors import CheckpointError, HookError
from tests.callback.modules import Classifier, Net, config, loader, trainer

DATA = [torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))]
SECTIONS: dict[str, dict[str, Any]] = {
    "quantization": config()["compression"],
    "sparsity": {"algorithm": "magnitude_sparsity", "sparsity_init": 0.3, "params": {"sparsity_target_epoch": 4}},
    "removed filters": {
        "algorithm": "filter_pruning",
        "pruning_init": 0.5,
        "params": {"pruning_target": 0.5, "pruning_steps": 1, "grouping": "full", "shrink_at": 0, "all_weights": True},
    },
}


class Wide(nn.Sequential):
    def __init__(self, classes: int = 3) -> None:
        super().__init__(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten())
        self.append(nn.Linear(256, classes))


def _saved(folder: Path, name: str = "quantization") -> tuple[CompressedNetwork, Path]:
    compressed = compress(Wide(), {"compression": SECTIONS[name]}, DATA)
    compressed.epoch_step()
    path = folder / "new" / "small.pt"
    compressed.save(path)
    return compressed, path


@pytest.mark.parametrize("name", SECTIONS)
def test_restored_network_is_where_the_saved_one_was(tmp_path: Path, name: str) -> None:
    compressed, path = _saved(tmp_path, name)
    network = Wide()
    parameter = network[0].bias
    restored = load(network, path)
    assert restored.network is network
    assert network.training
    assert (network[0].bias is parameter) or name == "removed filters"
    assert restored.stage == compressed.stage
    with torch.no_grad():
        assert torch.equal(network(DATA[0]), compressed.network(DATA[0]))
    for each in (restored, compressed):
        each.epoch_step()
    assert restored.state_dict() == compressed.state_dict()
    assert torch.load(path, weights_only=True).keys() == {"lightning_nncf", "state_dict"}


def test_failed_writing_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compressed, path = _saved(tmp_path)
    before = path.read_bytes()

    def fail(content: Any, file: Path) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="no space left"):
        compressed.save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    torch.save(Wide().state_dict(), tmp_path / "plain.pt")
    with pytest.raises(CheckpointError, match=r"plain\.pt holds no compressed network"):
        load(Wide(), tmp_path / "plain.pt")
    torch.save(DATA, tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="holds a list, not a checkpoint"):
        load(Wide(), tmp_path / "list.pt")
    (tmp_path / "empty.pt").touch()
    with pytest.raises(CheckpointError, match=r"cannot read .*empty\.pt"):
        load(Wide(), tmp_path / "empty.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(CheckpointError, match=r"cannot read .*text\.pt"):
        load(Wide(), tmp_path / "text.pt")
    torch.save(Wide(), tmp_path / "module.pt")
    with pytest.raises(CheckpointError, match="more than weights and plain values, as a pickled module does"):
        load_weights(Wide(), tmp_path / "module.pt")
    run = trainer(tmp_path)
    run.fit(Classifier(), loader())
    run.save_checkpoint(tmp_path / "float.ckpt")
    with pytest.raises(CheckpointError, match=r"checkpoint of Lightning.*load_weights\(module, path\)"):
        load(Net(), tmp_path / "float.ckpt")
    _, path = _saved(tmp_path)
    with pytest.raises(CheckpointError, match=r"lightning_nncf\.load\(network, path\)"):
        load_from_checkpoint(Classifier, path)


def test_wrong_networks_are_refused_and_stay_as_they_are(tmp_path: Path) -> None:
    compressed, path = _saved(tmp_path)
    other = Net()
    with pytest.raises(CheckpointError, match=r"does not fit Net: the file lacks 'body\.bias'.*lacks '0\.bias'"):
        load(other, path)
    assert other.state_dict().keys() == Net().state_dict().keys()
    larger = Wide(classes=5)
    before = {name: value.clone() for name, value in larger.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"Wide: '5\.weight' is \[3, 256\] in the file and \[5, 256\]"):
        load(larger, path)
    assert larger.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in larger.state_dict().items())
    with pytest.raises(HookError, match="is compressed already"):
        load(compressed.network, path)


def test_weights_of_a_float_network_are_loaded_before_it_is_compressed(tmp_path: Path) -> None:
    run, trained = trainer(tmp_path), Classifier()
    run.fit(trained, loader())
    run.save_checkpoint(tmp_path / "float.ckpt")
    torch.save(trained.state_dict(), tmp_path / "float.pt")
    for name in ("float.ckpt", "float.pt"):
        module = Classifier()
        assert load_weights(module, tmp_path / name) is module
        assert torch.equal(module.net.body.weight, trained.net.body.weight)
    _, path = _saved(tmp_path)
    with pytest.raises(CheckpointError, match="holds a compressed network already"):
        load_weights(Wide(), path)
    with pytest.raises(CheckpointError, match="does not fit Net"):
        load_weights(Net(), tmp_path / "float.ckpt")
    compress(module.net, config(), DATA)
    with pytest.raises(CheckpointError, match="Classifier is compressed already"):
        load_weights(module, tmp_path / "float.ckpt")


def test_weights_are_loaded_into_what_configure_model_makes(tmp_path: Path) -> None:
    class Late(Classifier):
        def __init__(self) -> None:
            super().__init__()
            del self.net

        def configure_model(self) -> None:
            if not hasattr(self, "net"):
                self.net = Net()

    trained = Classifier()
    torch.save(trained.state_dict(), tmp_path / "float.pt")
    assert torch.equal(load_weights(Late(), tmp_path / "float.pt").net.body.weight, trained.net.body.weight)

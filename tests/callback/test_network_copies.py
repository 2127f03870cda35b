"""Copies of the network beside it: what pairs both by their order is told so."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_nncf import NNCFCallback
from lightning_nncf.callback.network_copies import network_copies
from tests.callback.modules import Classifier, config, loader, trainer


class MeanTeacher(Classifier):
    """Averages the network by hand, by names."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = copy.deepcopy(self.net).requires_grad_(False)

    def on_train_batch_end(self, *_: Any) -> None:
        own = dict(self.net.named_parameters())
        for name, parameter in self.teacher.named_parameters():
            parameter.lerp_(own[name], 1.0)


class Pair(Classifier):
    """Trains two networks that are built alike."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = copy.deepcopy(self.net)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self.net(batch[0]), batch[1]) + F.cross_entropy(self.teacher(batch[0]), batch[1])


def test_a_copy_that_stays_plain_is_named_with_the_cure_which_works(tmp_path: Path) -> None:
    module = MeanTeacher()
    with pytest.warns(UserWarning, match=r"holds 'teacher'.*dict\(self\.net\.named_parameters\(\)\)\[name\]"):
        trainer(tmp_path, NNCFCallback(config(), network="net", export_path=None)).fit(module, loader(), loader())
    torch.testing.assert_close(module.teacher.head.weight, module.net.head.weight)


@pytest.mark.parametrize("networks", [("net", "teacher"), ("teacher", "net")], ids=" then ".join)
def test_networks_that_are_compressed_alike_are_no_copies_to_warn_of(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, networks: tuple[str, str]
) -> None:
    callbacks = [NNCFCallback(config(), network=name, export_path=None) for name in networks]
    trainer(tmp_path, *callbacks, limit_val_batches=0).fit(Pair(), loader())
    assert not [warning for warning in recwarn if "built as the network" in str(warning.message)]


def test_parts_of_the_network_and_networks_that_share_weights_are_no_copies() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied = nn.Sequential(network[0], nn.Linear(2, 2))
    other = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    average = torch.optim.swa_utils.AveragedModel(network)
    parts = nn.ModuleDict({"network": network, "tied": tied, "other": other, "average": average})
    assert list(network_copies(parts, network)) == ["average.module"]
    assert not network_copies(parts, network[0])  # layers of one size are everywhere

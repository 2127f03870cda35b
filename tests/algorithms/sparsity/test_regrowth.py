"""Dynamic sparse training: weights regrow by gradient."""

from __future__ import annotations

from pathlib import Path

import torch

from lightning_nncf import NNCFCallback
from lightning_nncf.algorithms.sparsity.regrowth import regrow
from tests.algorithms.sparsity.networks import batch, make, multistep, network
from tests.callback.modules import Classifier, loader, trainer


def test_smallest_kept_are_exchanged_for_largest_gradients() -> None:
    mask = torch.tensor([[True, True, True, True], [False, False, False, False]])
    weight = torch.tensor([[4.0, -1.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    gradient = torch.tensor([[9.0, 9.0, 9.0, 9.0], [1.0, -4.0, 3.0, 2.0]])
    new, grown = regrow(mask, weight, gradient, share=0.5)
    assert new.tolist() == [[True, False, True, False], [False, True, True, False]]
    assert grown.tolist() == [[False] * 4, [False, True, True, False]]


def test_no_more_is_exchanged_than_was_dropped() -> None:
    mask = torch.tensor([True] * 9 + [False])
    new, _ = regrow(mask, torch.arange(10.0), torch.ones(10), share=0.9)
    assert int(new.sum()) == 9
    assert bool(new[9])


def test_first_step_of_an_epoch_exchanges_weights_and_keeps_their_number() -> None:
    net = network()
    params = multistep(0.5, 0.5, freeze=5, regrow={"fraction": 0.4})
    compressed = make({"algorithm": "magnitude_sparsity", "params": params}, net)
    before = [module.mask.clone() for module in compressed.algorithms[0].masks]
    compressed.epoch_step()
    net.train()(batch()).square().sum().backward()
    compressed.before_optimizer_step()
    after = [module.mask.clone() for module in compressed.algorithms[0].masks]
    for old, new in zip(before, after, strict=True):
        assert int(old.sum()) == int(new.sum())
        assert int((old & ~new).sum()) == min(int(0.4 * int(old.sum())), int((~old).sum()))
    grown = after[2] & ~before[2]
    assert bool((net[7].weight.detach()[grown] == 0).all())
    compressed.before_optimizer_step()
    assert all(torch.equal(m.mask, a) for m, a in zip(compressed.algorithms[0].masks, after, strict=True))


def test_training_keeps_the_level_and_freezes(tmp_path: Path) -> None:
    params = multistep(0.6, 0.6, freeze=3, regrow={"fraction": 0.3})
    callback = NNCFCallback({"compression": {"algorithm": "magnitude_sparsity", "params": params}}, export_path=None)
    trainer(tmp_path, callback, max_epochs=5).fit(Classifier(), loader())
    assert callback.compressed is not None
    total = 36 + 144 + 12
    assert abs(callback.compressed.algorithms[0].sparsity() - 0.6) <= 1 / total
    assert callback.compressed.algorithms[0].frozen

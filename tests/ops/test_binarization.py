from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_nncf.ops import binarize_activations, binarize_weights, sample_and_mask
from lightning_nncf.ops.masking import uniform

SCALE, THRESHOLD = torch.tensor([2.0]), torch.tensor([0.25, 0.5, 0.75]).reshape(1, 3, 1, 1)


def images(dtype: torch.dtype = torch.float32, *, channels_last: bool = False) -> Tensor:
    x = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0)) * 2
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return x.to(dtype).contiguous(memory_format=layout)


def test_weights_become_their_sign_times_the_mean_magnitude_of_a_filter() -> None:
    x = torch.tensor([[[1.0, -3.0]], [[0.0, 8.0]]])
    assert binarize_weights(x, per_filter=True).tolist() == [[[2.0, -2.0]], [[-4.0, 4.0]]]


def test_weights_become_their_sign_times_the_mean_magnitude_of_the_tensor() -> None:
    x = torch.tensor([[[1.0, -3.0]], [[0.0, 8.0]]])
    assert binarize_weights(x, per_filter=False).tolist() == [[[3.0, -3.0]], [[-3.0, 3.0]]]


@pytest.mark.parametrize("per_filter", [True, False], ids=["xnor", "dorefa"])
def test_gradients_pass_binarized_weights_unchanged(per_filter: bool) -> None:
    x = images().requires_grad_()
    grad = torch.randn_like(x)
    binarize_weights(x, per_filter=per_filter).backward(grad)
    assert x.grad is not None
    assert torch.equal(x.grad, grad)


def test_activations_are_kept_above_a_share_of_the_scale() -> None:
    x = torch.tensor([[-1.0, 0.4, 0.6], [0.9, 1.1, 9.0]])
    y = binarize_activations(x, torch.tensor([2.0]), torch.tensor([[0.1, 0.25, 0.5]]), 1)
    assert y.tolist() == [[0.0, 0.0, 0.0], [2.0, 2.0, 2.0]]


def test_gradients_of_activations_worked_by_hand() -> None:
    x = torch.tensor([[-1.0], [0.5], [1.5], [3.0]], requires_grad=True)
    scale, threshold = torch.tensor([2.0], requires_grad=True), torch.tensor([[0.5]], requires_grad=True)
    grad = torch.tensor([[1.0], [10.0], [100.0], [1000.0]])
    binarize_activations(x, scale, threshold, 1).backward(grad)
    assert x.grad is not None
    assert scale.grad is not None
    assert threshold.grad is not None
    assert x.grad.flatten().tolist() == [0.0, 10.0, 100.0, 0.0]
    # residuals (y - x) / s: 0.5, -0.25, 0.25; above the scale: 1
    assert scale.grad.tolist() == [0.5 - 2.5 + 25.0 + 1000.0]
    assert threshold.grad.tolist() == [[-110.0]]


def test_masks_keep_as_many_as_their_odds_say() -> None:
    logits = torch.tensor([-2.0, 0.0, 2.0]).repeat_interleave(20000)
    kept = sample_and_mask(torch.ones(60000), logits, torch.tensor([3])).reshape(3, -1).mean(dim=1)
    torch.testing.assert_close(kept, torch.sigmoid(torch.tensor([-2.0, 0.0, 2.0])), rtol=0, atol=0.01)


def test_masks_follow_the_seed_alone() -> None:
    x, logits = torch.ones(4096), torch.zeros(4096)
    first, again, other = (sample_and_mask(x, logits, torch.tensor([seed])) for seed in (5, 5, 5 + (1 << 32)))
    assert torch.equal(first, again)
    assert 0.4 < (first != other).float().mean() < 0.6


def test_masks_do_not_depend_on_the_layout() -> None:
    x, logits = images(), images().neg()
    seed = torch.tensor([8])
    expected = sample_and_mask(x, logits, seed)
    y = sample_and_mask(images(channels_last=True), logits, seed)
    assert torch.equal(y, expected)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_gradients_of_masks_go_through_the_sigmoid() -> None:
    x = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64, requires_grad=True)
    logits = torch.tensor([-1.0, 0.0, 1.0, 5.0], dtype=torch.float64, requires_grad=True)
    seed = torch.tensor([11])
    y = sample_and_mask(x, logits, seed)
    y.sum().backward()
    assert x.grad is not None
    assert logits.grad is not None
    u = uniform(4, seed).double()
    share = torch.sigmoid(logits.detach() + torch.log(u / (1 - u)))
    assert torch.equal(x.grad, (share > 0.5).double())
    torch.testing.assert_close(logits.grad, x.detach() * share * (1 - share), rtol=1e-9, atol=1e-12)


def test_draws_are_uniform_and_do_not_follow_each_other() -> None:
    u = uniform(1 << 17, torch.tensor([1]))
    assert u.min() > 0
    assert u.max() < 1
    counts = torch.histc(u, bins=16, min=0, max=1)
    assert ((counts - 8192).abs() < 5 * 8192**0.5).all()
    centred = u - 0.5
    for distance in (1, 2, 3, 64, 1024):
        assert (centred[distance:] * centred[:-distance]).mean().abs() < 5 / 12 / (1 << 17) ** 0.5


def operators(x: Tensor) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    scale, threshold = SCALE.clone().requires_grad_(), THRESHOLD.clone().requires_grad_()
    logits = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    ops = torch.ops.lightning_nncf
    return {
        "binarize_weights": (ops.binarize_weights, (x, True)),
        "binarize_activations": (ops.binarize_activations, (x, scale, threshold, 1)),
        "sample_and_mask": (ops.sample_and_mask, (x, logits, torch.tensor([4]))),
    }


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("name", ["binarize_weights", "binarize_activations", "sample_and_mask"])
def test_operators_keep_the_contract_of_pytorch(name: str, channels_last: bool) -> None:
    operator, arguments = operators(images(channels_last=channels_last).requires_grad_())[name]
    results = torch.library.opcheck(operator.default, arguments)
    assert set(results.values()) == {"SUCCESS"}


class Binary(nn.Module):
    """All three operators in one forward."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(2)))
        self.logits = nn.Parameter(torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(3)))
        self.scale = nn.Parameter(SCALE.clone())
        self.threshold = nn.Parameter(THRESHOLD.clone())

    def forward(self, x: Tensor, seed: Tensor) -> Tensor:
        weight = binarize_weights(sample_and_mask(self.weight, self.logits, seed), per_filter=True)
        return nn.functional.conv2d(binarize_activations(x, self.scale, self.threshold, 1), weight)


def test_compiled_in_one_graph_gives_the_eager_values_and_gradients() -> None:
    x, seed = images(), torch.tensor([9])
    eager, compiled = Binary(), Binary()
    expected = eager(x, seed)
    expected.square().sum().backward()
    y = torch.compile(compiled, fullgraph=True, backend="aot_eager")(x, seed)
    y.square().sum().backward()
    torch.testing.assert_close(y, expected)
    for ours, theirs in zip(compiled.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)


def test_an_exported_program_keeps_the_operators_as_single_nodes() -> None:
    x, seed = images(), torch.tensor([9])
    module = Binary().eval()
    exported = torch.export.export(module, (x, seed))
    targets = [str(node.target) for node in exported.graph.nodes]
    for name in ("binarize_weights", "binarize_activations", "sample_and_mask"):
        assert targets.count(f"lightning_nncf.{name}.default") == 1
    torch.testing.assert_close(exported.module()(x, seed), module(x, seed))


def test_arguments_that_do_not_fit_are_refused() -> None:
    x = images()
    with pytest.raises(ValueError, match="needs one scale and 3 thresholds"):
        binarize_activations(x, SCALE, torch.ones(2), 1)
    with pytest.raises(ValueError, match="needs logits of that shape"):
        sample_and_mask(x, torch.ones(2), torch.tensor([1]))

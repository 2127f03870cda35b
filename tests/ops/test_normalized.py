from __future__ import annotations

import copy
import math
import pickle
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.library import opcheck

import lightning_nncf
from lightning_nncf.algorithms.quantization.quantizers import SymmetricQuantizer
from lightning_nncf.hooks.insertion import inserted, strip
from lightning_nncf.ops import normalized, reference
from lightning_nncf.ops.normalized import fake_quantize_normalized, pays

OPS = torch.ops.lightning_nncf
CONFIG = {"compression": {"algorithm": "quantization"}}
SETTINGS: dict[str, tuple[int, int, float | None]] = {
    "signed": (-128, 127, None),
    "unsigned": (0, 255, None),
    "relu": (0, 255, math.inf),
    "relu6": (0, 15, 6.0),
}
SHAPES = {
    "long rows": (3, 5, 41, 67),
    "short rows": (4, 33, 3, 3),
    "single values": (9, 7, 1),
    "volumes": (2, 3, 4, 5, 6),
    "one row": (1, 4, 5000),
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(5)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, momentum=0.3)
    with torch.no_grad():
        norm.weight.uniform_(-2, 2)
        norm.bias.normal_()
    return norm


def apart(norm: nn.Module, x: Tensor, scale: Tensor, quant_min: int, quant_max: int, top: float | None) -> Tensor:
    """Do one after the other what the operator does at once."""
    y = nn.functional.batch_norm(
        x, norm.running_mean, norm.running_var, norm.weight, norm.bias, True, norm.momentum, norm.eps
    )
    if top is not None:
        y = nn.functional.relu(y) if top == math.inf else nn.functional.relu6(y)
    return _Formula.apply(y, scale, quant_min, quant_max)


class _Formula(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale, quant_min, quant_max):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, scale)
        ctx.settings = (quant_min, quant_max, -1)
        return reference.fake_quantize_symmetric(x, scale, *ctx.settings)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return (*reference.fake_quantize_symmetric_backward(grad, *ctx.saved_tensors, *ctx.settings), None, None)


def both(
    function: Callable[..., Tensor], norm: nn.Module, x: Tensor, scale: Tensor, settings: tuple[int, int, float | None]
) -> list[Tensor]:
    """Return the values, all gradients and the statistics."""
    norm = copy.deepcopy(norm)
    x, scale = x.clone().requires_grad_(), scale.clone().requires_grad_()
    y = function(norm, x, scale, *settings)
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype))
    found = [y.detach(), x.grad, norm.weight.grad, norm.bias.grad, scale.grad, norm.running_mean, norm.running_var]
    assert all(each is not None for each in found)
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", SETTINGS)
def test_double_precision_agrees_with_the_functions_after_each_other(name: str, shape: tuple[int, ...]) -> None:
    norm, x = batch_norm(shape[1]).double(), 3 * torch.randn(shape, dtype=torch.float64) + 1
    scale = torch.tensor([1.7], dtype=torch.float64)
    mine = both(fake_quantize_normalized, norm, x, scale, SETTINGS[name])
    for one, other in zip(mine, both(apart, norm, x, scale, SETTINGS[name]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", SETTINGS)
def test_single_precision_is_as_near_as_its_rounding(name: str, shape: tuple[int, ...]) -> None:
    norm, x, scale = batch_norm(shape[1]), 3 * torch.randn(shape) + 100, torch.tensor([1.7])
    mine = both(fake_quantize_normalized, norm, x, scale, SETTINGS[name])
    exact = both(apart, norm.double(), x.double(), scale.double(), SETTINGS[name])
    # Values that lie between two levels may be rounded to either.
    far = (mine[0] - exact[0]).abs()
    assert (far > 1e-4).double().mean() < 1e-3
    assert far.max() < 1.01 * 1.7 / 7.5
    for one, other in zip(mine[1:], exact[1:], strict=True):
        assert (one - other).norm() <= 5e-3 * other.norm()
    for one, other in zip(mine[5:], exact[5:], strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-6, atol=1e-6)


def test_values_worked_by_hand() -> None:
    norm = nn.BatchNorm1d(1, eps=0.0)
    x = torch.tensor([-3.0, -1.0, 1.0, 3.0]).reshape(2, 1, 2).requires_grad_()  # mean 0, variance 5
    scale = torch.tensor([1.0], requires_grad=True)
    y = fake_quantize_normalized(norm, x, scale, 0, 2, 6.0)
    assert y.flatten().tolist() == [0.0, 0.0, 0.5, 1.0]  # of 0, 0, 0.447 and 1.342, in steps of 0.5
    assert norm.running_mean.tolist() == [0.0]
    torch.testing.assert_close(norm.running_var, torch.tensor([0.9 + 0.1 * 20 / 3]))
    assert norm.num_batches_tracked == 1
    y.backward(torch.tensor([7.0, 7.0, 1.0, 7.0]).reshape(2, 1, 2))
    assert norm.weight.grad is not None
    assert x.grad is not None
    # Only the third value lies inside the range: (1 - 1/4 - normal * 0.447 / 4) / sqrt(5), and 7 + (0.5 - 0.447) / 1.
    torch.testing.assert_close(norm.weight.grad, torch.tensor([5**-0.5]))
    expected = [(float(i == 2) - 0.25 - v / 5 / 4) / 5**0.5 for i, v in enumerate([-3, -1, 1, 3])]
    torch.testing.assert_close(x.grad.flatten(), torch.tensor(expected))
    torch.testing.assert_close(scale.grad, torch.tensor([7 + 0.5 - 5**-0.5]))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_any_number_of_threads_gives_the_same_bits(shape: tuple[int, ...]) -> None:
    norm, x, scale = batch_norm(shape[1]), torch.randn(shape), torch.tensor([2.0])
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(both(fake_quantize_normalized, norm, x, scale, SETTINGS["relu6"]))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


def arguments(x: Tensor, settings: tuple[int, int, float | None]) -> tuple[list[object], list[object]]:
    norm = batch_norm(x.shape[1]).requires_grad_(False)
    *bounds, top = settings
    end = [*bounds, top is not None, top or 0.0]
    scale = torch.tensor([2.0])
    before = [
        x,
        norm.weight,
        norm.bias,
        norm.running_mean,
        norm.running_var,
        norm.num_batches_tracked,
        scale,
        0.1,
        1e-5,
    ]
    before += end
    _, mean, inverse = OPS.fake_quantize_normalized(*copy.deepcopy(before))
    return before, [torch.randn(x.shape).to(x), x, norm.weight, norm.bias, mean, inverse, scale, *end]


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "strided": lambda x: x[:, ::2],
    "bfloat16": lambda x: x.bfloat16(),
    "float16": lambda x: x.half(),
    "rows": lambda x: x.flatten(1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["signed", "relu6"])
def test_operators_keep_the_contract_of_pytorch_in_every_layout(layout: str, name: str) -> None:
    forward, backward = arguments(LAYOUTS[layout](torch.randn(4, 6, 5, 7)), SETTINGS[name])
    results = [
        opcheck(OPS.fake_quantize_normalized.default, tuple(forward)),
        opcheck(OPS.fake_quantize_normalized_backward.default, tuple(backward)),
        opcheck(OPS.fake_quantize_normalized_backward_.default, tuple(backward)),
    ]
    assert all(set(result.values()) == {"SUCCESS"} for result in results)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", SETTINGS)
def test_the_formula_gives_what_the_kernel_gives(layout: str, name: str) -> None:
    forward, backward = arguments(LAYOUTS[layout](torch.randn(4, 6, 5, 7)), SETTINGS[name])
    mine, theirs = copy.deepcopy(forward), copy.deepcopy(forward)
    rounding = {torch.bfloat16: 2**-8, torch.float16: 2**-10}.get(forward[0].dtype, 1e-5)
    pairs = zip(OPS.fake_quantize_normalized(*mine), normalized._forward(*theirs), strict=True)
    for one, other in [*pairs, *zip(mine[3:6], theirs[3:6], strict=True)]:
        torch.testing.assert_close(one, other, rtol=rounding, atol=rounding)
    pairs = zip(OPS.fake_quantize_normalized_backward(*backward), normalized._backward(*backward), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=rounding, atol=1e-3 if rounding == 1e-5 else 0.1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(lambda x: x[:1, :, :1, :1], "more than one value"), (lambda x: x.flatten(), "at least 2 dimensions")],
)
def test_what_batch_normalization_cannot_do_is_an_error(wrong: Callable[[Tensor], Tensor], message: str) -> None:
    forward, _ = arguments(torch.randn(4, 6, 5, 7), SETTINGS["relu"])
    with pytest.raises(RuntimeError, match=message):
        OPS.fake_quantize_normalized(wrong(torch.randn(4, 6, 5, 7)), *forward[1:])


def test_it_pays_where_a_batch_norm_learns_from_its_batch() -> None:
    norm, x = batch_norm(6), torch.randn(4, 6, 5, 7, requires_grad=True)
    assert pays(norm, x)
    assert not pays(copy.deepcopy(norm).eval(), x)
    assert not pays(nn.BatchNorm2d(6, momentum=None), x)
    assert not pays(nn.BatchNorm2d(6, track_running_stats=False), x)
    assert not pays(nn.BatchNorm2d(6, affine=False), x)
    assert pays(norm, x.detach())
    assert not pays(norm, x.double())
    assert not pays(norm, x.contiguous(memory_format=torch.channels_last))
    assert not pays(norm, x[:, :5])
    assert not pays(norm, x[:1, :, :1, :1])
    with torch.autocast("cpu", torch.bfloat16):
        assert pays(norm, x)  # which stays a float32 batch norm
        assert not pays(norm, x.bfloat16())
    with torch.no_grad():
        assert not pays(norm, x)


class Network(nn.Module):
    """A block with a branch; its activation is one module."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)
        self.norm1, self.norm2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.act = activation

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm1(self.first(x)))
        return self.third(self.act(self.norm2(self.second(y)) + y))


def compressed(network: nn.Module, **keys: object) -> tuple[nn.Module, Tensor]:
    images = torch.randn(4, 3, 12, 12)
    section = {**CONFIG["compression"], **keys}
    lightning_nncf.compress(network, {**CONFIG, "compression": section}, [images])
    return network.train(), images


def counted(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Return a list that grows each time a quantizer does the work of a batch norm."""
    norms: list[nn.Module] = []
    plain = SymmetricQuantizer.normalized

    def normalize(quantizer: SymmetricQuantizer, norm: nn.Module, x: Tensor, top: float | None) -> Tensor | None:
        result = plain(quantizer, norm, x, top)
        if result is not None:
            norms.append(norm)
        return result

    monkeypatch.setattr(SymmetricQuantizer, "normalized", normalize)
    return norms


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.ReLU6(inplace=True)], ids=str)
def test_a_training_step_gives_what_it_gave(activation: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = compressed(Network(activation))
    other, norms = copy.deepcopy(network), counted(monkeypatch)
    network(images).square().mean().backward()
    assert norms == [network.norm1, network.norm2]
    monkeypatch.setattr(SymmetricQuantizer, "normalized", lambda *args: None)
    other(images).square().mean().backward()
    for (name, mine), theirs in zip(network.named_parameters(), other.parameters(), strict=True):
        assert mine.grad is not None, name
        assert (mine.grad - theirs.grad).norm() <= 2e-2 * theirs.grad.norm() + 1e-6, name
    for (name, mine), theirs in zip(network.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4, msg=name)


def test_batch_norms_are_what_they_were_for_everybody_else() -> None:
    network, images = compressed(Network(nn.ReLU()))
    assert isinstance(network.norm1, nn.BatchNorm2d)
    assert repr(network.norm1).startswith("BatchNorm2d(")
    again = pickle.loads(pickle.dumps(network))
    torch.testing.assert_close(again(images), copy.deepcopy(network)(images))
    assert set(network.norm1.state_dict()) == set(nn.BatchNorm2d(8).state_dict())
    network(images).sum().backward()
    strip(network)
    assert type(network.norm1) is nn.BatchNorm2d
    assert not any("lnncf" in name for name in network.norm1.__dict__)
    assert network(images).shape == (4, 4, 10, 10)


@pytest.mark.parametrize("listener", ["hook", "pre hook", "backward hook", "activation", "quantizer", "eval"])
def test_who_listens_hears_what_each_module_gets_and_gives(listener: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = compressed(Network(nn.ReLU()))
    norms, heard = counted(monkeypatch), []
    target: nn.Module = network.norm1
    if listener == "activation":
        target = network.act
    elif listener == "quantizer":
        target = next(module for site, _, module in inserted(network) if site.normalizes == "norm1")
    before = int(network.norm1.num_batches_tracked)
    if listener == "eval":
        network.norm1.eval()
    elif listener == "pre hook":
        target.register_forward_pre_hook(lambda module, args: heard.append(args[0]))
    elif listener == "backward hook":
        target.register_full_backward_hook(lambda module, of_input, of_output: heard.append(of_input[0]))
    else:
        target.register_forward_hook(lambda module, args, result: heard.append(args[0]))
    network(images).sum().backward()
    assert norms == [network.norm2]
    assert len(heard) == {"eval": 0, "activation": 2}.get(listener, 1)
    assert network.norm1.num_batches_tracked == before + (listener != "eval")
    if listener == "activation":
        torch.testing.assert_close(heard[0].mean((0, 2, 3)), torch.zeros(8), rtol=0, atol=1e-5)
        torch.testing.assert_close(heard[0].std((0, 2, 3)), torch.ones(8), rtol=0, atol=1e-2)
    elif listener == "quantizer":
        assert heard[0].min() == 0
        assert len(heard[0].unique()) > 256


class Shared(Network):
    """Reads the output of a batch norm twice, and another batch norm works twice."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.first(x))
        z = self.act(y) * y.sigmoid().mean()
        return self.third(self.act(self.norm2(self.norm2(self.second(z)))))


def test_batch_norms_whose_output_others_read_do_their_own_work(monkeypatch: pytest.MonkeyPatch) -> None:
    # Else a quantizer stands between the batch norm and its readers.
    network, images = compressed(Shared(nn.ReLU()), quantize_after_convolutions=False)
    norms = counted(monkeypatch)
    network(images).sum().backward()
    assert not norms


class Moody(Network):
    """Leaves its activation out when it likes to."""

    past = False

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.first(x))
        return self.third(y if self.past else self.act(y))


def test_an_output_that_goes_another_way_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = compressed(Moody(nn.ReLU()))
    norms = counted(monkeypatch)
    network.past = True
    network(images)
    with pytest.warns(UserWarning, match="the output of a batch norm went past 'act'"):
        network(images)
    assert len(norms) == 1
    network.past = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network(images).sum().backward()
    assert len(norms) == 1


def test_a_second_derivative_is_an_error() -> None:
    norm, x = batch_norm(6), torch.randn(4, 6, 5, 7, requires_grad=True)
    y = fake_quantize_normalized(norm, x, torch.tensor([2.0]), *SETTINGS["relu"])
    (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_exported_and_compiled_networks_keep_their_batch_norms() -> None:
    network, images = compressed(Network(nn.ReLU()))
    names = [str(node.target) for node in torch.export.export(network, (images,)).graph.nodes]
    assert sum("batch_norm" in name for name in names) == 2
    assert not any("normalized" in name for name in names)
    torch.compiler.reset()
    compiled = torch.compile(copy.deepcopy(network), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), copy.deepcopy(network)(images), rtol=0.02, atol=0.05)


def test_recomputed_activations_are_the_same() -> None:
    network, images = compressed(Network(nn.ReLU()))
    other = copy.deepcopy(network)
    network(images).square().mean().backward()
    images.requires_grad_()
    torch.utils.checkpoint.checkpoint(other, images, use_reentrant=False).square().mean().backward()
    for (name, mine), theirs in zip(network.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, msg=name)

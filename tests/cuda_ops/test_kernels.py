from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import cuda_ops
import lightning_nncf.ops  # noqa: F401  (defines the operators)
from lightning_nncf.ops import binarization, grids, masking, reference

# The oracle of every compiled kernel is the formula in plain PyTorch.

DEVICES = [pytest.param("cpu", id="cpu"), pytest.param("cuda", id="cuda", marks=pytest.mark.cuda)]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
SHAPES = [
    ((4, 8, 7, 7), 1),
    ((4, 8, 7, 7), -1),
    ((2, 3, 65, 67), 1),
    ((16, 40, 9, 11), 1),
    ((3, 5, 16), 1),
    ((3, 5, 17), 1),
    ((33, 70), 0),
    ((33, 70), 1),
    ((9, 600), 1),
    ((5,), 0),
    ((), -1),
    ((0, 3), 1),
    ((3, 0), 0),
]
LAYOUTS = ["contiguous", "channels_last", "strided", "expanded"]
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if not cuda_ops.load(name):
        pytest.skip(cuda_ops.describe(name))
    return name


def arranged(x: Tensor, layout: str) -> Tensor:
    """The same values in other strides."""
    if layout == "channels_last" and x.ndim == 4:
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "strided" and x.ndim > 0:
        return torch.stack([x, x + 1], dim=-1)[..., 0]
    if layout == "expanded" and x.ndim > 1 and x.shape[0] > 1:
        return x[:1].expand(x.shape)
    return x


@dataclass
class Sample:
    x: Tensor
    grad: Tensor
    positive: Tensor
    negative: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        return self.x, self.grad, self.positive, self.negative


def sample(shape: tuple[int, ...], axis: int, dtype: torch.dtype, layout: str, device: str) -> Sample:
    generator = torch.Generator().manual_seed(sum(shape) + axis)
    of_parameters = tuple(size if dim == axis else 1 for dim, size in enumerate(shape)) if axis >= 0 else (1,)
    x = torch.randn(shape, generator=generator) * 2
    grad = torch.randn(shape, generator=generator)
    positive, negative = (torch.rand(of_parameters, generator=generator) for _ in range(2))
    return Sample(
        arranged(x.to(device, dtype), layout),
        arranged(grad.to(device, dtype), layout),
        (positive * 2 + 0.5).to(device),
        (-negative * 2).to(device),
    )


def assert_same_bits(ours: Tensor, expected: Tensor) -> None:
    assert ours.shape == expected.shape
    assert torch.equal(
        ours.contiguous().view(BITS[ours.element_size()]),
        expected.contiguous().view(ours.dtype).view(BITS[ours.element_size()]),
    )


def assert_values(ours: Tensor, expected: Tensor, x: Tensor, step: Tensor | None = None) -> None:
    """Bit for bit in float32 and float64.

    Half types: a value on the edge between two steps, as far as float32 can tell, may go to either; the others may
    differ by the last bit of the type, because the reference rounds twice, and steps are kept in 22 bits.
    """
    assert ours.dtype == x.dtype
    assert ours.stride() == torch.empty_like(x).stride()
    if x.dtype in (torch.float32, torch.float64):
        assert_same_bits(ours, expected)
        return
    other = ours != expected
    one, two = ours[other].double(), expected[other].double()
    rounding = torch.finfo(x.dtype).eps * two.abs()
    last_bit = (one - two).abs() <= rounding
    if step is None:
        assert last_bit.all()
        return
    steps = step.double().expand(x.shape)[other]
    ticks = x[other].double() / steps
    on_edge = ((ticks - ticks.floor()) - 0.5).abs() <= 2.0**-22 * (1 + ticks.abs())
    assert (on_edge | last_bit).all()
    assert ((one - two).abs() <= steps + 2 * rounding).all()


def assert_sums(ours: Tensor, exact: Tensor, terms: Tensor, like: Tensor, edges: Tensor | float = 0.0) -> None:
    """Within 1e-5 of float64, relative to the terms that were added, and to what values on an edge may give.

    The terms have random signs here, so that the sum may be anything near zero; sums that are not, are held to 1e-5
    of themselves by `test_gradients_of_ranges_are_within_1e_5_of_float64`.
    """
    assert ours.shape == like.shape
    assert ours.dtype == like.dtype
    assert ((ours.double() - exact).abs() <= 1e-5 * terms + 1.01 * edges + 1e-7).all()


def on_edges(s: Sample, step: Tensor, like: Tensor, axis: int) -> Tensor:
    """Per channel, the gradients of values so near the middle between two steps that float32 may round either way."""
    ticks = (s.x.double() / (step if axis >= 0 else step.reshape([]))).frac().abs()
    return sums_of(s.grad.double().abs() * ((ticks - 0.5).abs() < 1e-4), like, axis)


def sums_of(values: Tensor, like: Tensor, axis: int) -> Tensor:
    dims = [dim for dim in range(values.ndim) if dim != axis]
    return (values.sum(dim=dims) if dims else values).reshape(like.shape)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_symmetric_is_the_formula(
    device: str, shape: tuple[int, ...], axis: int, dtype: torch.dtype, layout: str
) -> None:
    s = sample(shape, axis, dtype, layout, device)
    ops = torch.ops.lightning_nncf
    for quant_min, quant_max in ((-128, 127), (0, 255), (-2, 1)):
        settings = (s.positive, quant_min, quant_max, axis)
        ours, expected = ops.fake_quantize_symmetric(s.x, *settings), reference.fake_quantize_symmetric(s.x, *settings)
        step, *_ = grids.symmetric_grid(s.positive if axis >= 0 else s.positive.reshape([]), quant_min, quant_max)
        assert_values(ours, expected, s.x, step)
        grad_x, grad_scale = ops.fake_quantize_symmetric_backward(s.grad, s.x, *settings)
        exact = reference.fake_quantize_symmetric_backward(
            s.grad.double(), s.x.double(), s.positive.double(), quant_min, quant_max, axis
        )
        assert torch.equal(grad_x, reference.fake_quantize_symmetric_backward(s.grad, s.x, *settings)[0])
        assert grad_x.stride() == torch.empty_like(s.x).stride()
        terms = sums_of(s.grad.double().abs(), s.positive, axis)
        edges = on_edges(s, s.positive.double() / quant_max, s.positive, axis) / (quant_max - quant_min)
        assert_sums(grad_scale, exact[1], terms, s.positive, edges)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_asymmetric_is_the_formula(
    device: str, shape: tuple[int, ...], axis: int, dtype: torch.dtype, layout: str
) -> None:
    s = sample(shape, axis, dtype, layout, device)
    ops = torch.ops.lightning_nncf
    for levels in (256, 5):
        settings = (s.negative, s.positive, levels, axis)
        ours = ops.fake_quantize_asymmetric(s.x, *settings)
        ends = (s.negative, s.positive) if axis >= 0 else (s.negative.reshape([]), s.positive.reshape([]))
        step, *_ = grids.asymmetric_grid(*ends, levels)
        assert_values(ours, reference.fake_quantize_asymmetric(s.x, *settings), s.x, step)
        grads = ops.fake_quantize_asymmetric_backward(s.grad, s.x, *settings)
        exact = reference.fake_quantize_asymmetric_backward(
            s.grad.double(), s.x.double(), s.negative.double(), s.positive.double(), levels, axis
        )
        assert torch.equal(grads[0], reference.fake_quantize_asymmetric_backward(s.grad, s.x, *settings)[0])
        step, *_ = grids.asymmetric_grid(s.negative.double(), s.positive.double(), levels)
        terms = sums_of(s.grad.double().abs(), s.positive, axis)
        edges = on_edges(s, step, s.positive, axis) / (levels - 1)
        for ours, theirs in zip(grads[1:], exact[1:], strict=True):
            assert_sums(ours, theirs, terms, s.positive, edges)


def near_edges(steps: Tensor, ticks: Tensor) -> Tensor:
    """Values of every channel around the middles between its ticks, as near as float32 numbers lie."""
    middles = (ticks + 0.5) * steps[:, None]
    values = [middles]
    for towards in (-torch.inf, torch.inf):
        value = middles
        for _ in range(4):
            value = torch.nextafter(value, torch.tensor(towards))
            values.append(value)
    return torch.cat(values, dim=1)


@pytest.mark.parametrize("extremes", [[], [1e-30, 1e30, 3e38, torch.inf, torch.nan]], ids=["usual", "extreme"])
def test_quotients_are_rounded_as_a_division_rounds_them(device: str, extremes: list[float]) -> None:
    generator = torch.Generator().manual_seed(0)
    all_ones = torch.full((8,), 2.0) - torch.arange(1, 9) * 2.0**-23  # whose reciprocals are the hardest to round
    exponents = torch.randint(-40, 40, (500,), generator=generator)
    scales = torch.cat([(1 + torch.rand(500, generator=generator)) * 2.0**exponents, all_ones * 127, all_ones])
    scales = torch.cat([scales, torch.tensor([1e-18, 1e17, *extremes])])  # with the extreme ones, all are divided
    specials = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e-45, -1e-45, 1e-38, 3e38, -3e38])
    values = near_edges(scales / 127, torch.arange(-131.0, 131.0))
    values = torch.cat([values, specials.expand(len(scales), -1)], dim=1)
    ops = torch.ops.lightning_nncf
    for x, axis in ((values.contiguous(), 0), (values.t().contiguous(), 1)):  # rows, and columns, of channels
        x = x.to(device)
        by_channel = (scales[:, None] if axis == 0 else scales[None]).to(device)
        symmetric = (by_channel, -128, 127, axis)
        assert_same_values(ops.fake_quantize_symmetric(x, *symmetric), reference.fake_quantize_symmetric(x, *symmetric))
        asymmetric = (-0.3 * by_channel, 1.7 * by_channel, 256, axis)
        assert_same_values(
            ops.fake_quantize_asymmetric(x, *asymmetric), reference.fake_quantize_asymmetric(x, *asymmetric)
        )


def assert_same_values(ours: Tensor, expected: Tensor) -> None:
    """The same bits, but for those of NaN."""
    nan = expected.isnan()
    assert torch.equal(ours.isnan(), nan)
    assert_same_bits(ours[~nan], expected[~nan])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("inner", [1, 7, 16, 17, 31, 32, 33, 49, 128, 129])
def test_images_are_quantized_together_as_they_are_alone(device: str, inner: int, dtype: torch.dtype) -> None:
    ops = torch.ops.lightning_nncf
    for images, channels in ((1, 40), (4, 3), (9, 37), (11, 64)):
        s = sample((images, channels, inner), 1, dtype, "contiguous", device)
        for together, alone in (
            (ops.fake_quantize_symmetric(s.x, s.positive, -128, 127, 1),
             [ops.fake_quantize_symmetric(x, s.positive[0], -128, 127, 0) for x in s.x]),
            (ops.fake_quantize_asymmetric(s.x, s.negative, s.positive, 256, 1),
             [ops.fake_quantize_asymmetric(x, s.negative[0], s.positive[0], 256, 0) for x in s.x]),
        ):  # fmt: skip
            assert_same_bits(together, torch.stack(alone))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("unusual", [1e-30, 1e25, torch.inf, torch.nan])
def test_half_types_take_every_scale(device: str, unusual: float, dtype: torch.dtype) -> None:
    x = (torch.randn(4, 5, 49, generator=torch.Generator().manual_seed(1)) * 2).to(device, dtype)
    scale = torch.tensor([0.5, unusual, 1.0, 2.0, 3.0], device=device).reshape(1, 5, 1)
    ours = torch.ops.lightning_nncf.fake_quantize_symmetric(x, scale, -128, 127, 1)
    expected = reference.fake_quantize_symmetric(x, scale, -128, 127, 1)
    assert torch.equal(ours.isnan(), expected.isnan())
    usual = [0, 2, 3, 4]
    assert_values(ours[:, usual].contiguous(), expected[:, usual], x[:, usual].contiguous(), scale[:, usual] / 127)
    assert torch.equal(ours[:, 1].nan_to_num(), expected[:, 1].nan_to_num())


def settled(x: Tensor, step: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The values, zero where float32 and float64 might take another step or another side of an end of the range."""
    ticks, ends = x.double() / step, (low, high)
    near = ((ticks - ticks.floor()) - 0.5).abs() < 1e-3
    for end in ends:
        near |= (x.double() - end).abs() < 1e-3 * step
    return torch.where(near, 0.0, x)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "axis"), [case for case in SHAPES if 0 not in case[0]], ids=str)
def test_gradients_of_ranges_are_within_1e_5_of_float64(
    device: str, shape: tuple[int, ...], axis: int, dtype: torch.dtype, layout: str
) -> None:
    s = sample(shape, axis, dtype, layout, device)
    ops = torch.ops.lightning_nncf
    grad, x = s.grad.abs() + 0.5, s.x.abs()  # sums of one sign
    of_x = (lambda parameter: parameter.double()) if axis >= 0 else (lambda parameter: parameter.double().reshape([]))
    step, low, high = grids.symmetric_grid(of_x(s.positive), -128, 127)
    values = arranged(settled(x, step, low, high), layout)
    ours = ops.fake_quantize_symmetric_backward(grad, values, s.positive, -128, 127, axis)[1]
    exact = reference.fake_quantize_symmetric_backward(
        grad.double(), values.double(), s.positive.double(), -128, 127, axis
    )[1]
    bulky = exact.abs() > 0.01 * sums_of(grad.double(), s.positive, axis)  # channels with values beyond the range
    assert bulky.any() or values.numel() < 10
    torch.testing.assert_close(ours.double()[bulky], exact[bulky], rtol=1e-5, atol=0)
    step, _, low, high = grids.asymmetric_grid(of_x(s.negative), of_x(s.positive), 256)
    values = arranged(settled(x, step, low, high), layout)
    found = ops.fake_quantize_asymmetric_backward(grad, values, s.negative, s.positive, 256, axis)[1:]
    wanted = reference.fake_quantize_asymmetric_backward(
        grad.double(), values.double(), s.negative.double(), s.positive.double(), 256, axis
    )[1:]
    for mine, theirs in zip(found, wanted, strict=True):
        bulky = theirs.abs() > 0.01 * sums_of(grad.double(), s.positive, axis)
        torch.testing.assert_close(mine.double()[bulky], theirs[bulky], rtol=1e-5, atol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_a_gradient_is_written_over_with_the_same_bits(
    device: str, shape: tuple[int, ...], axis: int, dtype: torch.dtype, layout: str
) -> None:
    s = sample(shape, axis, dtype, layout, device)
    ops = torch.ops.lightning_nncf
    for name, settings in (
        ("symmetric", (s.positive, -8, 7, axis)),
        ("asymmetric", (s.negative, s.positive, 256, axis)),
    ):
        expected, *sums = getattr(ops, f"fake_quantize_{name}_backward")(s.grad, s.x, *settings)
        for grad in (torch.empty_like(s.x).copy_(s.grad), s.grad.contiguous().clone()):
            of_parameters = getattr(ops, f"fake_quantize_{name}_backward_")(grad, s.x, *settings)
            assert_same_bits(grad, expected)
            ours = of_parameters if isinstance(of_parameters, tuple) else (of_parameters,)
            for mine, theirs in zip(ours, sums, strict=True):
                assert_same_bits(mine, theirs)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_binarization_is_the_formula(
    device: str, shape: tuple[int, ...], axis: int, dtype: torch.dtype, layout: str
) -> None:
    s = sample(shape, axis, dtype, layout, device)
    ops = torch.ops.lightning_nncf
    for per_filter in (True, False):
        ours = ops.binarize_weights(s.x, per_filter)
        assert_values(ours, binarization.reference_weights(s.x, per_filter), s.x)
    scale, threshold = torch.tensor([1.7], device=device), -s.negative / 4
    settings = (scale, threshold, axis)
    ours = ops.binarize_activations(s.x, *settings)
    assert_values(ours, binarization.reference_activations(s.x, *settings), s.x)
    grads = ops.binarize_activations_backward(s.grad, s.x, *settings)
    expected = binarization.reference_activations_backward(s.grad, s.x, *settings)
    assert torch.equal(grads[0], expected[0])
    for ours, theirs, like in zip(grads[1:], expected[1:], (scale, threshold), strict=True):
        terms = s.grad.double().abs() * (1 + s.x.double().abs())
        assert_sums(ours, theirs.double(), terms.sum() if like is scale else sums_of(terms, like, axis), like)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(4, 8, 7, 7), (3, 1001), (1,), (), (0, 3)], ids=str)
def test_masking_is_the_formula(device: str, shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> None:
    s = sample(shape, -1, dtype, layout, device)
    logits = s.x.float().contiguous() + 0.5
    seed = torch.tensor([-1234567890123456789], device=device)
    ours = torch.ops.lightning_nncf.sample_and_mask(s.x, logits, seed)
    expected = masking.reference_masked(s.x, logits, seed)
    # an element whose odds are even to the last bit may fall to either side
    assert int((ours != expected).sum()) <= 1
    assert ours.stride() == torch.empty_like(s.x).stride()
    grads = torch.ops.lightning_nncf.sample_and_mask_backward(s.grad, s.x, logits, seed)
    theirs = masking.reference_masked_backward(s.grad, s.x, logits, seed)
    assert int((grads[0] != theirs[0]).sum()) <= 1
    torch.testing.assert_close(grads[1], theirs[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_bits_are_the_same_for_any_number_of_threads_and_any_run(device: str, layout: str) -> None:
    s = sample((8, 24, 40, 40), 1, torch.float32, layout, device)
    ops = torch.ops.lightning_nncf
    threshold = s.positive / 4
    short = [sample((13, 96, 9, 11), 1, dtype, layout, device) for dtype in DTYPES]
    calls: list[Callable[[], tuple[Tensor, ...]]] = [
        lambda: tuple(ops.fake_quantize_symmetric(each.x, each.positive, -128, 127, 1) for each in short),
        lambda: tuple(ops.fake_quantize_asymmetric(each.x, each.negative, each.positive, 256, 1) for each in short),
        lambda: ops.binarize_activations_backward(
            short[0].grad, short[0].x, short[0].positive[:, :1], short[0].positive / 4, 1
        ),
        lambda: ops.fake_quantize_symmetric_backward(s.grad, s.x, s.positive, -128, 127, 1),
        lambda: ops.fake_quantize_asymmetric_backward(s.grad, s.x, s.negative, s.positive, 256, 1),
        lambda: ops.fake_quantize_asymmetric_backward(s.grad, s.x, s.negative[:, :1], s.positive[:, :1], 256, -1),
        lambda: (ops.binarize_weights(s.x, True), ops.binarize_weights(s.x, False)),
        lambda: ops.binarize_activations_backward(s.grad, s.x, s.positive[:, :1], threshold, 1),
    ]
    threads = torch.get_num_threads()
    try:
        for call in calls:
            torch.set_num_threads(1)
            first = call()
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                for one, other in zip(first, call(), strict=True):
                    assert_same_bits(one, other)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_parameters_in_float64_are_computed_in_float64(device: str, dtype: torch.dtype) -> None:
    s = sample((4, 8, 7, 7), 1, dtype, "contiguous", device)
    settings = (s.positive.double(), -128, 127, 1)
    ours = torch.ops.lightning_nncf.fake_quantize_symmetric(s.x, *settings)
    assert_same_bits(ours, reference.fake_quantize_symmetric(s.x, *settings))
    _, grad_scale = torch.ops.lightning_nncf.fake_quantize_symmetric_backward(s.grad, s.x, *settings)
    _, expected = reference.fake_quantize_symmetric_backward(s.grad, s.x, *settings)
    torch.testing.assert_close(grad_scale, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_stays_nan_and_infinity_is_clipped(device: str, dtype: torch.dtype) -> None:
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.5] * 9, device=device, dtype=dtype)
    scale = torch.tensor([1.0], device=device)
    y = torch.ops.lightning_nncf.fake_quantize_symmetric(x, scale, -127, 127, -1)
    assert y[::4].isnan().all()
    assert y[1::4].tolist() == [1.0] * 9
    assert y[2::4].tolist() == [-1.0] * 9
    finite = x[torch.arange(x.numel()) % 4 != 0]
    grads = torch.ops.lightning_nncf.fake_quantize_symmetric_backward(
        torch.ones_like(finite), finite, scale, -127, 127, -1
    )
    assert grads[0].tolist() == [0.0, 0.0, 1.0] * 9
    assert grads[1].isfinite().all()


def test_memory_of_large_results_is_reused_and_never_shared(device: str) -> None:
    x = torch.arange(1 << 18, dtype=torch.float32, device=device) % 100
    scale = torch.tensor([127.0], device=device)
    fake_quantize = torch.ops.lightning_nncf.fake_quantize_symmetric
    first, second = (fake_quantize(x + offset, scale, -128, 127, -1) for offset in (0, 1))
    assert torch.equal(first + 1, second)
    kept = second.clone()
    del first
    third = fake_quantize(x + 2, scale, -128, 127, -1)
    assert torch.equal(second, kept)
    assert torch.equal(third, kept + 1)


def test_arguments_that_do_not_fit_are_refused(device: str) -> None:
    x = torch.ones(2, 3, device=device)
    with pytest.raises(RuntimeError, match="expected parameters with 3 values, got 2"):
        torch.ops.lightning_nncf.fake_quantize_symmetric(x, torch.ones(2, device=device), -128, 127, 1)
    with pytest.raises(RuntimeError, match="out of range"):
        torch.ops.lightning_nncf.fake_quantize_symmetric(x, torch.ones(2, device=device), -128, 127, 2)
    with pytest.raises(RuntimeError, match="floating-point"):
        torch.ops.lightning_nncf.fake_quantize_symmetric(x.int(), torch.ones(1, device=device), -128, 127, -1)
    with pytest.raises(RuntimeError, match="seed"):
        torch.ops.lightning_nncf.sample_and_mask(x, x, torch.ones(1, device=device))

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from lightning_nncf.ops import fake_quantize_asymmetric, fake_quantize_symmetric
from lightning_nncf.ops.grids import asymmetric_grid, symmetric_grid

# The oracle: fake quantization in float64 NumPy, written from the definition in the float range.
Array = NDArray[np.float64]


def _reference_symmetric_ends(scale: Array, quant_min: int, quant_max: int) -> tuple[Array, Array]:
    high = np.abs(scale) + 1e-16
    return high * quant_min / quant_max, high


def _reference_tune(low: float, width: float, levels: int) -> tuple[float, float]:
    n = levels - 1
    high = max(low + abs(width) + 1e-16, 0.0)
    low = min(low, 0.0)
    zero_point = round(-low * n / (high - low))
    if zero_point == 0:
        return 0.0, high
    if zero_point == n:
        return low, 0.0
    new_low = zero_point / (zero_point - n) * high
    new_high = (zero_point - n) / zero_point * low
    return (new_low, high) if high - new_low > new_high - low else (low, new_high)


def _reference_asymmetric_ends(low: Array, width: Array, levels: int) -> tuple[Array, Array]:
    pairs = [_reference_tune(float(a), float(b), levels) for a, b in zip(low.flat, width.flat, strict=True)]
    return (np.array([a for a, _ in pairs]).reshape(low.shape), np.array([b for _, b in pairs]).reshape(low.shape))


def _reference_forward(x: Array, low: Array, high: Array, levels: int) -> Array:
    steps_per_unit = (levels - 1) / (high - low)
    return np.round((np.clip(x, low, high) - low) * steps_per_unit) / steps_per_unit + low


def _reference_backward(
    g: Array, x: Array, low: Array, high: Array, levels: int, low_slope: float
) -> tuple[Array, Array, Array]:
    """Gradients of x, of the low end and of the range; `low_slope` is d low / d range of a symmetric range."""
    above, below = x > high, x < low
    inside = ~(above | below)
    residual = (_reference_forward(x, low, high, levels) - x) / (high - low)
    dims = tuple(dim for dim in range(x.ndim) if low.shape[dim] == 1)
    grad_range = np.sum(g * (inside * residual + above + below * low_slope), axis=dims, keepdims=True)
    return g * inside, np.sum(g * ~inside, axis=dims, keepdims=True), grad_range


BOUNDS = [(-128, 127), (-127, 127), (-64, 63), (0, 255), (-8, 7), (-2, 1)]
LAYOUTS = [((5,), -1), ((5,), 0), ((3, 4), 1), ((4, 3, 5, 5), 0), ((2, 3, 7, 7), 1), ((2, 3, 7, 7), -1), ((2, 5, 3), 2)]


def parameter_shape(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return tuple(size if dim == axis else 1 for dim, size in enumerate(shape)) if axis >= 0 else (1,) * len(shape)


def draw(shape: tuple[int, ...], axis: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Values and a gradient, and two parameters that leave values outside the range on both sides."""
    generator = torch.Generator().manual_seed(len(shape) * 10 + axis)
    x, g = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    a, b = (torch.rand(parameter_shape(shape, axis), generator=generator, dtype=torch.float64) for _ in range(2))
    return x, g, a, b


def op_shape(parameter: Tensor, axis: int) -> Tensor:
    return (parameter if axis >= 0 else parameter.reshape(1)).clone().requires_grad_()


def assert_equal(ours: Tensor | None, expected: np.ndarray) -> None:
    assert ours is not None
    np.testing.assert_allclose(ours.detach().numpy().reshape(expected.shape), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
@pytest.mark.parametrize(("quant_min", "quant_max"), BOUNDS)
def test_symmetric_values_and_gradients_are_those_of_the_oracle(
    shape: tuple[int, ...], axis: int, quant_min: int, quant_max: int
) -> None:
    x, g, scale, _ = draw(shape, axis)
    scale = (scale + 0.5) * torch.where(torch.arange(scale.numel()).reshape(scale.shape) % 2 == 1, -1.0, 1.0)
    ours_x, ours_scale = x.clone().requires_grad_(), op_shape(scale, axis)
    y = fake_quantize_symmetric(ours_x, ours_scale, quant_min, quant_max, axis)
    y.backward(g)
    low, high = _reference_symmetric_ends(scale.numpy(), quant_min, quant_max)
    levels = quant_max - quant_min + 1
    assert_equal(y, _reference_forward(x.numpy(), low, high, levels))
    grad_x, _, grad_range = _reference_backward(g.numpy(), x.numpy(), low, high, levels, quant_min / quant_max)
    assert_equal(ours_x.grad, grad_x)
    assert_equal(ours_scale.grad, grad_range * np.sign(scale.numpy()))
    assert ours_scale.grad is not None
    assert ours_scale.grad.shape == ours_scale.shape


@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
@pytest.mark.parametrize("levels", [256, 255, 128, 16, 4])
@pytest.mark.parametrize("offset", [-2.0, -0.7, 0.0, 0.3], ids=["below", "across", "at", "above"])
def test_asymmetric_values_and_gradients_are_those_of_the_oracle(
    shape: tuple[int, ...], axis: int, levels: int, offset: float
) -> None:
    x, g, low, width = draw(shape, axis)
    low, width = low * 0.5 + offset, width + 0.4
    ours_x, ours_low, ours_range = x.clone().requires_grad_(), op_shape(low, axis), op_shape(width, axis)
    y = fake_quantize_asymmetric(ours_x, ours_low, ours_range, levels, axis)
    y.backward(g)
    tuned_low, tuned_high = _reference_asymmetric_ends(low.numpy(), width.numpy(), levels)
    assert_equal(y, _reference_forward(x.numpy(), tuned_low, tuned_high, levels))
    expected = _reference_backward(g.numpy(), x.numpy(), tuned_low, tuned_high, levels, 0.0)
    for ours, theirs in zip((ours_x, ours_low, ours_range), expected, strict=True):
        assert_equal(ours.grad, theirs)


def test_values_worked_by_hand() -> None:
    x = torch.tensor([-3.0, -1.0, -0.26, 0.0, 0.24, 0.26, 0.9, 3.0])
    y = fake_quantize_symmetric(x, torch.tensor([1.5]), -4, 3, -1)  # step 0.5, from -2
    assert y.tolist() == [-2.0, -1.0, -0.5, 0.0, 0.0, 0.5, 1.0, 1.5]


def test_ties_go_to_the_even_integer_also_on_a_narrow_grid() -> None:
    x = torch.tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
    y = fake_quantize_symmetric(x, torch.tensor([127.0]), -127, 127, -1)
    assert y.tolist() == [-2.0, -2.0, 0.0, 0.0, 2.0, 2.0]


def test_an_asymmetric_grid_moves_the_end_that_leaves_the_larger_range() -> None:
    # levels - 1 = 3: -1 / 2.5 * 3 = 1.2, zero point 1; keeping high 1.5 gives low -0.75, keeping low -1 gives high 2
    step, zero_point, low, high = asymmetric_grid(torch.tensor([-1.0]), torch.tensor([2.5]), 4)
    assert [part.item() for part in (step, zero_point, low, high)] == [1.0, 1.0, -1.0, 2.0]


def test_a_range_that_barely_passes_zero_is_cut_there() -> None:
    step, zero_point, low, high = asymmetric_grid(torch.tensor([-0.001]), torch.tensor([1.021]), 256)
    assert zero_point.item() == 0.0
    assert low.item() == 0.0
    assert high.item() == pytest.approx(1.02)
    assert step.item() == pytest.approx(1.02 / 255)


def numeric_slope(function: object, at: Tensor, delta: float = 1e-4) -> float:
    assert callable(function)
    return float((function(at + delta) - function(at - delta)).sum() / (2 * delta))


def test_where_all_values_saturate_the_scale_gradient_is_the_slope() -> None:
    x = torch.tensor([5.0, 6.0, -5.0, -7.0], dtype=torch.float64)
    scale = torch.tensor([1.3], dtype=torch.float64, requires_grad=True)
    fake_quantize_symmetric(x, scale, -8, 7, -1).sum().backward()
    slope = numeric_slope(lambda value: fake_quantize_symmetric(x, value, -8, 7, -1), scale.detach())
    assert scale.grad is not None
    assert scale.grad.item() == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("name", ["low", "range"])
def test_where_all_values_saturate_the_asymmetric_gradients_are_the_slopes(name: str) -> None:
    # low and range sit on the grid: 4 levels from -1 to 2; the tuning counts as the identity, so step around it
    x = torch.tensor([5.0, 6.0, -5.0], dtype=torch.float64)
    low = torch.tensor([-1.0], dtype=torch.float64, requires_grad=True)
    width = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    fake_quantize_asymmetric(x, low, width, 4, -1).sum().backward()
    ends = {"low": lambda d: (low + d, low + width + d), "range": lambda d: (low, low + width + d)}[name]

    def clamped(d: float) -> Tensor:
        bottom, top = ends(d)
        return torch.minimum(torch.maximum(x, bottom), top).sum().detach()

    slope = float((clamped(1e-4) - clamped(-1e-4)) / 2e-4)
    grad = (low if name == "low" else width).grad
    assert grad is not None
    assert grad.item() == pytest.approx(slope, abs=1e-6)


def test_a_value_at_the_end_of_the_range_counts_as_inside() -> None:
    # initialization puts the scale on the largest weight: that weight must go on learning
    for value in (0.1, 0.3, 0.7, 1.1, 3.3):
        x = torch.tensor([value], requires_grad=True)
        fake_quantize_symmetric(x, torch.tensor([value]), -127, 127, -1).sum().backward()
        assert x.grad is not None
        assert x.grad.item() == 1.0


finite = st.floats(-100, 100, width=32)
shapes = st.lists(finite, min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(values=shapes, scale=st.floats(0.001953125, 100, width=32), bounds=st.sampled_from(BOUNDS))
def test_symmetric_is_idempotent_has_few_values_and_keeps_zero(
    values: list[float], scale: float, bounds: tuple[int, int]
) -> None:
    x, parameter = torch.tensor([*values, 0.0]), torch.tensor([scale])
    y = fake_quantize_symmetric(x, parameter, *bounds, -1)
    assert torch.equal(fake_quantize_symmetric(y, parameter, *bounds, -1), y)
    assert len(y.unique()) <= bounds[1] - bounds[0] + 1
    assert y[-1] == 0
    step, low, high = symmetric_grid(parameter, *bounds)
    assert bool((y - x.clamp(low, high)).abs().max() <= step * 0.5001 + 1e-5)


@settings(max_examples=60, deadline=None)
@given(
    values=shapes,
    low=st.floats(-50, 50, width=32),
    width=st.floats(0.001953125, 100, width=32),
    levels=st.sampled_from([4, 16, 128, 255, 256]),
)
def test_asymmetric_is_idempotent_has_few_values_and_keeps_zero(
    values: list[float], low: float, width: float, levels: int
) -> None:
    x, parameters = torch.tensor([*values, 0.0]), (torch.tensor([low]), torch.tensor([width]))
    y = fake_quantize_asymmetric(x, *parameters, levels, -1)
    assert torch.equal(fake_quantize_asymmetric(y, *parameters, levels, -1), y)
    assert len(y.unique()) <= levels
    assert y[-1] == 0
    step, zero_point, tuned_low, tuned_high = asymmetric_grid(*parameters, levels)
    assert 0 <= zero_point.item() <= levels - 1
    assert (tuned_high - tuned_low).item() == pytest.approx((levels - 1) * step.item(), rel=1e-5)
    assert tuned_low.item() <= 0 <= tuned_high.item()


def test_a_scale_of_zero_gives_finite_values_and_gradients() -> None:
    x, scale = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True), torch.zeros(1, requires_grad=True)
    y = fake_quantize_symmetric(x, scale, -128, 127, -1)
    y.sum().backward()
    assert y.abs().max() < 1e-15
    assert x.grad is not None
    assert scale.grad is not None
    assert bool(torch.isfinite(x.grad).all() & torch.isfinite(scale.grad).all())


def test_infinite_values_saturate_and_leave_the_gradients_finite() -> None:
    x = torch.tensor([float("inf"), -float("inf"), 0.5], requires_grad=True)
    scale = torch.tensor([1.0], requires_grad=True)
    y = fake_quantize_symmetric(x, scale, -128, 127, -1)
    y.sum().backward()
    assert y[:2].tolist() == [1.0, -1.0078740119934082]
    assert scale.grad is not None
    assert bool(torch.isfinite(scale.grad).all())


def test_not_a_number_stays_one() -> None:
    x = torch.tensor([float("nan"), 0.5])
    assert fake_quantize_symmetric(x, torch.ones(1), -128, 127, -1).isnan().tolist() == [True, False]
    assert fake_quantize_asymmetric(x, -torch.ones(1), torch.ones(1) * 2, 256, -1).isnan().tolist() == [True, False]


@pytest.mark.parametrize("axis", [0, 1])
def test_parameters_of_the_wrong_size_are_refused(axis: int) -> None:
    with pytest.raises(ValueError, match=rf"`axis` {axis} needs parameters with {(4, 3)[axis]} values, got \(1, 7\)"):
        fake_quantize_symmetric(torch.ones(4, 3), torch.ones(1, 7), -128, 127, axis)

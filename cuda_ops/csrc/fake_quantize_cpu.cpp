// Fake quantization on the CPU: one pass over memory each way, the clip mask recomputed from the input in backward.
//
// Work is cut into pieces whose size depends on the shape alone; every piece leaves its partial sums in its own slot,
// and the slots are added in order. The result is the same for any number of threads.

#include <limits>
#include <memory>
#include <vector>

#include "grid.h"
#include "simd_cpu.h"
#include "tensors_cpu.h"

namespace lightning_nncf {
namespace {

constexpr int64_t kPiece = 4096;   // elements of a piece of a row

// Sums of one piece: of the gradient times the residual `x - y`, and of the gradients outside the range.
template <typename A>
struct Sums {
  A inside = 0;
  A above = 0;
  A below = 0;
};

// The forward divides in float32, so that it equals the reference bit for bit; half types are rounded more coarsely
// than a reciprocal errs, and it is what keeps them at the speed of memory.
template <typename T>
constexpr bool kDivides = !std::is_same_v<T, half_t> && !std::is_same_v<T, bfloat16_t>;

// Quantizes and dequantizes; `divisor` is the step, or its reciprocal. NaN stays NaN.
template <bool kSymmetric, bool kDivide, typename V>
inline V fake_quantized(V x, V divisor, V step, V quant_min, V quant_max) {
  const V ticks = V::min(quant_max, V::max(quant_min, kDivide ? x / divisor : x * divisor));
  // A symmetric grid keeps the sign of a negative zero; an asymmetric one adds its zero point and loses it.
  return (kSymmetric ? V::round(ticks) : V::round(ticks) + V::set(0)) * step;
}

// Quantizes [first, last) as far as whole vectors go, two at a time while there are two.
template <bool kSymmetric, typename V, typename T, typename A>
inline void forward_part(const T* x, T* y, int64_t first, int64_t last, const Grid<A>& grid) {
  constexpr bool kDivide = kDivides<T>;
  const V step = V::set(grid.step), divisor = V::set(kDivide ? grid.step : A(1) / grid.step);
  const V quant_min = V::set(grid.quant_min), quant_max = V::set(grid.quant_max);
  const auto quantize = [&](V value) {
    return fake_quantized<kSymmetric, kDivide>(value, divisor, step, quant_min, quant_max);
  };
  int64_t i = first;
  for (; i + 2 * V::kWidth <= last; i += 2 * V::kWidth) {
    const Pair<V> values = load_pair<V>(x + i);
    store_pair(Pair<V>{quantize(values.first), quantize(values.second)}, y + i);
  }
  if (i + V::kWidth <= last) quantize(V::load(x + i)).store(y + i);
}

// A row that is no whole number of vectors ends with a vector over its last elements, some of them seen before.
template <bool kSymmetric, typename T, typename A>
inline void forward_row(const T* x, T* y, int64_t count, const Grid<A>& grid) {
  using V = Vector<A>;
  if (count < V::kWidth) {
    for (int64_t i = 0; i < count; ++i) forward_part<kSymmetric, Lanes<A, 1>>(x, y, i, i + 1, grid);
    return;
  }
  forward_part<kSymmetric, V>(x, y, 0, count, grid);
  if (count % V::kWidth != 0) forward_part<kSymmetric, V>(x, y, count - V::kWidth, count, grid);
}

// One vector of the backward: stores the gradient of x and returns the sums of its lanes. Where that gradient takes the
// place of the result's, only what changes is stored.
template <typename V>
struct Parts {
  V inside, above, below;
};

template <typename V, typename T>
inline Parts<V> backward_vector(const T* grad, const T* x, T* grad_x, V reciprocal, V step, V low, V high) {
  const V value = V::load(x);
  const V g = V::load(grad);
  const auto over = value > high;
  const auto under = low > value;
  const auto outside = V::either(over, under);
  const V passed = V::drop(outside, g);
  if (grad != grad_x || V::any(outside)) passed.store_unrounded(grad_x);
  const V clipped = V::min(high, V::max(low, value));
  const V residual = V::minus_product(clipped, V::round(clipped * reciprocal), step);
  return {passed * residual, V::keep(over, g), V::keep(under, g)};
}

template <typename V, typename T, typename A>
inline Sums<A> backward_part(const T* grad, const T* x, T* grad_x, int64_t count, const Grid<A>& grid) {
  const V step = V::set(grid.step), reciprocal = V::set(A(1) / grid.step);
  const V low = V::set(grid.low), high = V::set(grid.high);
  V inside = V::set(0), above = V::set(0), below = V::set(0);
  int64_t i = 0;
  for (; i + V::kWidth <= count; i += V::kWidth) {
    const Parts<V> parts = backward_vector(grad + i, x + i, grad_x + i, reciprocal, step, low, high);
    inside = inside + parts.inside;
    above = above + parts.above;
    below = below + parts.below;
  }
  if (i < count) {
    const int64_t at = count - V::kWidth;
    const Parts<V> parts = backward_vector(grad + at, x + at, grad_x + at, reciprocal, step, low, high);
    const auto fresh = V::last(int(count - i));
    inside = inside + V::keep(fresh, parts.inside);
    above = above + V::keep(fresh, parts.above);
    below = below + V::keep(fresh, parts.below);
  }
  return {inside.sum(), above.sum(), below.sum()};
}

template <typename T, typename A>
inline Sums<A> backward_row(const T* grad, const T* x, T* grad_x, int64_t count, const Grid<A>& grid) {
  using V = Vector<A>;
  return count < V::kWidth ? backward_part<Lanes<A, 1>>(grad, x, grad_x, count, grid)
                           : backward_part<V>(grad, x, grad_x, count, grid);
}

// The grids of all channels, one array for each part, for tensors whose channels are next to each other.
template <typename A>
struct Columns {
  std::vector<A> step, reciprocal, low, high, quant_min, quant_max;

  explicit Columns(const std::vector<Grid<A>>& grids) {
    for (const Grid<A>& grid : grids) {
      step.push_back(grid.step);
      reciprocal.push_back(A(1) / grid.step);
      low.push_back(grid.low);
      high.push_back(grid.high);
      quant_min.push_back(grid.quant_min);
      quant_max.push_back(grid.quant_max);
    }
  }
};

// The same grids in the order in which `load_pair` brings the values of `T`.
template <typename T, typename A>
std::vector<Grid<A>> paired(const std::vector<Grid<A>>& grids) {
  constexpr int kWidth = Vector<A>::kWidth;
  std::vector<Grid<A>> ordered = grids;
  for (size_t c = 0; c + 2 * kWidth <= grids.size(); c += 2 * kWidth) {
    for (int i = 0; i < 2 * kWidth; ++i) ordered[c + pair_position<Vector<A>, T>(i)] = grids[c + i];
  }
  return ordered;
}

template <bool kSymmetric, typename T, typename A>
inline void forward_columns(const T* x, T* y, int64_t count, const Columns<A>& columns) {
  using V = Vector<A>;
  using One = Lanes<A, 1>;
  constexpr bool kDivide = kDivides<T>;
  const A* divisors = kDivide ? columns.step.data() : columns.reciprocal.data();
  const A* steps = columns.step.data();
  const A* mins = columns.quant_min.data();
  const A* maxs = columns.quant_max.data();
  const V lowest = V::set(mins[0]), highest = V::set(maxs[0]);
  const auto quantize = [&](V value, int64_t c) {
    return fake_quantized<kSymmetric, kDivide>(value, V::load(divisors + c), V::load(steps + c),
                                               kSymmetric ? lowest : V::load(mins + c),
                                               kSymmetric ? highest : V::load(maxs + c));
  };
  int64_t c = 0;
  for (; c + 2 * V::kWidth <= count; c += 2 * V::kWidth) {
    const Pair<V> values = load_pair<V>(x + c);
    store_pair(Pair<V>{quantize(values.first, c), quantize(values.second, c + V::kWidth)}, y + c);
  }
  if (c + V::kWidth <= count) {
    quantize(V::load(x + c), c).store(y + c);
    c += V::kWidth;
  }
  for (; c < count; ++c) {
    fake_quantized<kSymmetric, kDivide>(One::load(x + c), One::set(divisors[c]), One::set(steps[c]), One::set(mins[c]),
                                        One::set(maxs[c]))
        .store(y + c);
  }
}

// Rows of neighbouring channels taken at once: more would be too many streams of memory for wide types.
template <typename T>
constexpr int64_t kTogether = sizeof(T) == 2 ? 8 : 2;

// Goes down `rows` rows vector by vector, so that the grids and the sums are loaded once for all of them.
template <typename V, typename T, typename A>
inline int64_t backward_columns(const T* grad, const T* x, T* grad_x, int64_t c, int64_t channels, int64_t rows,
                                const Columns<A>& columns, A* inside, A* above, A* below) {
  for (; c + V::kWidth <= channels; c += V::kWidth) {
    const V reciprocal = V::load(columns.reciprocal.data() + c), step = V::load(columns.step.data() + c);
    const V low = V::load(columns.low.data() + c), high = V::load(columns.high.data() + c);
    V in = V::load(inside + c), over = V::load(above + c), under = V::load(below + c);
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t at = row * channels + c;
      const Parts<V> parts = backward_vector(grad + at, x + at, grad_x + at, reciprocal, step, low, high);
      in = in + parts.inside;
      over = over + parts.above;
      under = under + parts.below;
    }
    in.store(inside + c);
    over.store(above + c);
    under.store(below + c);
  }
  return c;
}

// Calls `body(begin, count, channel)` for the parts of rows in [begin, end) of the memory order.
template <typename F>
inline void each_row(int64_t begin, int64_t end, const Layout& layout, const F& body) {
  int64_t row = begin / layout.inner;
  int64_t channel = row % layout.channels;
  for (int64_t at = begin; at < end;) {
    const int64_t stop = std::min(end, (row + 1) * layout.inner);
    body(at, stop - at, channel);
    at = stop;
    ++row;
    if (++channel == layout.channels) channel = 0;
  }
}

template <typename T, typename A, bool kSymmetric>
void forward(const T* x, T* y, const Layout& layout, const std::vector<Grid<A>>& grids) {
  if (layout.inner > 1 || layout.channels == 1) {
    return torch::stable::parallel_for(0, layout.numel(), kGrain, [&](int64_t begin, int64_t end) {
      each_row(begin, end, layout, [&](int64_t at, int64_t count, int64_t channel) {
        forward_row<kSymmetric>(x + at, y + at, count, grids[channel]);
      });
    });
  }
  const Columns<A> columns(paired<T>(grids));
  const int64_t grain = std::max<int64_t>(1, kGrain / layout.channels);
  torch::stable::parallel_for(0, layout.outer, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      forward_columns<kSymmetric>(x + row * layout.channels, y + row * layout.channels, layout.channels, columns);
    }
  });
}

template <typename A>
inline void add(Sums<double>& total, const Sums<A>& part) {
  total.inside += double(part.inside);
  total.above += double(part.above);
  total.below += double(part.below);
}

template <typename T, typename A>
std::vector<Sums<double>> backward_rows(const T* grad, const T* x, T* grad_x, const Layout& layout,
                                        const std::vector<Grid<A>>& grids) {
  const int64_t rows = layout.outer * layout.channels;
  const int64_t pieces = (layout.inner + kPiece - 1) / kPiece;
  const int64_t length = std::min(layout.inner, kPiece);
  const auto parts = std::make_unique<Sums<A>[]>(rows * pieces);
  const int64_t grain = std::max<int64_t>(1, kGrain / length);
  torch::stable::parallel_for(0, rows * pieces, grain, [&](int64_t begin, int64_t end) {
    int64_t row = begin / pieces, piece = begin % pieces, channel = row % layout.channels;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = row * layout.inner + piece * length;
      const int64_t count = std::min(length, layout.inner - piece * length);
      parts[i] = backward_row(grad + at, x + at, grad_x + at, count, grids[channel]);
      if (++piece == pieces) {
        piece = 0;
        ++row;
        if (++channel == layout.channels) channel = 0;
      }
    }
  });
  std::vector<Sums<double>> totals(layout.channels);
  for (int64_t row = 0, channel = 0; row < rows; ++row) {
    for (int64_t piece = 0; piece < pieces; ++piece) add(totals[channel], parts[row * pieces + piece]);
    if (++channel == layout.channels) channel = 0;
  }
  return totals;
}

template <typename T, typename A>
std::vector<Sums<double>> backward_all_columns(const T* grad, const T* x, T* grad_x, const Layout& layout,
                                               const std::vector<Grid<A>>& grids) {
  const Columns<A> columns(grids);
  const int64_t channels = layout.channels;
  const int64_t length = std::clamp<int64_t>(kGrain / channels, 16, 512);  // rows of a piece
  const int64_t pieces = (layout.outer + length - 1) / length;
  std::vector<A> parts(pieces * channels * 3, A(0));
  const int64_t grain = std::max<int64_t>(1, kGrain / (length * channels));
  torch::stable::parallel_for(0, pieces, grain, [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece) {
      A* inside = parts.data() + piece * channels * 3;
      A* above = inside + channels;
      A* below = above + channels;
      const int64_t last = std::min(layout.outer, (piece + 1) * length);
      for (int64_t row = piece * length; row < last; row += kTogether<T>) {
        const int64_t rows = std::min(kTogether<T>, last - row);
        const T* g = grad + row * channels;
        const T* values = x + row * channels;
        T* result = grad_x + row * channels;
        const int64_t done =
            backward_columns<Vector<A>>(g, values, result, 0, channels, rows, columns, inside, above, below);
        backward_columns<Lanes<A, 1>>(g, values, result, done, channels, rows, columns, inside, above, below);
      }
    }
  });
  std::vector<Sums<double>> totals(channels);
  for (int64_t piece = 0; piece < pieces; ++piece) {
    const A* inside = parts.data() + piece * channels * 3;
    for (int64_t c = 0; c < channels; ++c) {
      add(totals[c], Sums<A>{inside[c], inside[channels + c], inside[2 * channels + c]});
    }
  }
  return totals;
}

// Sums in units of the gradient: the residuals divided by the step, and y - x instead of x - y.
template <typename T, typename A>
std::vector<Sums<double>> backward(const T* grad, const T* x, T* grad_x, const Layout& layout,
                                   const std::vector<Grid<A>>& grids) {
  auto totals = layout.inner == 1 && layout.channels > 1 ? backward_all_columns<T, A>(grad, x, grad_x, layout, grids)
                                                         : backward_rows<T, A>(grad, x, grad_x, layout, grids);
  for (size_t c = 0; c < totals.size(); ++c) totals[c].inside /= -double(grids[c].step);
  return totals;
}

template <bool kSymmetric, typename A>
std::vector<Grid<A>> grids_of(const std::vector<A>& first, const std::vector<A>& second, int64_t quant_min,
                              int64_t quant_max) {
  std::vector<Grid<A>> grids(first.size());
  for (size_t c = 0; c < first.size(); ++c) {
    if constexpr (kSymmetric) {
      grids[c] = symmetric_grid(first[c], quant_min, quant_max);
    } else {
      grids[c] = asymmetric_grid(first[c], second[c], quant_max - quant_min + 1);
    }
    if (grids[c].step != grids[c].step) grids[c].step = std::numeric_limits<A>::quiet_NaN();
  }
  return grids;
}

template <bool kSymmetric>
Tensor run_forward(const Tensor& x, const Tensor& first, const Tensor& second, int64_t quant_min, int64_t quant_max,
                   int64_t axis) {
  check_parameter(first, channels_of(x, axis));
  if (!kSymmetric) check_parameter(second, channels_of(x, axis));
  if (x.numel() == 0) return torch::stable::empty_like(x);
  if (widens_to_double(x, first)) {
    const Tensor wide = torch::stable::to(x, ScalarType::Double);
    return in_type_of(run_forward<kSymmetric>(wide, first, second, quant_min, quant_max, axis), x);
  }
  Layout layout;
  const Tensor source = dense(x, axis, layout);
  Tensor result = empty_like_dense(source);
  dispatch(x, [&](auto stored, auto computed) {
    using T = decltype(stored);
    using A = decltype(computed);
    const std::vector<A> others = kSymmetric ? std::vector<A>{} : values_of<A>(second);
    const auto grids = grids_of<kSymmetric, A>(values_of<A>(first), others, quant_min, quant_max);
    forward<T, A, kSymmetric>(static_cast<const T*>(source.data_ptr()), static_cast<T*>(result.data_ptr()), layout,
                              grids);
  });
  return result;
}

struct Gradients {
  Tensor of_x;
  std::vector<Sums<double>> sums;  // of every channel
};

// The gradient of `x` takes the place of `grad` where that is wished and types and strides are the same.
template <bool kSymmetric>
Gradients run_backward(const Tensor& grad, const Tensor& x, const Tensor& first, const Tensor& second,
                       int64_t quant_min, int64_t quant_max, int64_t axis, bool in_place) {
  const int64_t channels = channels_of(x, axis);
  check_parameter(first, channels);
  if (!kSymmetric) check_parameter(second, channels);
  if (x.numel() == 0) return {torch::stable::empty_like(x), std::vector<Sums<double>>(channels)};
  if (widens_to_double(x, first)) {
    const Tensor wide = torch::stable::to(x, ScalarType::Double);
    auto [of_x, sums] = run_backward<kSymmetric>(grad, wide, first, second, quant_min, quant_max, axis, false);
    return {in_type_of(of_x, x), sums};
  }
  Layout layout;
  const Tensor source = dense(x, axis, layout);
  const Tensor upstream = in_layout_of(grad, source);
  Gradients result{in_place ? upstream : empty_like_dense(source), {}};
  dispatch(x, [&](auto stored, auto computed) {
    using T = decltype(stored);
    using A = decltype(computed);
    const std::vector<A> others = kSymmetric ? std::vector<A>{} : values_of<A>(second);
    const auto grids = grids_of<kSymmetric, A>(values_of<A>(first), others, quant_min, quant_max);
    result.sums = backward<T, A>(static_cast<const T*>(upstream.data_ptr()), static_cast<const T*>(source.data_ptr()),
                                 static_cast<T*>(result.of_x.data_ptr()), layout, grids);
  });
  return result;
}

// Puts a result into the tensor that it was to replace, if it is not there already.
void put(const Tensor& grad, const Tensor& result) {
  if (grad.numel() == 0 || grad.data_ptr() == result.data_ptr()) return;
  Tensor target = grad;
  torch::stable::copy_(target, result);
}

Tensor symmetric(const Tensor& x, const Tensor& scale, int64_t quant_min, int64_t quant_max, int64_t axis) {
  return run_forward<true>(x, scale, scale, quant_min, quant_max, axis);
}

Tensor scale_gradient(const std::vector<Sums<double>>& sums, const Tensor& scale, int64_t quant_min,
                      int64_t quant_max) {
  std::vector<double> values = values_of<double>(scale);
  const double ratio = double(quant_min) / double(quant_max);
  for (size_t c = 0; c < values.size(); ++c) {
    values[c] = sign_of(values[c]) *
                (sums[c].inside / double(quant_max - quant_min) + sums[c].above + sums[c].below * ratio);
  }
  return like_parameter(scale, values);
}

std::tuple<Tensor, Tensor> symmetric_backward(const Tensor& grad, const Tensor& x, const Tensor& scale,
                                              int64_t quant_min, int64_t quant_max, int64_t axis) {
  const auto [of_x, sums] = run_backward<true>(grad, x, scale, scale, quant_min, quant_max, axis, false);
  return {of_x, scale_gradient(sums, scale, quant_min, quant_max)};
}

Tensor symmetric_backward_in_place(const Tensor& grad, const Tensor& x, const Tensor& scale, int64_t quant_min,
                                   int64_t quant_max, int64_t axis) {
  const auto [of_x, sums] = run_backward<true>(grad, x, scale, scale, quant_min, quant_max, axis, true);
  put(grad, of_x);
  return scale_gradient(sums, scale, quant_min, quant_max);
}

Tensor asymmetric(const Tensor& x, const Tensor& input_low, const Tensor& input_range, int64_t levels, int64_t axis) {
  return run_forward<false>(x, input_low, input_range, 0, levels - 1, axis);
}

std::tuple<Tensor, Tensor> range_gradients(const std::vector<Sums<double>>& sums, const Tensor& input_low,
                                           const Tensor& input_range, int64_t levels) {
  std::vector<double> low(sums.size());
  std::vector<double> range = values_of<double>(input_range);
  for (size_t c = 0; c < sums.size(); ++c) {
    low[c] = sums[c].above + sums[c].below;
    range[c] = sign_of(range[c]) * (sums[c].inside / double(levels - 1) + sums[c].above);
  }
  return {like_parameter(input_low, low), like_parameter(input_range, range)};
}

std::tuple<Tensor, Tensor, Tensor> asymmetric_backward(const Tensor& grad, const Tensor& x, const Tensor& input_low,
                                                       const Tensor& input_range, int64_t levels, int64_t axis) {
  const auto [of_x, sums] = run_backward<false>(grad, x, input_low, input_range, 0, levels - 1, axis, false);
  const auto [of_low, of_range] = range_gradients(sums, input_low, input_range, levels);
  return {of_x, of_low, of_range};
}

std::tuple<Tensor, Tensor> asymmetric_backward_in_place(const Tensor& grad, const Tensor& x, const Tensor& input_low,
                                                        const Tensor& input_range, int64_t levels, int64_t axis) {
  const auto [of_x, sums] = run_backward<false>(grad, x, input_low, input_range, 0, levels - 1, axis, true);
  put(grad, of_x);
  return range_gradients(sums, input_low, input_range, levels);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lightning_nncf, CPU, m) {
  m.impl("fake_quantize_symmetric", TORCH_BOX(&symmetric));
  m.impl("fake_quantize_symmetric_backward", TORCH_BOX(&symmetric_backward));
  m.impl("fake_quantize_symmetric_backward_", TORCH_BOX(&symmetric_backward_in_place));
  m.impl("fake_quantize_asymmetric", TORCH_BOX(&asymmetric));
  m.impl("fake_quantize_asymmetric_backward", TORCH_BOX(&asymmetric_backward));
  m.impl("fake_quantize_asymmetric_backward_", TORCH_BOX(&asymmetric_backward_in_place));
}

}  // namespace lightning_nncf

// Binarization on the CPU: weights by their sign and mean magnitude, activations by a scale and a threshold.

#include <memory>

#include "tensors_cpu.h"

namespace lightning_nncf {
namespace {

constexpr int64_t kBlock = 512;
constexpr int64_t kPiece = 16384;

// The sum of magnitudes, in float64 so that the mean is the reference's to the last bit of float32.
template <typename T, typename A>
double magnitude(const T* x, int64_t count) {
  double total = 0;
  for (int64_t at = 0; at < count; at += kBlock) {
    const int64_t block = std::min(kBlock, count - at);
    alignas(64) A wide[kBlock];
    widen(x + at, wide, block);
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < block; ++i) total += double(std::fabs(wide[i]));
  }
  return total;
}

template <typename T, typename A>
void write_signs(const T* x, T* y, int64_t count, double mean) {
  T plus, minus;
  const A above = A(mean), below = -A(mean);
  narrow(&above, &plus, 1);
  narrow(&below, &minus, 1);
  for (int64_t at = 0; at < count; at += kBlock) {
    const int64_t block = std::min(kBlock, count - at);
    alignas(64) A wide[kBlock];
    widen(x + at, wide, block);
    for (int64_t i = 0; i < block; ++i) y[at + i] = wide[i] > A(0) ? plus : minus;
  }
}

Tensor binarize_weights(const Tensor& x, bool per_filter) {
  if (x.numel() == 0) return torch::stable::empty_like(x);
  Layout layout;
  const int64_t axis = per_filter && x.dim() > 0 ? 0 : -1;
  Tensor source = dense(x, axis, layout);
  if (layout.outer != 1) {
    source = packed(x);
    describe(source, axis, layout);
  }
  Tensor result = empty_like_dense(source);
  dispatch(x, [&](auto stored, auto compute) {
    using T = decltype(stored);
    using A = decltype(compute);
    const T* from = static_cast<const T*>(source.data_ptr());
    T* to = static_cast<T*>(result.data_ptr());
    const int64_t length = layout.inner;
    if (layout.channels > 1) {
      const int64_t grain = std::max<int64_t>(1, kGrain / length);
      torch::stable::parallel_for(0, layout.channels, grain, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          const T* values = from + row * length;
          write_signs<T, A>(values, to + row * length, length, magnitude<T, A>(values, length) / double(length));
        }
      });
      return;
    }
    const int64_t pieces = (length + kPiece - 1) / kPiece;
    const auto parts = std::make_unique<double[]>(pieces);
    const auto each = [&](const auto& body) {
      torch::stable::parallel_for(0, pieces, 2, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) body(i, i * kPiece, std::min(kPiece, length - i * kPiece));
      });
    };
    each([&](int64_t i, int64_t at, int64_t count) { parts[i] = magnitude<T, A>(from + at, count); });
    double total = 0;
    for (int64_t i = 0; i < pieces; ++i) total += parts[i];
    each([&](int64_t, int64_t at, int64_t count) {
      write_signs<T, A>(from + at, to + at, count, total / double(length));
    });
  });
  if (same_strides(result, x)) return result;
  Tensor restored = torch::stable::empty_like(x);
  torch::stable::copy_(restored, result);
  return restored;
}

// Values in rows of one channel have one threshold (kApart 0), neighbouring channels one each (kApart 1).
template <int kApart, typename A>
inline void activate(A* values, int64_t count, A scale, const A* thresholds) {
  for (int64_t i = 0; i < count; ++i) values[i] = values[i] > thresholds[kApart * i] * scale ? scale : A(0);
}

template <typename A>
struct Slopes {
  A scale = 0;
  A threshold = 0;
};

template <typename A>
inline Slopes<A> slopes(A grad, A value, A scale, A threshold) {
  const A inside = value <= scale ? A(value > threshold * scale) - value / scale : A(1);
  return {grad * inside, value > A(0) && value < scale ? -grad : A(0)};
}

template <typename A>
inline A passed(A grad, A value, A scale) {
  return value >= A(0) && value <= scale ? grad : A(0);
}

template <typename A>
inline Slopes<A> differentiate_row(A* grads, const A* values, int64_t count, A scale, A threshold) {
  A of_scale = 0, of_threshold = 0;
#pragma omp simd reduction(+ : of_scale, of_threshold)
  for (int64_t i = 0; i < count; ++i) {
    const Slopes<A> both = slopes(grads[i], values[i], scale, threshold);
    of_scale += both.scale;
    of_threshold += both.threshold;
    grads[i] = passed(grads[i], values[i], scale);
  }
  return {of_scale, of_threshold};
}

template <typename A>
inline void differentiate_columns(A* grads, const A* values, int64_t count, A scale, const A* thresholds,
                                  A* of_scale, A* of_threshold) {
#pragma omp simd
  for (int64_t c = 0; c < count; ++c) {
    const Slopes<A> both = slopes(grads[c], values[c], scale, thresholds[c]);
    of_scale[c] += both.scale;
    of_threshold[c] += both.threshold;
    grads[c] = passed(grads[c], values[c], scale);
  }
}

// The thresholds of a tensor. Where rows of channels are short and come again, every place in a row counts as a channel
// of its own, with a threshold of its own: `layout` is changed to that.
template <typename A>
std::vector<A> spread(const Tensor& threshold, Layout& layout) {
  std::vector<A> thresholds = values_of<A>(threshold);
  const int64_t inner = layout.inner;
  if (inner == 1 || inner > kShortRow || layout.channels == 1 || layout.outer == 1) return thresholds;
  std::vector<A> spread(layout.channels * inner);
  for (int64_t c = 0; c < layout.channels; ++c) std::fill_n(spread.begin() + c * inner, inner, thresholds[c]);
  layout.channels *= inner;
  layout.inner = 1;
  return spread;
}

// Cuts a tensor into pieces of rows, or of rows of columns, whose number depends on its shape alone.
struct Plan {
  bool columns;
  int64_t slots;   // partial sums
  int64_t length;  // elements of a piece of a row, or rows of a piece of columns
  int64_t pieces;  // of a row, or of all columns
  int64_t blocks;  // of columns
  int64_t units;   // pieces in all

  explicit Plan(const Layout& layout) {
    columns = layout.inner == 1 && layout.channels > 1;
    if (columns) {
      length = std::clamp<int64_t>(kGrain / layout.channels, 16, 512);
      pieces = (layout.outer + length - 1) / length;
      blocks = (layout.channels + kBlock - 1) / kBlock;
      units = pieces * blocks;
      slots = pieces * layout.channels;
    } else {
      length = std::min(layout.inner, kBlock * 8);
      pieces = (layout.inner + length - 1) / length;
      blocks = 1;
      units = pieces * layout.outer * layout.channels;
      slots = units;
    }
  }
};

Tensor binarize_activations(const Tensor& x, const Tensor& scale, const Tensor& threshold, int64_t axis) {
  check_parameter(scale, 1);
  check_parameter(threshold, channels_of(x, axis));
  if (x.numel() == 0) return torch::stable::empty_like(x);
  Layout layout;
  const Tensor source = dense(x, axis, layout);
  Tensor result = empty_like_dense(source);
  dispatch(x, [&](auto stored, auto compute) {
    using T = decltype(stored);
    using A = decltype(compute);
    const std::vector<A> thresholds = spread<A>(threshold, layout);
    const A height = values_of<A>(scale)[0];
    const T* from = static_cast<const T*>(source.data_ptr());
    T* to = static_cast<T*>(result.data_ptr());
    const bool columns = layout.inner == 1 && layout.channels > 1;
    torch::stable::parallel_for(0, layout.numel(), kGrain, [&](int64_t begin, int64_t end) {
      alignas(64) A wide[kBlock];
      for (int64_t at = begin; at < end;) {
        const int64_t channel = at / layout.inner % layout.channels;
        const int64_t left = columns ? layout.channels - channel : layout.inner - at % layout.inner;
        const int64_t count = std::min({kBlock, end - at, left});
        widen(from + at, wide, count);
        if (columns) {
          activate<1>(wide, count, height, thresholds.data() + channel);
        } else {
          activate<0>(wide, count, height, thresholds.data() + channel);
        }
        narrow(wide, to + at, count);
        at += count;
      }
    });
  });
  return result;
}

template <typename T, typename A>
std::vector<Slopes<double>> differentiate(const T* grad, const T* x, T* grad_x, const Layout& layout, A scale,
                                          const std::vector<A>& thresholds) {
  const Plan plan(layout);
  const auto parts = std::make_unique<Slopes<A>[]>(plan.slots);
  const int64_t weight = plan.columns ? plan.length * std::min(kBlock, layout.channels) : plan.length;
  torch::stable::parallel_for(0, plan.units, std::max<int64_t>(1, kGrain / weight), [&](int64_t begin, int64_t end) {
    alignas(64) A wide[kBlock], wide_grad[kBlock], of_scale[kBlock], of_threshold[kBlock];
    for (int64_t unit = begin; unit < end; ++unit) {
      if (plan.columns) {
        const int64_t piece = unit / plan.blocks, first = unit % plan.blocks * kBlock;
        const int64_t last = std::min(layout.outer, (piece + 1) * plan.length);
        const int64_t count = std::min(kBlock, layout.channels - first);
        std::fill(of_scale, of_scale + count, A(0));
        std::fill(of_threshold, of_threshold + count, A(0));
        for (int64_t row = piece * plan.length; row < last; ++row) {
          const int64_t at = row * layout.channels + first;
          widen(x + at, wide, count);
          widen(grad + at, wide_grad, count);
          differentiate_columns(wide_grad, wide, count, scale, thresholds.data() + first, of_scale, of_threshold);
          narrow(wide_grad, grad_x + at, count);
        }
        for (int64_t c = 0; c < count; ++c) {
          parts[piece * layout.channels + first + c] = {of_scale[c], of_threshold[c]};
        }
        continue;
      }
      const int64_t row = unit / plan.pieces, piece = unit % plan.pieces;
      const int64_t start = row * layout.inner + piece * plan.length;
      const int64_t stop = std::min(start + plan.length, (row + 1) * layout.inner);
      Slopes<A> sums;
      for (int64_t at = start; at < stop; at += kBlock) {
        const int64_t count = std::min(kBlock, stop - at);
        widen(x + at, wide, count);
        widen(grad + at, wide_grad, count);
        const Slopes<A> more = differentiate_row(wide_grad, wide, count, scale, thresholds[row % layout.channels]);
        sums.scale += more.scale;
        sums.threshold += more.threshold;
        narrow(wide_grad, grad_x + at, count);
      }
      parts[unit] = sums;
    }
  });
  std::vector<Slopes<double>> totals(layout.channels);
  for (int64_t slot = 0; slot < plan.slots; ++slot) {
    const int64_t channel = (plan.columns ? slot : slot / plan.pieces) % layout.channels;
    totals[channel].scale += double(parts[slot].scale);
    totals[channel].threshold += double(parts[slot].threshold);
  }
  return totals;
}

std::tuple<Tensor, Tensor, Tensor> binarize_activations_backward(const Tensor& grad, const Tensor& x,
                                                                 const Tensor& scale, const Tensor& threshold,
                                                                 int64_t axis) {
  const int64_t channels = channels_of(x, axis);
  check_parameter(scale, 1);
  check_parameter(threshold, channels);
  std::vector<double> of_scale(1, 0.0), of_threshold(channels, 0.0);
  if (x.numel() == 0) {
    return {torch::stable::empty_like(x), like_parameter(scale, of_scale), like_parameter(threshold, of_threshold)};
  }
  Layout layout;
  const Tensor source = dense(x, axis, layout);
  const Tensor upstream = in_layout_of(grad, source);
  Tensor result = empty_like_dense(source);
  dispatch(x, [&](auto stored, auto compute) {
    using T = decltype(stored);
    using A = decltype(compute);
    const std::vector<A> thresholds = spread<A>(threshold, layout);
    const auto totals = differentiate<T, A>(
        static_cast<const T*>(upstream.data_ptr()), static_cast<const T*>(source.data_ptr()),
        static_cast<T*>(result.data_ptr()), layout, values_of<A>(scale)[0], thresholds);
    const int64_t places = layout.channels / channels;  // of every channel
    for (int64_t place = 0; place < layout.channels; ++place) {
      of_scale[0] += totals[place].scale;
      of_threshold[place / places] += totals[place].threshold;
    }
  });
  return {result, like_parameter(scale, of_scale), like_parameter(threshold, of_threshold)};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lightning_nncf, CPU, m) {
  m.impl("binarize_weights", TORCH_BOX(&binarize_weights));
  m.impl("binarize_activations", TORCH_BOX(&binarize_activations));
  m.impl("binarize_activations_backward", TORCH_BOX(&binarize_activations_backward));
}

}  // namespace lightning_nncf

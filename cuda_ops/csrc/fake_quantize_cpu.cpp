// Fake quantization on the CPU: one pass over memory each way, the clip mask recomputed from the input in backward.
//
// Work is cut into pieces whose size depends on the shape alone; every piece leaves its partial sums in its own slot,
// and the slots are added in order. The result is the same for any number of threads.

#include <memory>
#include <vector>

#include "quantize_cpu.h"

namespace lightning_nncf {
namespace {

constexpr int64_t kPiece = 4096;      // elements of a piece of a row
constexpr int64_t kCached = 1 << 20;  // bytes of a tensor that caches hold, as a rule
constexpr int64_t kPage = 4096;       // bytes
constexpr int64_t kAhead = kPage;     // bytes between what is computed and what is asked for from memory

// Activations may be in the caches, which a layer before has filled; weights are not.
template <typename T>
bool is_cached(const Layout& layout) {
  return layout.outer > 1 && layout.numel() * int64_t(sizeof(T)) <= kCached;
}

// Asks for memory that comes next. In order, the machine sees the order itself, but stops at the end of every page;
// down rows, it does not see it.
template <typename T>
inline void prefetch(const T* from, int64_t count) {
  for (int64_t i = 0; i < count; i += kLine / int64_t(sizeof(T))) __builtin_prefetch(from + i);
}

template <typename T>
inline void prefetch_to_write(T* to, int64_t count) {
  for (int64_t i = 0; i < count; i += kLine / int64_t(sizeof(T))) __builtin_prefetch(to + i, 1);
}

// What is read and written `kAhead` bytes later than `count` values at these places.
template <typename T>
inline void prefetch_later(const T* x, T* y, int64_t count) {
  prefetch(x + kAhead / sizeof(T), count);
  prefetch_to_write(y + kAhead / sizeof(T), count);
}

template <typename V, typename T, typename Q>
inline void forward_one(const T* x, T* y, const Q& quantize) {
  quantize(V::load(x)).store(y);
}

template <typename V, typename T, typename Q>
inline void forward_pair(const T* x, T* y, const Q& first, const Q& second) {
  V low, high;
  load_pair(x, low, high);
  store_pair(first(low), second(high), y);
}

// A row that is no whole number of vectors ends with vectors over its last elements, some of them seen before.
template <bool kSymmetric, Way kWay, typename T, typename A>
inline void forward_row(const T* x, T* y, int64_t count, bool cached, const Grids<A>& grids, int64_t c) {
  using V = Vector<A>;
  using One = Lanes<A, 1>;
  constexpr int64_t kWidth = V::kWidth;
  if (count < kWidth) {
    const auto quantize = Quantizer<kSymmetric, kWay, One>::of_one(grids, c);
    for (int64_t i = 0; i < count; ++i) forward_one<One>(x + i, y + i, quantize);
    return;
  }
  const auto quantize = Quantizer<kSymmetric, kWay, V>::of_one(grids, c);
  int64_t i = 0;
  for (; i + 2 * kWidth <= count; i += 2 * kWidth) {
    if (!cached) prefetch_later(x + i, y + i, 2 * kWidth);
    forward_pair<V>(x + i, y + i, quantize, quantize);
  }
  const int64_t rest = count - i;
  if (rest > kWidth && i > 0) {
    forward_pair<V>(x + count - 2 * kWidth, y + count - 2 * kWidth, quantize, quantize);
  } else if (rest > 0) {
    if (rest > kWidth) forward_one<V>(x + i, y + i, quantize);
    forward_one<V>(x + count - kWidth, y + count - kWidth, quantize);
  }
}

// Short rows, without a call for each, of images of `size` values that lie one after the other: the values [begin, end)
// of each. A vector that ends in the next row is quantized by both grids.
template <bool kSymmetric, Way kWay, int kImages, bool kIsCached, typename T, typename A>
[[gnu::noinline]] void forward_short_rows(const T* x, T* y, int64_t begin, int64_t end, int64_t size, int64_t inner,
                                          const Grids<A>& grids) {
  using V = Vector<A>;
  using One = Lanes<A, 1>;
  using Q = Quantizer<kSymmetric, kWay, V>;
  int64_t channel = begin / inner;
  int64_t stop = (channel + 1) * inner;
  Q now = Q::of_one(grids, channel);
  const auto next = [&](int64_t at) __attribute__((always_inline)) {
    if (at + V::kWidth <= stop) return now;
    const Q after = now.other(grids, ++channel);
    const Q both = Q::of_two(V::last(int(at + V::kWidth - stop)), now, after);
    now = after;
    stop += inner;
    return both;
  };
  int64_t at = begin;
  for (; at + 2 * V::kWidth <= end; at += 2 * V::kWidth) {
    const Q first = next(at);
    const Q second = next(at + V::kWidth);
    for (int image = 0; image < kImages; ++image) {
      const int64_t place = image * size + at;
      if (!kIsCached) prefetch_later(x + place, y + place, 2 * V::kWidth);
      forward_pair<V>(x + place, y + place, first, second);
    }
  }
  for (; at < end; ++at) {
    const auto quantize = Quantizer<kSymmetric, kWay, One>::of_one(grids, at / inner);
    for (int image = 0; image < kImages; ++image) forward_one<One>(x + image * size + at, y + image * size + at, quantize);
  }
}

// The short rows in [begin, end) of the memory order: from the caches, several images at a time read the grids, and look
// for the ends of rows, less often.
template <bool kSymmetric, Way kWay, typename T, typename A>
inline void forward_images(const T* x, T* y, int64_t begin, int64_t end, bool cached, const Layout& layout,
                           const Grids<A>& grids) {
  constexpr int kImages = 4;
  const int64_t inner = layout.inner, size = layout.channels * inner;
  for (int64_t at = begin; at < end;) {
    const int64_t first = at % size;
    if (first == 0 && cached && end - at >= kImages * size) {
      forward_short_rows<kSymmetric, kWay, kImages, true>(x + at, y + at, 0, size, size, inner, grids);
      at += kImages * size;
      continue;
    }
    const int64_t image = at - first, last = std::min(size, first + end - at);
    if (cached) {
      forward_short_rows<kSymmetric, kWay, 1, true>(x + image, y + image, first, last, size, inner, grids);
    } else {
      forward_short_rows<kSymmetric, kWay, 1, false>(x + image, y + image, first, last, size, inner, grids);
    }
    at = image + last;
  }
}

// Adds the sums of a vector to those of the vectors before it.
template <typename V, typename Mask>
inline void add_parts(Parts<V>& sums, const Parts<V>& more, Mask fresh) {
  sums.inside = V::plus_where(sums.inside, fresh, more.inside);
  sums.above = V::plus_where(sums.above, fresh, more.above);
  sums.below = V::plus_where(sums.below, fresh, more.below);
}

template <bool kIsCached, typename V, typename T, typename A>
inline Sums<A> backward_part(const T* grad, const T* x, T* grad_x, int64_t count, const Grids<A>& grids, int64_t c) {
  const Slope<V> slope{V::set(grids.reciprocal[c]), V::set(grids.step[c]), V::set(grids.low[c]), V::set(grids.high[c])};
  Parts<V> sums{V::set(0), V::set(0), V::set(0)};
  int64_t i = 0;
  for (; i + V::kWidth <= count; i += V::kWidth) {
    if (!kIsCached) {
      prefetch_later(x + i, grad_x + i, V::kWidth);
      if (grad != grad_x) prefetch(grad + i + kAhead / sizeof(T), V::kWidth);
    }
    slope(grad + i, x + i, grad_x + i, sums);
  }
  if (i < count) {
    // The last elements, some of them seen before: only the others are added.
    const int64_t at = count - V::kWidth;
    Parts<V> more{V::set(0), V::set(0), V::set(0)};
    slope(grad + at, x + at, grad_x + at, more);
    add_parts(sums, more, V::last(int(count - i)));
  }
  return {sums.inside.sum(), sums.above.sum(), sums.below.sum()};
}

template <bool kIsCached, typename T, typename A>
inline Sums<A> backward_row(const T* grad, const T* x, T* grad_x, int64_t count, const Grids<A>& grids, int64_t c) {
  using V = Vector<A>;
  return count < V::kWidth ? backward_part<true, Lanes<A, 1>>(grad, x, grad_x, count, grids, c)
                           : backward_part<kIsCached, V>(grad, x, grad_x, count, grids, c);
}

// Rows of neighbouring channels taken at once: more would be too many streams of memory for wide types.
template <typename T>
constexpr int64_t kTogether = sizeof(T) == 2 ? 8 : 2;

// One value of every channel, for a few rows `stride` values apart, which read the grids together.
template <bool kSymmetric, Way kWay, int kRows, typename T, typename A>
[[gnu::noinline]] void forward_channels(const T* x, T* y, int64_t stride, int64_t channels, const Grids<A>& grids) {
  using V = Vector<A>;
  using One = Lanes<A, 1>;
  const auto shared = Quantizer<kSymmetric, kWay, V>::of_one(grids, 0);
  int64_t c = 0;
  for (; c + 2 * V::kWidth <= channels; c += 2 * V::kWidth) {
    const auto first = shared.at(grids, c);
    const auto second = shared.at(grids, c + V::kWidth);
    for (int row = 0; row < kRows; ++row) {
      forward_pair<V>(x + row * stride + c, y + row * stride + c, first, second);
    }
  }
  if (c + V::kWidth <= channels) {
    const auto quantize = shared.at(grids, c);
    for (int row = 0; row < kRows; ++row) forward_one<V>(x + row * stride + c, y + row * stride + c, quantize);
    c += V::kWidth;
  }
  for (; c < channels; ++c) {
    const auto quantize = Quantizer<kSymmetric, kWay, One>::of_one(grids, c);
    for (int row = 0; row < kRows; ++row) forward_one<One>(x + row * stride + c, y + row * stride + c, quantize);
  }
}

// From the caches, four rows at a time read the grids less often: one of every quarter, since the machine looks ahead for
// one row in a page only, and not whole pages apart, where loads wait for the stores of others. From memory, that is read
// in order only by one.
template <bool kSymmetric, Way kWay, typename T, typename A>
inline void forward_all_channels(const T* x, T* y, int64_t channels, int64_t rows, bool cached, const Grids<A>& grids) {
  constexpr int kRows = 4;
  int64_t together = cached ? rows / kRows : 0;
  if (together * channels * int64_t(sizeof(T)) % kPage == 0 && together > 0) --together;
  const int64_t stride = together * channels;
  for (int64_t row = 0; row < together; ++row) {
    forward_channels<kSymmetric, kWay, kRows>(x + row * channels, y + row * channels, stride, channels, grids);
  }
  for (int64_t row = together * kRows; row < rows; ++row) {
    forward_channels<kSymmetric, kWay, 1>(x + row * channels, y + row * channels, 0, channels, grids);
  }
}

// The same for the backward, the sums in arrays of one value for each channel.
template <typename V, typename T, typename A>
inline int64_t backward_columns(const T* grad, const T* x, T* grad_x, int64_t c, int64_t channels, int64_t rows,
                                const Grids<A>& grids, A* inside, A* above, A* below) {
  const int64_t count = channels * rows;
  for (; c + V::kWidth <= channels; c += V::kWidth) {
    const Slope<V> slope{V::load(grids.reciprocal + c), V::load(grids.step + c), V::load(grids.low + c),
                         V::load(grids.high + c)};
    Parts<V> sums{V::load(inside + c), V::load(above + c), V::load(below + c)};
    for (int64_t at = c; at < count; at += channels) slope(grad + at, x + at, grad_x + at, sums);
    sums.inside.store(inside + c);
    sums.above.store(above + c);
    sums.below.store(below + c);
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

// The channels whose rows lie in [begin, end) of the memory order.
struct Channels {
  int64_t begin, end;
  Channels(const Layout& layout, int64_t first, int64_t last) : begin(0), end(layout.channels) {
    if (layout.outer > 1) return;
    begin = first / layout.inner;
    end = (last - 1) / layout.inner + 1;
  }
};

template <bool kSymmetric, Way kWay, typename T, typename A>
void forward(const T* x, T* y, const Layout& layout, const Ranges<A>& ranges) {
  const bool cached = is_cached<T>(layout);
  if (layout.inner > 1 || layout.channels == 1) {
    return torch::stable::parallel_for(0, layout.numel(), kGrain, [&](int64_t begin, int64_t end) {
      const Channels channels(layout, begin, end);
      const auto grids = ranges.template grids<kWay>(channels.begin, channels.end);
      if (layout.inner >= Vector<A>::kWidth && layout.inner <= kShortRow) {
        return forward_images<kSymmetric, kWay>(x, y, begin, end, cached, layout, grids);
      }
      each_row(begin, end, layout, [&](int64_t at, int64_t count, int64_t channel) {
        forward_row<kSymmetric, kWay>(x + at, y + at, count, cached, grids, channel);
      });
    });
  }
  const int64_t grain = std::max<int64_t>(1, kGrain / layout.channels);
  torch::stable::parallel_for(0, layout.outer, grain, [&](int64_t begin, int64_t end) {
    const auto grids = ranges.template grids<kWay>(0, layout.channels);
    const int64_t at = begin * layout.channels;
    forward_all_channels<kSymmetric, kWay>(x + at, y + at, layout.channels, end - begin, cached, grids);
  });
}

template <bool kIsCached, typename T, typename A>
std::vector<Sums<double>> backward_rows(const T* grad, const T* x, T* grad_x, const Layout& layout,
                                        const Ranges<A>& ranges) {
  const int64_t rows = layout.outer * layout.channels;
  const int64_t pieces = (layout.inner + kPiece - 1) / kPiece;
  const int64_t length = std::min(layout.inner, kPiece);
  const auto parts = std::make_unique<Sums<A>[]>(rows * pieces);
  const int64_t grain = std::max<int64_t>(1, kGrain / length);
  torch::stable::parallel_for(0, rows * pieces, grain, [&](int64_t begin, int64_t end) {
    const Channels channels(layout, begin / pieces * layout.inner, ((end - 1) / pieces + 1) * layout.inner);
    const auto grids = ranges.template grids<Way::kDivide>(channels.begin, channels.end);
    int64_t row = begin / pieces, piece = begin % pieces, channel = row % layout.channels;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = row * layout.inner + piece * length;
      const int64_t count = std::min(length, layout.inner - piece * length);
      parts[i] = backward_row<kIsCached>(grad + at, x + at, grad_x + at, count, grids, channel);
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
                                               const Ranges<A>& ranges) {
  const int64_t channels = layout.channels;
  const int64_t stride = whole_lines<A>(channels);
  const int64_t length = std::clamp<int64_t>(kGrain / channels, 16, 512);  // rows of a piece
  const int64_t pieces = (layout.outer + length - 1) / length;
  const auto parts = aligned_array<A>(pieces * stride * 3);
  const int64_t grain = std::max<int64_t>(1, kGrain / (length * channels));
  torch::stable::parallel_for(0, pieces, grain, [&](int64_t begin, int64_t end) {
    const auto grids = ranges.template grids<Way::kDivide>(0, channels);
    for (int64_t piece = begin; piece < end; ++piece) {
      A* inside = parts.get() + piece * stride * 3;
      A* above = inside + stride;
      A* below = above + stride;
      std::fill(inside, inside + 3 * stride, A(0));
      const int64_t last = std::min(layout.outer, (piece + 1) * length);
      for (int64_t row = piece * length; row < last; row += kTogether<T>) {
        const int64_t rows = std::min(kTogether<T>, last - row);
        const T* g = grad + row * channels;
        const T* values = x + row * channels;
        T* result = grad_x + row * channels;
        const int64_t group = kTogether<T> * channels;
        prefetch(g + group, group);
        prefetch(values + group, group);
        if (result != g) prefetch(result + group, group);
        const int64_t done =
            backward_columns<Vector<A>>(g, values, result, 0, channels, rows, grids, inside, above, below);
        backward_columns<Lanes<A, 1>>(g, values, result, done, channels, rows, grids, inside, above, below);
      }
    }
  });
  std::vector<Sums<double>> totals(channels);
  for (int64_t piece = 0; piece < pieces; ++piece) {
    const A* inside = parts.get() + piece * stride * 3;
    for (int64_t c = 0; c < channels; ++c) {
      add(totals[c], Sums<A>{inside[c], inside[stride + c], inside[2 * stride + c]});
    }
  }
  return totals;
}

// Sums in units of the gradient: the residuals divided by the step, and y - x instead of x - y.
template <typename T, typename A>
std::vector<Sums<double>> backward(const T* grad, const T* x, T* grad_x, const Layout& layout,
                                   const Ranges<A>& ranges) {
  auto totals = layout.inner == 1 && layout.channels > 1 ? backward_all_columns(grad, x, grad_x, layout, ranges)
                : is_cached<T>(layout)                   ? backward_rows<true>(grad, x, grad_x, layout, ranges)
                                                         : backward_rows<false>(grad, x, grad_x, layout, ranges);
  const auto grids = ranges.template grids<Way::kDivide>(0, layout.channels);
  for (size_t c = 0; c < totals.size(); ++c) totals[c].inside /= -double(grids.step[c]);
  return totals;
}

template <bool kSymmetric>
Tensor run_forward(const Tensor& x, const Tensor& first, const Tensor& second, int64_t quant_min, int64_t quant_max,
                   int64_t axis, const Rectifier* rectifier = nullptr) {
  check_parameter(first, channels_of(x, axis));
  if (!kSymmetric) check_parameter(second, channels_of(x, axis));
  if (x.numel() == 0) return torch::stable::empty_like(x);
  if (widens_to_double(x, first)) {
    const Tensor wide = torch::stable::to(x, ScalarType::Double);
    return in_type_of(run_forward<kSymmetric>(wide, first, second, quant_min, quant_max, axis, rectifier), x);
  }
  Layout layout;
  const Tensor source = dense(x, axis, layout);
  Tensor result = empty_like_dense(source);
  dispatch(x, [&](auto stored, auto computed) {
    using T = decltype(stored);
    using A = decltype(computed);
    const Ranges<A> ranges(kSymmetric, first, second, quant_min, quant_max, rectifier);
    ranges.template choose<T>([&](auto way) {
      forward<kSymmetric, way.value>(static_cast<const T*>(source.data_ptr()), static_cast<T*>(result.data_ptr()),
                                     layout, ranges);
    });
  });
  return result;
}

struct Gradients {
  Tensor of_x;
  std::vector<Sums<double>> sums;  // of every channel
};

// The gradient of `x` takes the place of `grad` where that is wished and types and strides are the same.
Gradients run_backward(bool symmetric, const Tensor& grad, const Tensor& x, const Tensor& first, const Tensor& second,
                       int64_t quant_min, int64_t quant_max, int64_t axis, bool in_place,
                       const Rectifier* rectifier = nullptr) {
  const int64_t channels = channels_of(x, axis);
  check_parameter(first, channels);
  if (!symmetric) check_parameter(second, channels);
  if (x.numel() == 0) return {torch::stable::empty_like(x), std::vector<Sums<double>>(channels)};
  if (widens_to_double(x, first)) {
    const Tensor wide = torch::stable::to(x, ScalarType::Double);
    auto [of_x, sums] =
        run_backward(symmetric, grad, wide, first, second, quant_min, quant_max, axis, false, rectifier);
    return {in_type_of(of_x, x), sums};
  }
  Layout layout;
  const Tensor source = dense(x, axis, layout);
  const Tensor upstream = in_layout_of(grad, source);
  Gradients result{in_place ? upstream : empty_like_dense(source), {}};
  dispatch(x, [&](auto stored, auto computed) {
    using T = decltype(stored);
    using A = decltype(computed);
    const Ranges<A> ranges(symmetric, first, second, quant_min, quant_max, rectifier);
    result.sums = backward(static_cast<const T*>(upstream.data_ptr()), static_cast<const T*>(source.data_ptr()),
                           static_cast<T*>(result.of_x.data_ptr()), layout, ranges);
  });
  return result;
}

Tensor symmetric(const Tensor& x, const Tensor& scale, int64_t quant_min, int64_t quant_max, int64_t axis) {
  return run_forward<true>(x, scale, scale, quant_min, quant_max, axis);
}

std::tuple<Tensor, Tensor> symmetric_backward(const Tensor& grad, const Tensor& x, const Tensor& scale,
                                              int64_t quant_min, int64_t quant_max, int64_t axis) {
  const auto [of_x, sums] = run_backward(true, grad, x, scale, scale, quant_min, quant_max, axis, false);
  return {of_x, scale_gradient(sums, scale, quant_min, quant_max)};
}

Tensor symmetric_backward_in_place(const Tensor& grad, const Tensor& x, const Tensor& scale, int64_t quant_min,
                                   int64_t quant_max, int64_t axis) {
  const auto [of_x, sums] = run_backward(true, grad, x, scale, scale, quant_min, quant_max, axis, true);
  put(grad, of_x);
  return scale_gradient(sums, scale, quant_min, quant_max);
}

Tensor rectified(const Tensor& x, const Tensor& scale, int64_t quant_max, double top) {
  const Rectifier rectifier{top};
  return run_forward<true>(x, scale, scale, 0, quant_max, -1, &rectifier);
}

std::tuple<Tensor, Tensor> rectified_backward(const Tensor& grad, const Tensor& x, const Tensor& scale,
                                              int64_t quant_max, double top) {
  const Rectifier rectifier{top};
  const auto [of_x, sums] = run_backward(true, grad, x, scale, scale, 0, quant_max, -1, false, &rectifier);
  return {of_x, rectified_scale_gradient(sums, scale, quant_max, top)};
}

Tensor rectified_backward_in_place(const Tensor& grad, const Tensor& x, const Tensor& scale, int64_t quant_max,
                                   double top) {
  const Rectifier rectifier{top};
  const auto [of_x, sums] = run_backward(true, grad, x, scale, scale, 0, quant_max, -1, true, &rectifier);
  put(grad, of_x);
  return rectified_scale_gradient(sums, scale, quant_max, top);
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
  const auto [of_x, sums] = run_backward(false, grad, x, input_low, input_range, 0, levels - 1, axis, false);
  const auto [of_low, of_range] = range_gradients(sums, input_low, input_range, levels);
  return {of_x, of_low, of_range};
}

std::tuple<Tensor, Tensor> asymmetric_backward_in_place(const Tensor& grad, const Tensor& x, const Tensor& input_low,
                                                        const Tensor& input_range, int64_t levels, int64_t axis) {
  const auto [of_x, sums] = run_backward(false, grad, x, input_low, input_range, 0, levels - 1, axis, true);
  put(grad, of_x);
  return range_gradients(sums, input_low, input_range, levels);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lightning_nncf, CPU, m) {
  m.impl("fake_quantize_symmetric", TORCH_BOX(&symmetric));
  m.impl("fake_quantize_symmetric_forward", TORCH_BOX(&symmetric));
  m.impl("fake_quantize_symmetric_backward", TORCH_BOX(&symmetric_backward));
  m.impl("fake_quantize_symmetric_backward_", TORCH_BOX(&symmetric_backward_in_place));
  m.impl("fake_quantize_rectified", TORCH_BOX(&rectified));
  m.impl("fake_quantize_rectified_backward", TORCH_BOX(&rectified_backward));
  m.impl("fake_quantize_rectified_backward_", TORCH_BOX(&rectified_backward_in_place));
  m.impl("fake_quantize_asymmetric", TORCH_BOX(&asymmetric));
  m.impl("fake_quantize_asymmetric_forward", TORCH_BOX(&asymmetric));
  m.impl("fake_quantize_asymmetric_backward", TORCH_BOX(&asymmetric_backward));
  m.impl("fake_quantize_asymmetric_backward_", TORCH_BOX(&asymmetric_backward_in_place));
}

}  // namespace lightning_nncf

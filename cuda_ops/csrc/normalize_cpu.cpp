// Batch normalization in training, an activation function that cuts off, and fake quantization, in one pass each way.
//
// A channel is small enough for the second cache: its mean, its variance and its values are computed while it is there,
// so memory is read once and written once. Small channels are computed some at a time, step by step, so that none waits
// for the sums of another. Work is cut into blocks of channels that depend on the shape alone, each computed by one
// thread: the result is the same for any number of threads.

#include <cmath>
#include <cstring>
#include <vector>

#include "quantize_cpu.h"

namespace lightning_nncf {
namespace {

constexpr int64_t kShort = 128;      // elements of rows that are copied together
constexpr int64_t kTogether = 8192;  // elements that are copied together
constexpr int64_t kPiece = 2048;     // elements whose sums are added in the type of the computation
constexpr int64_t kMost = 16;        // channels of a block

// The rows of one channel in memory.
struct Rows {
  int64_t count, length, stride;
  int64_t numel() const { return count * length; }
  bool scattered() const { return length < kShort && numel() <= kTogether && count > 1; }
};

// Copies rows to places that lie further apart or nearer; those of small maps without a call for each.
template <int64_t kLength, typename A>
inline void copy_rows(const A* from, int64_t from_stride, A* to, int64_t to_stride, const Rows& rows) {
  const int64_t length = kLength > 0 ? kLength : rows.length;
  for (int64_t row = 0; row < rows.count; ++row) {
    std::memcpy(to + row * to_stride, from + row * from_stride, length * sizeof(A));
  }
}

template <typename A>
inline void copy_rows(const A* from, int64_t from_stride, A* to, int64_t to_stride, const Rows& rows) {
  switch (rows.length) {
    case 1:
      return copy_rows<1>(from, from_stride, to, to_stride, rows);
    case 4:
      return copy_rows<4>(from, from_stride, to, to_stride, rows);
    case 9:
      return copy_rows<9>(from, from_stride, to, to_stride, rows);
    case 16:
      return copy_rows<16>(from, from_stride, to, to_stride, rows);
    case 25:
      return copy_rows<25>(from, from_stride, to, to_stride, rows);
    case 36:
      return copy_rows<36>(from, from_stride, to, to_stride, rows);
    case 49:
      return copy_rows<49>(from, from_stride, to, to_stride, rows);
    case 64:
      return copy_rows<64>(from, from_stride, to, to_stride, rows);
    default:
      return copy_rows<0>(from, from_stride, to, to_stride, rows);
  }
}

// A block of channels. Short rows are copied so that every channel has one, which ends with a whole vector: its last
// elements are as many as are missing, and take no part in sums.
template <typename A>
class Block {
 public:
  static constexpr int64_t kWidth = Vector<A>::kWidth;

  explicit Block(const Rows& rows)
      : rows_(rows),
        copied_(rows.scattered()),
        seen_(copied_ ? Rows{1, (rows.numel() + kWidth - 1) / kWidth * kWidth, 0} : rows) {}

  // How many channels a block has.
  int64_t channels() const { return copied_ ? std::clamp<int64_t>(kPiece / seen_.length, 1, kMost) : 1; }
  bool copied() const { return copied_; }
  const Rows& seen() const { return seen_; }
  int64_t missing() const { return copied_ ? seen_.length - rows_.numel() : 0; }
  // How many elements the copies of so many channels have.
  int64_t size(int64_t channels) const { return copied_ ? channels * seen_.length : 0; }

  // The rows of channel `c` in memory.
  template <typename T>
  T* in_memory(T* all, int64_t c) const {
    return all + c * rows_.length;
  }

  // Copies the rows of channel `c` to the place of the block's channel `i`, and returns it.
  const A* gather(const A* all, int64_t c, A* copies, int64_t i) const {
    if (!copied_) return in_memory(all, c);
    A* to = copies + i * seen_.length;
    copy_rows(in_memory(all, c), rows_.stride, to, rows_.length, rows_);
    fill(to, A(0));
    return to;
  }

  // Sets the elements that take no part in sums.
  void fill(A* copy, A value) const { std::fill(copy + rows_.numel(), copy + rows_.numel() + missing(), value); }

  void scatter(const A* copy, A* all, int64_t c) const {
    copy_rows(copy, rows_.length, in_memory(all, c), rows_.stride, rows_);
  }

 private:
  Rows rows_;
  bool copied_;
  Rows seen_;
};

// Calls `body(first, last, copies)` for all blocks of channels, with a place for `tensors` copies of each channel.
template <typename A, typename F>
void each_block(const Rows& rows, int64_t channels, int64_t tensors, const F& body) {
  const Block<A> block(rows);
  const int64_t size = block.channels();
  const int64_t grain = std::max<int64_t>(1, kGrain / 4 / (size * rows.numel()));
  torch::stable::parallel_for(0, (channels + size - 1) / size, grain, [&](int64_t begin, int64_t end) {
    const auto copies = aligned_array<A>(tensors * block.size(size));
    for (int64_t i = begin; i < end; ++i) body(i * size, std::min(channels, (i + 1) * size), copies.get());
  });
}

// The sums of one channel's backward, in vectors.
template <typename V>
struct Running {
  Parts<V> of_range;
  V grad, distance;
};

// What has no sums.
struct Nothing {};

// Adds up vectors lane by lane.
template <typename V>
inline V joined(const V& a, const V& b) {
  return a + b;
}

template <typename V>
inline Parts<V> joined(const Parts<V>& a, const Parts<V>& b) {
  return {a.inside + b.inside, a.above + b.above, a.below + b.below};
}

template <typename V>
inline Running<V> joined(const Running<V>& a, const Running<V>& b) {
  return {joined(a.of_range, b.of_range), a.grad + b.grad, a.distance + b.distance};
}

inline Nothing joined(const Nothing&, const Nothing&) { return {}; }

// The sums that the range learns from, lane by lane until there are as many as the type of the computation bears.
template <typename A>
class RangeSums {
 public:
  void add(const Parts<Vector<A>>& parts) { lanes_ = joined(lanes_, parts); }
  void add(const Parts<Lanes<A, 1>>& parts) { single_ = joined(single_, parts); }

  // Adds what the lanes hold to the total.
  void flush() {
    take(lanes_);
    take(single_);
  }

  const Sums<double>& total() const { return total_; }

 private:
  template <typename V>
  void take(Parts<V>& parts) {
    total_.inside += double(parts.inside.sum());
    total_.above += double(parts.above.sum());
    total_.below += double(parts.below.sum());
    parts = nothing<V>();
  }

  template <typename V>
  static Parts<V> nothing() {
    return {V::set(0), V::set(0), V::set(0)};
  }

  Parts<Vector<A>> lanes_ = nothing<Vector<A>>();
  Parts<Lanes<A, 1>> single_ = nothing<Lanes<A, 1>>();
  Sums<double> total_;
};

// Calls `body(tag, at, sums)` for all elements of a channel, in vectors and then in single lanes; `add(sums)` after
// every piece. The tag is a vector of the width to take; `fresh` makes the sums of one.
template <typename A, typename Fresh, typename Body, typename Add>
inline void each_piece(const Rows& rows, const Fresh& fresh, const Body& body, const Add& add) {
  using V = Vector<A>;
  using One = Lanes<A, 1>;
  for (int64_t row = 0; row < rows.count; ++row) {
    for (int64_t begin = 0; begin < rows.length; begin += kPiece) {
      const int64_t at = row * rows.stride + begin;
      const int64_t count = std::min(kPiece, rows.length - begin);
      int64_t i = 0;
      if (count >= V::kWidth) {
        auto first = fresh(V{}), second = fresh(V{});
        for (; i + 2 * V::kWidth <= count; i += 2 * V::kWidth) {
          body(V{}, at + i, first);
          body(V{}, at + i + V::kWidth, second);
        }
        if (i + V::kWidth <= count) {
          body(V{}, at + i, first);
          i += V::kWidth;
        }
        add(joined(first, second));
      }
      if (i < count) {
        auto rest = fresh(One{});
        for (; i < count; ++i) body(One{}, at + i, rest);
        add(rest);
      }
    }
  }
}

template <typename A>
double sum_of(const A* x, const Rows& rows) {
  double total = 0;
  each_piece<A>(
      rows, [](auto v) { return decltype(v)::set(0); },
      [&](auto v, int64_t at, auto& sum) { sum = sum + decltype(v)::load(x + at); },
      [&](const auto& sum) { total += double(sum.sum()); });
  return total;
}

// The sum of the squared distances from the mean.
template <typename A>
double spread_of(const A* x, const Rows& rows, A mean) {
  double total = 0;
  each_piece<A>(
      rows, [](auto v) { return decltype(v)::set(0); },
      [&](auto v, int64_t at, auto& sum) {
        using V = decltype(v);
        const V distance = V::load(x + at) - V::set(mean);
        sum = V::plus_product(sum, distance, distance);
      },
      [&](const auto& sum) { total += double(sum.sum()); });
  return total;
}

// One channel's affine map, `x * factor + offset`.
template <typename A>
struct Affine {
  A factor, offset;
  Affine(A mean, A inverse, A weight, A bias) : factor(inverse * weight), offset(bias - mean * (inverse * weight)) {}
  template <typename V>
  V operator()(const V& x) const {
    return V::plus_product(V::set(offset), x, V::set(factor));
  }
};

template <Way kWay, typename A>
void quantize(const A* x, A* y, const Rows& rows, const Affine<A>& affine, const Grids<A>& grids) {
  each_piece<A>(
      rows, [](auto) { return Nothing{}; },
      [&](auto v, int64_t at, Nothing&) {
        using V = decltype(v);
        Quantizer<true, kWay, V>::of_one(grids, 0)(affine(V::load(x + at))).store(y + at);
      },
      [](const Nothing&) {});
}

// The sums of one channel's backward.
struct Learned {
  double grad = 0;      // of the gradients inside the range
  double distance = 0;  // of these times the distances from the mean
};

// Stores the gradients that reach the normalized values, and returns the sums; adds to those of the range.
template <typename A>
Learned clip(const A* grad, const A* x, A* passed, const Rows& rows, A mean, const Affine<A>& affine,
             const Grids<A>& grids, RangeSums<A>& range) {
  Learned total;
  const bool is_long = rows.numel() > kPiece;
  each_piece<A>(
      rows,
      [](auto v) {
        const auto zero = decltype(v)::set(0);
        return Running<decltype(v)>{{zero, zero, zero}, zero, zero};
      },
      [&](auto v, int64_t at, auto& sums) {
        using V = decltype(v);
        const V g = V::load(grad + at);
        const V source = V::load(x + at);
        const V value = affine(source);
        const V low = V::set(grids.low[0]), high = V::set(grids.high[0]);
        const auto over = value > high;
        const auto under = low > value;
        const V inside = V::drop(V::either(over, under), g);
        inside.store(passed + at);
        const V clipped = V::min(high, V::max(low, value));
        const V residual =
            V::minus_product(clipped, V::round(clipped * V::set(grids.reciprocal[0])), V::set(grids.step[0]));
        sums.of_range.inside = V::plus_product(sums.of_range.inside, inside, residual);
        sums.of_range.above = V::plus_where(sums.of_range.above, over, g);
        sums.of_range.below = V::plus_where(sums.of_range.below, under, g);
        sums.grad = sums.grad + inside;
        sums.distance = V::plus_product(sums.distance, inside, source - V::set(mean));
      },
      [&](const auto& sums) {
        range.add(sums.of_range);
        if (is_long) range.flush();
        total.grad += double(sums.grad.sum());
        total.distance += double(sums.distance.sum());
      });
  return total;
}

// Turns the gradients of normalized values into those of the values, in place.
template <typename A>
void center(A* passed, const A* x, const Rows& rows, A of_grad, A of_value, A constant) {
  each_piece<A>(
      rows, [](auto) { return Nothing{}; },
      [&](auto v, int64_t at, Nothing&) {
        using V = decltype(v);
        const V moved = V::plus_product(V::set(constant), V::load(x + at), V::set(of_value));
        V::plus_product(moved, V::load(passed + at), V::set(of_grad)).store(passed + at);
      },
      [](const Nothing&) {});
}

struct Settings {
  int64_t quant_min, quant_max;
  bool rectified;
  double top;
};

template <typename A>
Ranges<A> ranges_of(const Tensor& scale, const Settings& settings) {
  const Rectifier rectifier{settings.top};
  return {true, scale, scale, settings.quant_min, settings.quant_max, settings.rectified ? &rectifier : nullptr};
}

// Calls `body` with a value of the type that is computed in.
template <typename F>
void dispatch_computed(const Tensor& x, const F& body) {
  if (x.scalar_type() == ScalarType::Double) {
    body(double{});
  } else {
    body(float{});
  }
}

bool computes(const Tensor& x) {
  return x.scalar_type() == ScalarType::Float || x.scalar_type() == ScalarType::Double;
}

Rows rows_of(const Tensor& x) {
  const int64_t channels = x.size(1);
  const int64_t length = x.numel() / (x.size(0) * channels);
  return {x.size(0), length, channels * length};
}

void check(const Tensor& x, const Tensor& scale) {
  STD_TORCH_CHECK(x.dim() >= 2, "batch normalization needs at least 2 dimensions, got ", x.dim());
  STD_TORCH_CHECK(x.numel() > x.size(1), "batch normalization needs more than one value for each channel");
  check_parameter(scale, 1);
}

void update(const Tensor& running, const std::vector<double>& values, double momentum) {
  std::vector<double> held = values_of<double>(running);
  for (size_t c = 0; c < held.size(); ++c) held[c] += momentum * (values[c] - held[c]);
  if (running.is_contiguous() && running.scalar_type() == ScalarType::Float) {
    return narrow(held.data(), static_cast<float*>(running.data_ptr()), held.size());
  }
  Tensor target = running;
  torch::stable::copy_(target, like_parameter(running, held));
}

std::tuple<Tensor, Tensor, Tensor> normalized(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                           const Tensor& running_mean, const Tensor& running_var,
                                           const Tensor& batches, const Tensor& scale, double momentum,
                                           double eps, int64_t quant_min, int64_t quant_max, bool rectified,
                                           double top) {
  check(x, scale);
  if (!computes(x)) {
    auto [y, mean, inverse] = normalized(torch::stable::to(x, ScalarType::Float), weight, bias, running_mean, running_var,
                                      batches, scale, momentum, eps, quant_min, quant_max, rectified, top);
    return {in_type_of(y, x), mean, inverse};
  }
  STD_TORCH_CHECK(batches.scalar_type() == ScalarType::Long && batches.numel() == 1,
                  "expected the number of batches as one int64 value");
  const int64_t channels = x.size(1);
  for (const Tensor* each : {&weight, &bias, &running_mean, &running_var}) check_parameter(*each, channels);
  const Tensor source = packed(x);
  Tensor result = empty_like_dense(source);
  const Rows rows = rows_of(source);
  const double count = double(rows.numel());
  std::vector<double> means(channels), variances(channels), inverses(channels);
  dispatch_computed(x, [&](auto computed) {
    using A = decltype(computed);
    const std::vector<A> weights = values_of<A>(weight), biases = values_of<A>(bias);
    const A* values = static_cast<const A*>(source.data_ptr());
    A* results = static_cast<A*>(result.data_ptr());
    const Block<A> block(rows);
    const auto ranges = ranges_of<A>(scale, {quant_min, quant_max, rectified, top});
    ranges.template choose<A>([&](auto way) {
      const auto grids = ranges.template grids<way.value>(0, 1);
      each_block<A>(rows, channels, 1, [&](int64_t first, int64_t last, A* copies) {
        const A* from[kMost];
        for (int64_t c = first; c < last; ++c) {
          from[c - first] = block.gather(values, c, copies, c - first);
        }
        for (int64_t c = first; c < last; ++c) means[c] = sum_of(from[c - first], block.seen()) / count;
        for (int64_t c = first; c < last; ++c) {
          if (block.copied()) block.fill(copies + block.size(c - first), A(means[c]));
          variances[c] = spread_of(from[c - first], block.seen(), A(means[c])) / count;
        }
        for (int64_t c = first; c < last; ++c) inverses[c] = 1 / std::sqrt(variances[c] + eps);
        for (int64_t c = first; c < last; ++c) {
          const Affine<A> affine(A(means[c]), A(inverses[c]), weights[c], biases[c]);
          A* copy = copies + block.size(c - first);
          quantize<way.value>(from[c - first], block.copied() ? copy : block.in_memory(results, c), block.seen(), affine,
                              grids);
          if (block.copied()) block.scatter(copy, results, c);
        }
      });
    });
  });
  update(running_mean, means, momentum);
  for (double& variance : variances) variance *= count / (count - 1);
  update(running_var, variances, momentum);
  ++*static_cast<int64_t*>(batches.data_ptr());
  if (!x.is_contiguous()) {
    Tensor moved = torch::stable::empty_like(x);
    torch::stable::copy_(moved, result);
    result = moved;
  }
  return {result, like_parameter(weight, means), like_parameter(weight, inverses)};
}

struct Gradients {
  Tensor of_x, of_weight, of_bias, of_scale;
};

Gradients backward(const Tensor& grad, const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& mean,
                   const Tensor& inverse, const Tensor& scale, const Settings& settings, bool in_place) {
  check(x, scale);
  if (!computes(x)) {
    Gradients result = backward(torch::stable::to(grad, ScalarType::Float), torch::stable::to(x, ScalarType::Float),
                                weight, bias, mean, inverse, scale, settings, false);
    result.of_x = in_type_of(result.of_x, x);
    return result;
  }
  const int64_t channels = x.size(1);
  for (const Tensor* each : {&weight, &bias, &mean, &inverse}) check_parameter(*each, channels);
  const Tensor source = packed(x);
  const Tensor upstream = in_layout_of(grad, source);
  Tensor of_x = in_place ? upstream : empty_like_dense(source);
  const Rows rows = rows_of(source);
  const double count = double(rows.numel());
  std::vector<Sums<double>> totals(1);
  std::vector<double> of_weight(channels), of_bias(channels);
  dispatch_computed(x, [&](auto computed) {
    using A = decltype(computed);
    const std::vector<A> weights = values_of<A>(weight), biases = values_of<A>(bias);
    const std::vector<double> means = values_of<double>(mean), inverses = values_of<double>(inverse);
    const A* grads = static_cast<const A*>(upstream.data_ptr());
    const A* values = static_cast<const A*>(source.data_ptr());
    A* results = static_cast<A*>(of_x.data_ptr());
    const Block<A> block(rows);
    std::vector<Sums<double>> of_blocks(channels);  // of each at the place of its first channel
    const auto grids = ranges_of<A>(scale, settings).template grids<Way::kDivide>(0, 1);
    each_block<A>(rows, channels, 2, [&](int64_t first, int64_t last, A* copies) {
      A* const copies_of_x = copies + block.size(last - first);
      const A *g[kMost], *from[kMost];
      RangeSums<A> range;
      for (int64_t c = first; c < last; ++c) {
        g[c - first] = block.gather(grads, c, copies, c - first);
        from[c - first] = block.gather(values, c, copies_of_x, c - first);
      }
      Learned learned[kMost];
      const auto target = [&](int64_t c) {
        return block.copied() ? copies + block.size(c - first) : block.in_memory(results, c);
      };
      for (int64_t c = first; c < last; ++c) {
        const Affine<A> affine(A(means[c]), A(inverses[c]), weights[c], biases[c]);
        if (block.copied()) block.fill(copies_of_x + block.size(c - first), A(means[c]));
        learned[c - first] =
            clip(g[c - first], from[c - first], target(c), block.seen(), A(means[c]), affine, grids, range);
      }
      for (int64_t c = first; c < last; ++c) {
        of_bias[c] = learned[c - first].grad;
        of_weight[c] = learned[c - first].distance * inverses[c];
      }
      for (int64_t c = first; c < last; ++c) {
        const double factor = inverses[c] * double(weights[c]);
        const double of_value = -factor * of_weight[c] * inverses[c] / count;
        const double constant = -factor * of_bias[c] / count - of_value * means[c];
        center(target(c), from[c - first], block.seen(), A(factor), A(of_value), A(constant));
        if (block.copied()) block.scatter(target(c), results, c);
      }
      range.flush();
      of_blocks[first] = range.total();
    });
    for (const Sums<double>& each : of_blocks) add(totals[0], each);
    totals[0].inside /= -double(grids.step[0]);
  });
  return {in_layout_of(of_x, x), like_parameter(weight, of_weight), like_parameter(bias, of_bias),
          settings.rectified ? rectified_scale_gradient(totals, scale, settings.quant_max, settings.top)
                             : scale_gradient(totals, scale, settings.quant_min, settings.quant_max)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> normalized_backward(const Tensor& grad, const Tensor& x,
                                                               const Tensor& weight, const Tensor& bias,
                                                               const Tensor& mean, const Tensor& inverse,
                                                               const Tensor& scale, int64_t quant_min,
                                                               int64_t quant_max, bool rectified, double top) {
  const Gradients result =
      backward(grad, x, weight, bias, mean, inverse, scale, {quant_min, quant_max, rectified, top}, false);
  return {result.of_x, result.of_weight, result.of_bias, result.of_scale};
}

std::tuple<Tensor, Tensor, Tensor> normalized_backward_in_place(const Tensor& grad, const Tensor& x,
                                                                const Tensor& weight, const Tensor& bias,
                                                                const Tensor& mean, const Tensor& inverse,
                                                                const Tensor& scale, int64_t quant_min,
                                                                int64_t quant_max, bool rectified, double top) {
  const Gradients result =
      backward(grad, x, weight, bias, mean, inverse, scale, {quant_min, quant_max, rectified, top}, true);
  put(grad, result.of_x);
  return {result.of_weight, result.of_bias, result.of_scale};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lightning_nncf, CPU, m) {
  m.impl("fake_quantize_normalized", TORCH_BOX(&normalized));
  m.impl("fake_quantize_normalized_backward", TORCH_BOX(&normalized_backward));
  m.impl("fake_quantize_normalized_backward_", TORCH_BOX(&normalized_backward_in_place));
}

}  // namespace lightning_nncf

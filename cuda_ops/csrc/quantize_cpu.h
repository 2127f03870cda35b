// What fake quantization on the CPU computes: the values of a vector, and the sums that the range learns from.
#pragma once

#include <vector>

#include "grids_cpu.h"
#include "simd_cpu.h"
#include "tensors_cpu.h"

namespace lightning_nncf {

template <typename A>
inline void add(Sums<double>& total, const Sums<A>& part) {
  total.inside += double(part.inside);
  total.above += double(part.above);
  total.below += double(part.below);
}

// The forward of one channel, or of as many as a vector has lanes. NaN stays NaN.
template <bool kSymmetric, Way kWay, typename V>
struct Quantizer {
  V reciprocal, step, offset, least, most;

  // Symmetric grids of several channels have the same ticks.
  static constexpr bool kShares = kSymmetric && kWay != Way::kCorrect;
  static constexpr bool kShifts = kWay == Way::kShift;

  template <typename A>
  static Quantizer of_one(const Grids<A>& grids, int64_t c) {
    return {V::set(grids.reciprocal[c]), V::set(grids.step[c]), V::set(kShifts ? grids.offset[c] : 0),
            V::set(grids.least[c]), V::set(grids.most[c])};
  }

  // That of a channel, by one that has the bounds which all share.
  template <typename A>
  Quantizer other(const Grids<A>& grids, int64_t c) const {
    return {V::set(grids.reciprocal[c]), V::set(grids.step[c]), kShifts ? V::set(grids.offset[c]) : offset,
            kShares ? least.same() : V::set(grids.least[c]), kShares ? most.same() : V::set(grids.most[c])};
  }

  // That of the channels from `c` on, by one that has the bounds which all share.
  template <typename A>
  Quantizer at(const Grids<A>& grids, int64_t c) const {
    return {V::load(grids.reciprocal + c), V::load(grids.step + c), kShifts ? V::load(grids.offset + c) : offset,
            kShares ? least.same() : V::load(grids.least + c), kShares ? most.same() : V::load(grids.most + c)};
  }

  // That of the lanes of `mask` by `second`, of the others by `first`.
  static Quantizer of_two(typename V::Mask mask, const Quantizer& first, const Quantizer& second) {
    return {V::choose(mask, second.reciprocal, first.reciprocal), V::choose(mask, second.step, first.step),
            kShifts ? V::choose(mask, second.offset, first.offset) : first.offset,
            kShares ? first.least.same() : V::choose(mask, second.least, first.least),
            kShares ? first.most.same() : V::choose(mask, second.most, first.most)};
  }

  V operator()(V x) const {
    if constexpr (kWay == Way::kShift) {
      const V ticks = V::min(most, V::max(least, V::plus_product(V::set(kShift), x, reciprocal)));
      return V::plus_product(offset, ticks, step);
    } else {
      const V ticks = V::round(quotient(x));
      // A symmetric grid keeps the sign of a negative zero; an asymmetric one adds its zero point and loses it.
      return kSymmetric ? ticks * step : V::plus_product(V::set(0), ticks, step);
    }
  }

 private:
  V quotient(V x) const {
    if constexpr (kWay == Way::kDivide) return V::min(most, V::max(least, x / step));
    const V value = V::min(most, V::max(least, x));
    V ticks = value * reciprocal;
    for (int i = 0; i < 2; ++i) ticks = V::minus_product(ticks, V::product_minus(ticks, step, value), reciprocal);
    return ticks;
  }
};

// The sums of every lane.
template <typename V>
struct Parts {
  V inside, above, below;
};

// The backward of vectors: stores the gradient of x and adds to the sums. Where that gradient takes the place of the
// result's, only what changes is stored.
template <typename V>
struct Slope {
  V reciprocal, step, low, high;

  template <typename T>
  void operator()(const T* grad, const T* x, T* grad_x, Parts<V>& sums) const {
    const V value = V::load(x);
    const V g = V::load(grad);
    const auto over = value > high;
    const auto under = low > value;
    const auto outside = V::either(over, under);
    const V passed = V::drop(outside, g);
    if (grad != grad_x || V::any(outside)) passed.store_unrounded(grad_x);
    const V clipped = V::min(high, V::max(low, value));
    const V residual = V::minus_product(clipped, V::round(clipped * reciprocal), step);
    sums.inside = V::plus_product(sums.inside, passed, residual);
    sums.above = V::plus_where(sums.above, over, g);
    sums.below = V::plus_where(sums.below, under, g);
  }
};

inline Tensor scale_gradient(const std::vector<Sums<double>>& sums, const Tensor& scale, int64_t quant_min,
                      int64_t quant_max) {
  std::vector<double> values = values_of<double>(scale);
  const double ratio = double(quant_min) / double(quant_max);
  for (size_t c = 0; c < values.size(); ++c) {
    values[c] = sign_of(values[c]) *
                (sums[c].inside / double(quant_max - quant_min) + sums[c].above + sums[c].below * ratio);
  }
  return like_parameter(scale, values);
}

inline Tensor rectified_scale_gradient(const std::vector<Sums<double>>& sums, const Tensor& scale, int64_t quant_max,
                                double top) {
  std::vector<double> values = values_of<double>(scale);
  for (size_t c = 0; c < values.size(); ++c) {
    const Grid<double> grid = symmetric_grid(values[c], int64_t(0), quant_max);
    // Values at the top of the activation function may lie inside the range.
    const double ticks = std::min(top / grid.step, double(quant_max));
    const double above = top > grid.high ? 1.0 : (std::rint(ticks) - ticks) / double(quant_max);
    values[c] = sign_of(values[c]) * (sums[c].inside / double(quant_max) + sums[c].above * above);
  }
  return like_parameter(scale, values);
}

// Puts a result into the tensor that it was to replace, if it is not there already.
inline void put(const Tensor& grad, const Tensor& result) {
  if (grad.numel() == 0 || grad.data_ptr() == result.data_ptr()) return;
  Tensor target = grad;
  torch::stable::copy_(target, result);
}

}  // namespace lightning_nncf

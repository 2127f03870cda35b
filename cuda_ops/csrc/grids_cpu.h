// The grids of all channels on the CPU, one array for each part, so that they are computed and read in vectors.
#pragma once

#include <cmath>
#include <limits>

#include "grid.h"
#include "lanes_cpu.h"
#include "tensors_cpu.h"

namespace lightning_nncf {

// How the forward finds the tick that a value is next to.
enum class Way {
  // It divides by the step, as the reference does, and rounds.
  kDivide,
  // It multiplies by the reciprocal and corrects the product twice by what is left, which gives the quotient that a
  // division gives, bit for bit (P. Markstein, Computation of elementary functions on the IBM RISC System/6000
  // processor, 1990), in a third of its time.
  kCorrect,
  // It multiplies by the reciprocal and adds a number so large that the sum has no places for fractions. For half types,
  // which are rounded more coarsely than that errs: the step keeps 22 bits, and a zero no sign.
  kShift,
};

// What `Way::kShift` adds: above it and below it float32 numbers lie 1 apart.
constexpr float kShift = 3 << 22;

template <typename T, typename A>
constexpr Way kBestWay = !kFuses || !std::is_same_v<A, float> ? Way::kDivide
                         : std::is_same_v<T, float>           ? Way::kCorrect
                                                              : Way::kShift;

// The grids of some channels, every array read with the number of a channel.
template <typename A>
struct Grids {
  A* step;
  A* reciprocal;
  A* low;  // the range that gradients pass
  A* high;
  A* least;  // what the forward cuts off at: ticks, or values where its way asks for them
  A* most;
  A* offset;  // of `Way::kShift`: minus what it has added, times the step

  Grids(int64_t begin, int64_t end) : values_(aligned_array<A>(7 * whole_lines<A>(end - begin))) {
    const int64_t stride = whole_lines<A>(end - begin);
    A* array = values_.get() - begin;
    for (A** each : {&step, &reciprocal, &low, &high, &least, &most, &offset}) {
      *each = array;
      array += stride;
    }
  }

 private:
  Array<A> values_;
};

// What an activation function before the quantizer does, which the quantizer does for it: it cuts off below zero, and
// above `top`. No gradient reaches values that it would have cut off; zero is one of them.
struct Rectifier {
  double top;
};

// What the grids of all channels are computed from. Every thread computes those that it needs into memory of its own:
// what another core has just written is slow to read.
template <typename A>
class Ranges {
 public:
  // Symmetric grids have one parameter, `first`.
  Ranges(bool symmetric, const Tensor& first, const Tensor& second, int64_t quant_min, int64_t quant_max,
         const Rectifier* rectifier = nullptr)
      : symmetric_(symmetric),
        first_(first),
        second_(second),
        quant_min_(quant_min),
        quant_max_(quant_max),
        rectified_(rectifier != nullptr),
        top_(rectifier ? A(rectifier->top) : A(0)) {}

  // Calls `body` with the way that the forward goes: the fast ones want reciprocals of full precision, products that do
  // not overflow, and ticks with room for fractions beside them.
  template <typename T, typename F>
  void choose(const F& body) const {
    if constexpr (kBestWay<T, A> != Way::kDivide) {
      if (quant_max_ - quant_min_ <= 1 << 21 && usual()) {
        return body(std::integral_constant<Way, kBestWay<T, A>>{});
      }
    }
    body(std::integral_constant<Way, Way::kDivide>{});
  }

  // The grids of channels [begin, end); their bounds are those of a way of the forward.
  template <Way kWay>
  Grids<A> grids(int64_t begin, int64_t end) const {
    Grids<A> grids(begin, end);
    if (symmetric_) {
      fill<true, kWay>(grids, begin, end);
    } else {
      fill<false, kWay>(grids, begin, end);
    }
    if (rectified_) cut<kWay>(grids, begin, end);
    return grids;
  }

 private:
  // Steps and their reciprocals stay far from the ends of the type: they are not below what is added to every range.
  bool usual() const {
    int64_t count = 0;
#pragma omp simd reduction(+ : count)
    for (int64_t c = 0; c < first_.count(); ++c) {
      count += std::abs(first_[c]) < A(0x1p60) && (symmetric_ || std::abs(second_[c]) < A(0x1p60));
    }
    return count == first_.count();
  }

  template <bool kSymmetric, Way kWay>
  void fill(Grids<A>& grids, int64_t begin, int64_t end) const {
    A *const step = grids.step, *const reciprocal = grids.reciprocal, *const low = grids.low, *const high = grids.high;
    A *const least = grids.least, *const most = grids.most, *const offset = grids.offset;
    const int64_t quant_min = quant_min_, quant_max = quant_max_, levels = quant_max_ - quant_min_ + 1;
#pragma omp simd
    for (int64_t c = begin; c < end; ++c) {
      Grid<A> grid;
      if constexpr (kSymmetric) {
        grid = symmetric_grid(first_[c], quant_min, quant_max);
      } else {
        grid = asymmetric_grid(first_[c], second_[c], levels);
      }
      // NaN without a sign and low bits, whatever the parameter's was.
      const A width = grid.step != grid.step ? std::numeric_limits<A>::quiet_NaN() : grid.step;
      reciprocal[c] = A(1) / width;
      low[c] = grid.low;
      high[c] = grid.high;
      if constexpr (kWay == Way::kShift) {
        const A kept = in_22_bits(width);
        step[c] = kept;
        offset[c] = -kShift * kept;  // exact
        least[c] = grid.quant_min + kShift;
        most[c] = grid.quant_max + kShift;
      } else {
        step[c] = width;
        least[c] = kWay == Way::kCorrect ? grid.quant_min * width : grid.quant_min;
        most[c] = kWay == Way::kCorrect ? grid.quant_max * width : grid.quant_max;
      }
    }
  }

  template <Way kWay>
  void cut(Grids<A>& grids, int64_t begin, int64_t end) const {
    for (int64_t c = begin; c < end; ++c) {
      grids.low[c] = std::numeric_limits<A>::min();
      if (!(top_ > grids.high[c])) grids.high[c] = std::nextafter(top_, A(0));
      const A limit = kWay == Way::kCorrect ? top_
                      : kWay == Way::kShift ? std::fma(top_, grids.reciprocal[c], A(kShift))
                                            : top_ / grids.step[c];
      grids.most[c] = std::min(grids.most[c], limit);
    }
  }

  // Veltkamp's splitting.
  static A in_22_bits(A value) {
    const A more = A(5) * value;
    return more - (more - value);
  }

  bool symmetric_;
  Values<A> first_, second_;
  int64_t quant_min_, quant_max_;
  bool rectified_;
  A top_;
};

}  // namespace lightning_nncf

// The grids of all channels on the CPU, one array for each part, so that they are computed and read in vectors.
#pragma once

#include <cmath>
#include <limits>

#include "grid.h"
#include "tensors_cpu.h"

namespace lightning_nncf {

template <typename A>
struct Grids {
  A* step;
  A* reciprocal;
  A* low;
  A* high;
  A* quant_min;
  A* quant_max;

  // Symmetric grids have one parameter, `first`.
  template <bool kSymmetric>
  static Grids of(const Tensor& first, const Tensor& second, int64_t quant_min, int64_t quant_max) {
    const std::vector<A> ends = values_of<A>(first);
    const std::vector<A> widths = kSymmetric ? std::vector<A>{} : values_of<A>(second);
    const int64_t channels = ends.size();
    Grids grids(channels);
    A *const step = grids.step, *const reciprocal = grids.reciprocal, *const low = grids.low, *const high = grids.high;
    A *const least = grids.quant_min, *const most = grids.quant_max;
    const A *const end = ends.data(), *const width = widths.data();
    const int64_t levels = quant_max - quant_min + 1;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
      Grid<A> grid;
      if constexpr (kSymmetric) {
        grid = symmetric_grid(end[c], quant_min, quant_max);
      } else {
        grid = asymmetric_grid(end[c], width[c], levels);
      }
      // NaN without a sign and low bits, whatever the parameter's was.
      step[c] = grid.step != grid.step ? std::numeric_limits<A>::quiet_NaN() : grid.step;
      reciprocal[c] = A(1) / step[c];
      low[c] = grid.low;
      high[c] = grid.high;
      least[c] = grid.quant_min;
      most[c] = grid.quant_max;
    }
    return grids;
  }

  // Quantizing with these grids is then quantizing what a ReLU, or one that ends at `top`, has made of the values, and
  // no gradient reaches values that it would have cut off. Zero is one of them.
  void rectify(double top) {
    for (int64_t c = 0; c < channels_; ++c) {
      low[c] = std::numeric_limits<A>::min();
      if (A(top) > high[c]) continue;
      high[c] = std::nextafter(A(top), A(0));
      quant_max[c] = std::min(quant_max[c], A(top) / step[c]);
    }
  }

 private:
  explicit Grids(int64_t channels) : channels_(channels), values_(aligned_array<A>(6 * whole_lines<A>(channels))) {
    const int64_t stride = whole_lines<A>(channels);
    step = values_.get();
    reciprocal = step + stride;
    low = reciprocal + stride;
    high = low + stride;
    quant_min = high + stride;
    quant_max = quant_min + stride;
  }

  int64_t channels_;
  Array<A> values_;
};

}  // namespace lightning_nncf

// The grid of a fake quantizer, computed operation by operation like the reference so that results are equal bit for
// bit. Shared by the C++ and the CUDA kernels.
#pragma once

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define LIGHTNING_NNCF_HOST_DEVICE __host__ __device__
#else
#define LIGHTNING_NNCF_HOST_DEVICE
#endif

namespace lightning_nncf {

constexpr double kEpsilon = 1e-16;

template <typename A>
struct Grid {
  A step;
  A low;
  A high;
  A quant_min;
  A quant_max;
};

template <typename A>
LIGHTNING_NNCF_HOST_DEVICE inline Grid<A> symmetric_grid(A scale, int64_t quant_min, int64_t quant_max) {
  const A high = (scale < A(0) ? -scale : scale) + A(kEpsilon);
  const A ratio = A(double(quant_min) / double(quant_max));
  return {high / A(quant_max), high * ratio, high, A(quant_min), A(quant_max)};
}

template <typename A>
LIGHTNING_NNCF_HOST_DEVICE inline Grid<A> asymmetric_grid(A input_low, A input_range, int64_t levels) {
  const A steps = A(levels - 1);
  const A width = (input_range < A(0) ? -input_range : input_range) + A(kEpsilon);
  const A end = input_low + width;
  const A high = end < A(0) ? A(0) : end;
  const A low = input_low > A(0) ? A(0) : input_low;
  const A per_step = A(1) / (high - low) * steps;
  const A zero_point = rint(-low * per_step);
  const A above = steps - zero_point;
  const A keeping_high = high / (above < A(1) ? A(1) : above);
  const A keeping_low = -low / (zero_point < A(1) ? A(1) : zero_point);
  const bool keep_high = keeping_high >= keeping_low;
  const A step = keep_high ? keeping_high : keeping_low;
  return {step, keep_high ? -zero_point * step : low, keep_high ? high : above * step, -zero_point, above};
}

template <typename A>
LIGHTNING_NNCF_HOST_DEVICE inline A sign_of(A value) {
  return A(value > A(0)) - A(value < A(0));
}

// Sums of one piece: of the gradient times the residual `x - y`, and of the gradients outside the range.
template <typename A>
struct Sums {
  A inside = 0;
  A above = 0;
  A below = 0;
};

}  // namespace lightning_nncf

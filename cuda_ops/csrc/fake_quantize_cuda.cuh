// Fake quantization on the GPU: one pass over memory each way, the clip mask recomputed from the input in backward.
//
// Blocks leave partial sums in their own slots and a second kernel adds them in order: no atomics, the same bits in
// every run. A tensor is rows of one channel each (long rows by blocks, short ones by warps), or, where channels are
// next to each other, columns.
#pragma once

#include "device_cuda.h"
#include "grid.h"

namespace lightning_nncf {
namespace {

constexpr int64_t kShortRow = 1024;  // rows up to this length are for warps
constexpr int kColumnRows = 128;     // rows of a block of columns

template <typename T>
constexpr bool kDivides = !std::is_same_v<T, __half> && !std::is_same_v<T, __nv_bfloat16>;

// The parameters of the channels: scale, or low and range.
template <typename A>
struct Parameters {
  const A* first;
  const A* second;
  int64_t quant_min;
  int64_t quant_max;

  template <bool kSymmetric>
  __device__ Grid<A> grid(int64_t channel) const {
    if constexpr (kSymmetric) {
      return symmetric_grid(first[channel], quant_min, quant_max);
    } else {
      return asymmetric_grid(first[channel], second[channel], quant_max - quant_min + 1);
    }
  }
};

template <typename A>
__device__ inline A clamped(A value, A low, A high) {
  const A raised = value < low ? low : value;
  return raised > high ? high : raised;
}

template <typename T, typename A, bool kSymmetric>
struct Forward {
  Grid<A> grid;
  A divisor;

  __device__ explicit Forward(const Grid<A>& chosen)
      : grid(chosen), divisor(kDivides<T> ? chosen.step : A(1) / chosen.step) {}

  __device__ T operator()(T x) const {
    const A value = widened(x);
    const A ticks = clamped(kDivides<T> ? value / divisor : value * divisor, grid.quant_min, grid.quant_max);
    return narrowed<T>((kSymmetric ? rint(ticks) : rint(ticks) + A(0)) * grid.step);
  }
};

template <typename T, typename A>
struct Backward {
  Grid<A> grid;
  A reciprocal;
  Sums<A> sums;

  __device__ explicit Backward(const Grid<A>& chosen) : grid(chosen), reciprocal(A(1) / chosen.step) {}

  __device__ T operator()(T grad, T x) {
    const A value = widened(x);
    const A g = widened(grad);
    const bool over = value > grid.high;
    const bool under = value < grid.low;
    const A passed = over || under ? A(0) : g;
    const A bounded = clamped(value, grid.low, grid.high);
    const A residual = fma(-rint(bounded * reciprocal), grid.step, bounded);
    sums.inside += passed * residual;
    sums.above += over ? g : A(0);
    sums.below += under ? g : A(0);
    return over || under ? narrowed<T>(A(0)) : grad;
  }
};

// How a tensor of long rows is cut: `pieces` of `length` elements for every row.
struct Pieces {
  int64_t inner;
  int64_t channels;
  int64_t pieces;
  int64_t length;
};

template <typename T, typename A, bool kSymmetric, int kCount>
__global__ void __launch_bounds__(kThreads)
    forward_rows(const T* __restrict__ x, T* __restrict__ y, Parameters<A> parameters, Pieces cut) {
  const int64_t row = blockIdx.x / cut.pieces;
  const int64_t piece = blockIdx.x % cut.pieces;
  const Forward<T, A, kSymmetric> quantize(parameters.template grid<kSymmetric>(row % cut.channels));
  const int64_t begin = row * cut.inner + piece * cut.length;
  const int64_t count = min(cut.length, cut.inner - piece * cut.length);
  using Values = Pack<T, kCount>;
#pragma unroll 4
  for (int64_t i = threadIdx.x * kCount; i < count; i += kThreads * kCount) {
    const Values in = *reinterpret_cast<const Values*>(x + begin + i);
    Values out;
#pragma unroll
    for (int k = 0; k < kCount; ++k) out.v[k] = quantize(in.v[k]);
    *reinterpret_cast<Values*>(y + begin + i) = out;
  }
}

template <typename T, typename A, bool kSymmetric, int kCount>
__global__ void __launch_bounds__(kThreads)
    backward_rows(const T* __restrict__ grad, const T* __restrict__ x, T* __restrict__ grad_x,
                  Sums<A>* __restrict__ parts, Parameters<A> parameters, Pieces cut) {
  const int64_t row = blockIdx.x / cut.pieces;
  const int64_t piece = blockIdx.x % cut.pieces;
  Backward<T, A> differentiate(parameters.template grid<kSymmetric>(row % cut.channels));
  const int64_t begin = row * cut.inner + piece * cut.length;
  const int64_t count = min(cut.length, cut.inner - piece * cut.length);
  using Values = Pack<T, kCount>;
#pragma unroll 2
  for (int64_t i = threadIdx.x * kCount; i < count; i += kThreads * kCount) {
    const Values g = *reinterpret_cast<const Values*>(grad + begin + i);
    const Values in = *reinterpret_cast<const Values*>(x + begin + i);
    Values out;
#pragma unroll
    for (int k = 0; k < kCount; ++k) out.v[k] = differentiate(g.v[k], in.v[k]);
    *reinterpret_cast<Values*>(grad_x + begin + i) = out;
  }
  const A inside = block_sum(differentiate.sums.inside);
  const A above = block_sum(differentiate.sums.above);
  const A below = block_sum(differentiate.sums.below);
  if (threadIdx.x == 0) parts[blockIdx.x] = {inside, above, below};
}

template <typename T, typename A, bool kSymmetric>
__global__ void __launch_bounds__(kThreads)
    forward_short_rows(const T* __restrict__ x, T* __restrict__ y, Parameters<A> parameters, int64_t rows,
                       int64_t channels, int64_t inner) {
  const int64_t row = int64_t(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (row >= rows) return;
  const Forward<T, A, kSymmetric> quantize(parameters.template grid<kSymmetric>(row % channels));
  for (int64_t i = threadIdx.x % kWarp; i < inner; i += kWarp) y[row * inner + i] = quantize(x[row * inner + i]);
}

template <typename T, typename A, bool kSymmetric>
__global__ void __launch_bounds__(kThreads)
    backward_short_rows(const T* __restrict__ grad, const T* __restrict__ x, T* __restrict__ grad_x,
                        Sums<A>* __restrict__ parts, Parameters<A> parameters, int64_t rows, int64_t channels,
                        int64_t inner) {
  const int64_t row = int64_t(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (row >= rows) return;
  Backward<T, A> differentiate(parameters.template grid<kSymmetric>(row % channels));
  for (int64_t i = threadIdx.x % kWarp; i < inner; i += kWarp) {
    const int64_t at = row * inner + i;
    grad_x[at] = differentiate(grad[at], x[at]);
  }
  const A inside = warp_sum(differentiate.sums.inside);
  const A above = warp_sum(differentiate.sums.above);
  const A below = warp_sum(differentiate.sums.below);
  if (threadIdx.x % kWarp == 0) parts[row] = {inside, above, below};
}

// Every thread keeps `kCount` neighbouring channels and goes down the rows of its block.
template <typename T, typename A, bool kSymmetric, int kCount>
__global__ void __launch_bounds__(kThreads)
    forward_columns(const T* __restrict__ x, T* __restrict__ y, Parameters<A> parameters, int64_t rows,
                    int64_t channels) {
  const int64_t channel = (int64_t(blockIdx.y) * kWarp + threadIdx.x % kWarp) * kCount;
  if (channel >= channels) return;
  A divisors[kCount], steps[kCount], lowest[kCount], highest[kCount];
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    const Forward<T, A, kSymmetric> quantize(parameters.template grid<kSymmetric>(channel + k));
    divisors[k] = quantize.divisor;
    steps[k] = quantize.grid.step;
    lowest[k] = quantize.grid.quant_min;
    highest[k] = quantize.grid.quant_max;
  }
  using Values = Pack<T, kCount>;
  const int64_t begin = int64_t(blockIdx.x) * kColumnRows;
  const int64_t end = min(rows, begin + kColumnRows);
  for (int64_t row = begin + threadIdx.x / kWarp; row < end; row += kThreads / kWarp) {
    const Values in = *reinterpret_cast<const Values*>(x + row * channels + channel);
    Values out;
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      const A value = widened(in.v[k]);
      const A ticks = clamped(kDivides<T> ? value / divisors[k] : value * divisors[k], lowest[k], highest[k]);
      out.v[k] = narrowed<T>((kSymmetric ? rint(ticks) : rint(ticks) + A(0)) * steps[k]);
    }
    *reinterpret_cast<Values*>(y + row * channels + channel) = out;
  }
}

template <typename T, typename A, bool kSymmetric, int kCount>
__global__ void __launch_bounds__(kThreads)
    backward_columns(const T* __restrict__ grad, const T* __restrict__ x, T* __restrict__ grad_x,
                     Sums<A>* __restrict__ parts, Parameters<A> parameters, int64_t rows, int64_t channels) {
  __shared__ Sums<A> shared[kThreads / kWarp][kWarp];
  const int lane = threadIdx.x % kWarp;
  const int group = threadIdx.x / kWarp;
  const int64_t channel = (int64_t(blockIdx.y) * kWarp + lane) * kCount;
  const bool present = channel < channels;
  using Values = Pack<T, kCount>;
  Sums<A> sums[kCount];
  if (present) {
    Grid<A> grids[kCount];
#pragma unroll
    for (int k = 0; k < kCount; ++k) grids[k] = parameters.template grid<kSymmetric>(channel + k);
    A reciprocals[kCount];
#pragma unroll
    for (int k = 0; k < kCount; ++k) reciprocals[k] = A(1) / grids[k].step;
    const int64_t begin = int64_t(blockIdx.x) * kColumnRows;
    const int64_t end = min(rows, begin + kColumnRows);
    for (int64_t row = begin + group; row < end; row += kThreads / kWarp) {
      const int64_t at = row * channels + channel;
      const Values g = *reinterpret_cast<const Values*>(grad + at);
      const Values in = *reinterpret_cast<const Values*>(x + at);
      Values out;
#pragma unroll
      for (int k = 0; k < kCount; ++k) {
        const A value = widened(in.v[k]);
        const A upstream = widened(g.v[k]);
        const bool over = value > grids[k].high;
        const bool under = value < grids[k].low;
        const A bounded = clamped(value, grids[k].low, grids[k].high);
        const A residual = fma(-rint(bounded * reciprocals[k]), grids[k].step, bounded);
        sums[k].inside += over || under ? A(0) : upstream * residual;
        sums[k].above += over ? upstream : A(0);
        sums[k].below += under ? upstream : A(0);
        out.v[k] = over || under ? narrowed<T>(A(0)) : g.v[k];
      }
      *reinterpret_cast<Values*>(grad_x + at) = out;
    }
  }
  for (int k = 0; k < kCount; ++k) {
    shared[group][lane] = sums[k];
    __syncthreads();
    if (group == 0 && present) {
      Sums<A> total;
      for (int other = 0; other < kThreads / kWarp; ++other) {
        total.inside += shared[other][lane].inside;
        total.above += shared[other][lane].above;
        total.below += shared[other][lane].below;
      }
      parts[int64_t(blockIdx.x) * channels + channel + k] = total;
    }
    __syncthreads();
  }
}

// Where the partial sums of a channel lie: slot(c, o, p) = (o * channels + c) * pieces + p.
template <typename A, bool kSymmetric>
__global__ void __launch_bounds__(kThreads)
    add_parts(const Sums<A>* __restrict__ parts, Parameters<A> parameters, int64_t outer, int64_t channels,
              int64_t pieces, A* __restrict__ grad_first, A* __restrict__ grad_second) {
  const int64_t channel = blockIdx.x;
  double inside = 0, above = 0, below = 0;
  for (int64_t i = threadIdx.x; i < outer * pieces; i += kThreads) {
    const Sums<A> part = parts[((i / pieces) * channels + channel) * pieces + i % pieces];
    inside += part.inside;
    above += part.above;
    below += part.below;
  }
  inside = block_sum(inside);
  above = block_sum(above);
  below = block_sum(below);
  if (threadIdx.x != 0) return;
  inside /= -double(parameters.template grid<kSymmetric>(channel).step);
  inside /= double(parameters.quant_max - parameters.quant_min);
  if constexpr (kSymmetric) {
    const double ratio = double(parameters.quant_min) / double(parameters.quant_max);
    grad_first[channel] = A(double(sign_of(parameters.first[channel])) * (inside + above + below * ratio));
  } else {
    grad_first[channel] = A(above + below);
    grad_second[channel] = A(double(sign_of(parameters.second[channel])) * (inside + above));
  }
}

Pieces cut(const Layout& layout, int count) {
  const int64_t pieces = (layout.inner + kPiece - 1) / kPiece;
  const int64_t even = (layout.inner + pieces - 1) / pieces;
  const int64_t length = (even + count - 1) / count * count;
  return {layout.inner, layout.channels, (layout.inner + length - 1) / length, length};
}

// True where every row begins on a multiple of 16 bytes.
template <typename T>
bool packs(const Layout& layout, int64_t row, const void* a, const void* b, const void* c) {
  const bool whole = layout.outer * layout.channels == 1 || row % kPack<T> == 0;
  return whole && row % kPack<T> == 0 && aligned(a) && aligned(b) && aligned(c);
}

template <typename T, typename A, bool kSymmetric>
void launch_forward(const T* x, T* y, const Layout& layout, const Parameters<A>& parameters, cudaStream_t stream) {
  const int64_t rows = layout.outer * layout.channels;
  if (layout.inner == 1 && layout.channels > 1) {
    const auto run = [&](auto count) {
      constexpr int kCount = decltype(count)::value;
      const dim3 grid(blocks_for((layout.outer + kColumnRows - 1) / kColumnRows),
                      blocks_for((layout.channels + kWarp * kCount - 1) / (kWarp * kCount)));
      forward_columns<T, A, kSymmetric, kCount>
          <<<grid, kThreads, 0, stream>>>(x, y, parameters, layout.outer, layout.channels);
    };
    if (packs<T>(layout, layout.channels, x, y, y)) {
      run(std::integral_constant<int, kPack<T>>{});
    } else {
      run(std::integral_constant<int, 1>{});
    }
  } else if (layout.inner <= kShortRow && rows > 1) {
    constexpr int64_t kRows = kThreads / kWarp;
    forward_short_rows<T, A, kSymmetric><<<blocks_for((rows + kRows - 1) / kRows), kThreads, 0, stream>>>(
        x, y, parameters, rows, layout.channels, layout.inner);
  } else if (packs<T>(layout, layout.inner, x, y, y)) {
    const Pieces pieces = cut(layout, kPack<T>);
    forward_rows<T, A, kSymmetric, kPack<T>>
        <<<blocks_for(rows * pieces.pieces), kThreads, 0, stream>>>(x, y, parameters, pieces);
  } else {
    const Pieces pieces = cut(layout, 1);
    forward_rows<T, A, kSymmetric, 1>
        <<<blocks_for(rows * pieces.pieces), kThreads, 0, stream>>>(x, y, parameters, pieces);
  }
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

// Room for partial sums on the device of `like`.
template <typename A>
Tensor room_for_sums(const Tensor& like, int64_t count) {
  constexpr ScalarType type = std::is_same_v<A, double> ? ScalarType::Double : ScalarType::Float;
  const std::array<int64_t, 1> size{count * 3};
  return torch::stable::new_empty(like, {size.data(), 1}, type);
}

template <typename T, typename A, bool kSymmetric>
void launch_backward(const Tensor& like, const T* grad, const T* x, T* grad_x, const Layout& layout,
                     const Parameters<A>& parameters, A* grad_first, A* grad_second, cudaStream_t stream) {
  const int64_t rows = layout.outer * layout.channels;
  int64_t outer = layout.outer;
  int64_t pieces = 1;
  Tensor room;
  if (layout.inner == 1 && layout.channels > 1) {
    outer = (layout.outer + kColumnRows - 1) / kColumnRows;
    room = room_for_sums<A>(like, outer * layout.channels);
    const auto run = [&](auto count) {
      constexpr int kCount = decltype(count)::value;
      const dim3 grid(blocks_for(outer), blocks_for((layout.channels + kWarp * kCount - 1) / (kWarp * kCount)));
      backward_columns<T, A, kSymmetric, kCount>
          <<<grid, kThreads, 0, stream>>>(grad, x, grad_x, static_cast<Sums<A>*>(room.data_ptr()), parameters,
                                          layout.outer, layout.channels);
    };
    if (packs<T>(layout, layout.channels, grad, x, grad_x)) {
      run(std::integral_constant<int, kPack<T>>{});
    } else {
      run(std::integral_constant<int, 1>{});
    }
  } else if (layout.inner <= kShortRow && rows > 1) {
    constexpr int64_t kRows = kThreads / kWarp;
    room = room_for_sums<A>(like, rows);
    backward_short_rows<T, A, kSymmetric><<<blocks_for((rows + kRows - 1) / kRows), kThreads, 0, stream>>>(
        grad, x, grad_x, static_cast<Sums<A>*>(room.data_ptr()), parameters, rows, layout.channels, layout.inner);
  } else {
    const bool whole = packs<T>(layout, layout.inner, grad, x, grad_x);
    const Pieces slices = cut(layout, whole ? kPack<T> : 1);
    pieces = slices.pieces;
    room = room_for_sums<A>(like, rows * pieces);
    Sums<A>* parts = static_cast<Sums<A>*>(room.data_ptr());
    if (whole) {
      backward_rows<T, A, kSymmetric, kPack<T>>
          <<<blocks_for(rows * pieces), kThreads, 0, stream>>>(grad, x, grad_x, parts, parameters, slices);
    } else {
      backward_rows<T, A, kSymmetric, 1>
          <<<blocks_for(rows * pieces), kThreads, 0, stream>>>(grad, x, grad_x, parts, parameters, slices);
    }
  }
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  add_parts<A, kSymmetric><<<blocks_for(layout.channels), kThreads, 0, stream>>>(
      static_cast<const Sums<A>*>(room.data_ptr()), parameters, outer, layout.channels, pieces, grad_first,
      grad_second);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

template <bool kSymmetric>
Tensor run_forward(const Tensor& x, const Tensor& first, const Tensor& second, int64_t quant_min, int64_t quant_max,
                   int64_t axis) {
  check_parameter(first, channels_of(x, axis));
  check_parameter(second, channels_of(x, axis));
  if (x.numel() == 0) return torch::stable::empty_like(x);
  if (widens_to_double(x, first)) {
    const Tensor wide = torch::stable::to(x, ScalarType::Double);
    return in_type_of(run_forward<kSymmetric>(wide, first, second, quant_min, quant_max, axis), x);
  }
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  Layout layout;
  const Tensor source = dense(x, axis, layout);
  Tensor result = torch::stable::empty_like(source);
  dispatch_cuda(x, [&](auto stored, auto compute) {
    using T = decltype(stored);
    using A = decltype(compute);
    const Tensor a = computed<A>(first), b = computed<A>(second);
    const Parameters<A> parameters{static_cast<const A*>(a.data_ptr()), static_cast<const A*>(b.data_ptr()), quant_min,
                                   quant_max};
    launch_forward<T, A, kSymmetric>(static_cast<const T*>(source.data_ptr()), static_cast<T*>(result.data_ptr()),
                                     layout, parameters, current_stream(x));
  });
  return result;
}

// Returns the gradients of `x`, `first` and `second`; the last is `first`'s where there is one parameter.
template <bool kSymmetric>
std::tuple<Tensor, Tensor, Tensor> run_backward(const Tensor& grad, const Tensor& x, const Tensor& first,
                                                const Tensor& second, int64_t quant_min, int64_t quant_max,
                                                int64_t axis) {
  const int64_t channels = channels_of(x, axis);
  check_parameter(first, channels);
  check_parameter(second, channels);
  if (x.numel() == 0) {
    Tensor none = torch::stable::empty_like(first), other = torch::stable::empty_like(second);
    return {torch::stable::empty_like(x), torch::stable::zero_(none), torch::stable::zero_(other)};
  }
  if (widens_to_double(x, first)) {
    const Tensor wide = torch::stable::to(x, ScalarType::Double);
    auto [grad_x, grad_first, grad_second] =
        run_backward<kSymmetric>(grad, wide, first, second, quant_min, quant_max, axis);
    return {in_type_of(grad_x, x), grad_first, grad_second};
  }
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  Layout layout;
  const Tensor source = dense(x, axis, layout);
  const Tensor upstream = in_layout_of(grad, source);
  Tensor result = torch::stable::empty_like(source);
  Tensor grad_first, grad_second;
  dispatch_cuda(x, [&](auto stored, auto compute) {
    using T = decltype(stored);
    using A = decltype(compute);
    const Tensor a = computed<A>(first), b = computed<A>(second);
    const Parameters<A> parameters{static_cast<const A*>(a.data_ptr()), static_cast<const A*>(b.data_ptr()), quant_min,
                                   quant_max};
    const Tensor of_first = torch::stable::new_empty(a, a.sizes());
    const Tensor of_second = kSymmetric ? of_first : torch::stable::new_empty(b, b.sizes());
    launch_backward<T, A, kSymmetric>(a, static_cast<const T*>(upstream.data_ptr()),
                                      static_cast<const T*>(source.data_ptr()), static_cast<T*>(result.data_ptr()),
                                      layout, parameters, static_cast<A*>(of_first.data_ptr()),
                                      static_cast<A*>(of_second.data_ptr()), current_stream(x));
    grad_first = like_parameter(first, of_first);
    grad_second = kSymmetric ? grad_first : like_parameter(second, of_second);
  });
  return {result, grad_first, grad_second};
}

Tensor symmetric(const Tensor& x, const Tensor& scale, int64_t quant_min, int64_t quant_max, int64_t axis) {
  return run_forward<true>(x, scale, scale, quant_min, quant_max, axis);
}

std::tuple<Tensor, Tensor> symmetric_backward(const Tensor& grad, const Tensor& x, const Tensor& scale,
                                              int64_t quant_min, int64_t quant_max, int64_t axis) {
  auto [grad_x, grad_scale, same] = run_backward<true>(grad, x, scale, scale, quant_min, quant_max, axis);
  return {grad_x, grad_scale};
}

Tensor asymmetric(const Tensor& x, const Tensor& input_low, const Tensor& input_range, int64_t levels, int64_t axis) {
  return run_forward<false>(x, input_low, input_range, 0, levels - 1, axis);
}

std::tuple<Tensor, Tensor, Tensor> asymmetric_backward(const Tensor& grad, const Tensor& x, const Tensor& input_low,
                                                       const Tensor& input_range, int64_t levels, int64_t axis) {
  return run_backward<false>(grad, x, input_low, input_range, 0, levels - 1, axis);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lightning_nncf, CUDA, m) {
  m.impl("fake_quantize_symmetric", TORCH_BOX(&symmetric));
  m.impl("fake_quantize_symmetric_forward", TORCH_BOX(&symmetric));
  m.impl("fake_quantize_symmetric_backward", TORCH_BOX(&symmetric_backward));
  m.impl("fake_quantize_asymmetric", TORCH_BOX(&asymmetric));
  m.impl("fake_quantize_asymmetric_forward", TORCH_BOX(&asymmetric));
  m.impl("fake_quantize_asymmetric_backward", TORCH_BOX(&asymmetric_backward));
}

}  // namespace lightning_nncf

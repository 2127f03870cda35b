// Binarization on the GPU: weights by their sign and mean magnitude, activations by a scale and a threshold.
#pragma once

#include "device_cuda.h"

namespace lightning_nncf {
namespace {

// The elements of one channel, one after the other, in a tensor [outer, channels, inner].
struct Channel {
  int64_t inner;
  int64_t channels;
  int64_t index;

  __device__ int64_t operator()(int64_t i) const {
    return ((i / inner) * channels + index) * inner + i % inner;
  }
};

// Block (p, c) leaves the sum of magnitudes of piece p of row c in slot c * pieces + p.
template <typename T, typename A>
__global__ void __launch_bounds__(kThreads)
    add_magnitudes(const T* __restrict__ x, double* __restrict__ parts, int64_t length) {
  const int64_t begin = int64_t(blockIdx.x) * kPiece;
  const int64_t end = min(length, begin + kPiece);
  double total = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    total += fabs(double(widened(x[blockIdx.y * length + i])));
  }
  total = block_sum(total);
  if (threadIdx.x == 0) parts[blockIdx.y * int64_t(gridDim.x) + blockIdx.x] = total;
}

template <typename T, typename A>
__global__ void __launch_bounds__(kThreads)
    write_signs(const T* __restrict__ x, T* __restrict__ y, const double* __restrict__ parts, int64_t length) {
  double total = 0;
  for (int64_t i = threadIdx.x; i < gridDim.x; i += kThreads) total += parts[blockIdx.y * int64_t(gridDim.x) + i];
  total = block_sum(total);
  __shared__ double mean;
  if (threadIdx.x == 0) mean = total / double(length);
  __syncthreads();
  const T plus = narrowed<T>(A(mean)), minus = narrowed<T>(-A(mean));
  const int64_t begin = int64_t(blockIdx.x) * kPiece;
  const int64_t end = min(length, begin + kPiece);
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const int64_t at = blockIdx.y * length + i;
    y[at] = widened(x[at]) > A(0) ? plus : minus;
  }
}

Tensor binarize_weights(const Tensor& x, bool per_filter) {
  if (x.numel() == 0) return torch::stable::empty_like(x);
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  Layout layout;
  const int64_t axis = per_filter && x.dim() > 0 ? 0 : -1;
  Tensor source = dense(x, axis, layout);
  if (layout.outer != 1) {
    source = packed(x);
    describe(source, axis, layout);
  }
  Tensor result = torch::stable::empty_like(source);
  const int64_t pieces = (layout.inner + kPiece - 1) / kPiece;
  STD_TORCH_CHECK(layout.channels <= 65535, "weights of more than 65535 filters are not supported");
  const std::array<int64_t, 1> size{pieces * layout.channels};
  const Tensor parts = torch::stable::new_empty(source, {size.data(), 1}, ScalarType::Double);
  const cudaStream_t stream = current_stream(x);
  const dim3 grid(blocks_for(pieces), blocks_for(layout.channels));
  dispatch_cuda(x, [&](auto stored, auto compute) {
    using T = decltype(stored);
    using A = decltype(compute);
    const T* from = static_cast<const T*>(source.data_ptr());
    double* sums = static_cast<double*>(parts.data_ptr());
    add_magnitudes<T, A><<<grid, kThreads, 0, stream>>>(from, sums, layout.inner);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    write_signs<T, A>
        <<<grid, kThreads, 0, stream>>>(from, static_cast<T*>(result.data_ptr()), sums, layout.inner);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return like_parameter(x, result);
}

template <typename T, typename A>
__global__ void __launch_bounds__(kThreads)
    activate(const T* __restrict__ x, T* __restrict__ y, const A* __restrict__ scale, const A* __restrict__ thresholds,
             int64_t numel, int64_t channels, int64_t inner) {
  const A height = *scale;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < numel; i += int64_t(gridDim.x) * kThreads) {
    const int64_t channel = channels == 1 ? 0 : i / inner % channels;
    y[i] = narrowed<T>(A(widened(x[i])) > thresholds[channel] * height ? height : A(0));
  }
}

template <typename A>
struct Slopes {
  A scale;
  A threshold;
};

// Block (p, c) takes piece p of channel c and leaves its sums in slot c * pieces + p.
template <typename T, typename A>
__global__ void __launch_bounds__(kThreads)
    differentiate(const T* __restrict__ grad, const T* __restrict__ x, T* __restrict__ grad_x,
                  const A* __restrict__ scale, const A* __restrict__ thresholds, Slopes<A>* __restrict__ parts,
                  int64_t outer, int64_t channels, int64_t inner) {
  const int64_t index = blockIdx.y;
  const A height = *scale, bound = thresholds[index] * height;
  const Channel channel{inner, channels, index};
  const int64_t begin = int64_t(blockIdx.x) * kPiece;
  const int64_t end = min(outer * inner, begin + kPiece);
  A of_scale = 0, of_threshold = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const int64_t at = channel(i);
    const A value = widened(x[at]);
    const A g = widened(grad[at]);
    of_scale += g * (value <= height ? A(value > bound) - value / height : A(1));
    of_threshold -= value > A(0) && value < height ? g : A(0);
    grad_x[at] = value >= A(0) && value <= height ? grad[at] : narrowed<T>(A(0));
  }
  of_scale = block_sum(of_scale);
  of_threshold = block_sum(of_threshold);
  if (threadIdx.x == 0) parts[index * gridDim.x + blockIdx.x] = {of_scale, of_threshold};
}

// One block adds up everything in order: a thread each channel's threshold, and all of them the scale.
template <typename A>
__global__ void __launch_bounds__(kThreads)
    add_slopes(const Slopes<A>* __restrict__ parts, int64_t channels, int64_t pieces, A* __restrict__ of_scale,
               A* __restrict__ of_threshold) {
  double total = 0;
  for (int64_t c = threadIdx.x; c < channels; c += kThreads) {
    double own = 0;
    for (int64_t p = 0; p < pieces; ++p) {
      total += parts[c * pieces + p].scale;
      own += parts[c * pieces + p].threshold;
    }
    of_threshold[c] = A(own);
  }
  total = block_sum(total);
  if (threadIdx.x == 0) *of_scale = A(total);
}

Tensor binarize_activations(const Tensor& x, const Tensor& scale, const Tensor& threshold, int64_t axis) {
  check_parameter(scale, 1);
  check_parameter(threshold, channels_of(x, axis));
  if (x.numel() == 0) return torch::stable::empty_like(x);
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  Layout layout;
  const Tensor source = dense(x, axis, layout);
  Tensor result = torch::stable::empty_like(source);
  const int64_t blocks = std::min<int64_t>((x.numel() + kThreads - 1) / kThreads, 8192);
  dispatch_cuda(x, [&](auto stored, auto compute) {
    using T = decltype(stored);
    using A = decltype(compute);
    const Tensor height = computed<A>(scale), bounds = computed<A>(threshold);
    activate<T, A><<<blocks_for(blocks), kThreads, 0, current_stream(x)>>>(
        static_cast<const T*>(source.data_ptr()), static_cast<T*>(result.data_ptr()),
        static_cast<const A*>(height.data_ptr()), static_cast<const A*>(bounds.data_ptr()), x.numel(),
        layout.channels, layout.inner);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return result;
}

std::tuple<Tensor, Tensor, Tensor> binarize_activations_backward(const Tensor& grad, const Tensor& x,
                                                                 const Tensor& scale, const Tensor& threshold,
                                                                 int64_t axis) {
  check_parameter(scale, 1);
  check_parameter(threshold, channels_of(x, axis));
  if (x.numel() == 0) {
    Tensor none = torch::stable::empty_like(scale), others = torch::stable::empty_like(threshold);
    return {torch::stable::empty_like(x), torch::stable::zero_(none), torch::stable::zero_(others)};
  }
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  Layout layout;
  const Tensor source = dense(x, axis, layout);
  const Tensor upstream = in_layout_of(grad, source);
  Tensor result = torch::stable::empty_like(source);
  const int64_t pieces = (layout.outer * layout.inner + kPiece - 1) / kPiece;
  STD_TORCH_CHECK(layout.channels <= 65535, "more than 65535 channels are not supported");
  const cudaStream_t stream = current_stream(x);
  Tensor grad_scale, grad_threshold;
  dispatch_cuda(x, [&](auto stored, auto compute) {
    using T = decltype(stored);
    using A = decltype(compute);
    const Tensor height = computed<A>(scale), bounds = computed<A>(threshold);
    const Tensor of_scale = torch::stable::new_empty(height, height.sizes());
    const Tensor of_threshold = torch::stable::new_empty(bounds, bounds.sizes());
    const std::array<int64_t, 1> size{pieces * layout.channels * 2};
    const Tensor parts = torch::stable::new_empty(height, {size.data(), 1});
    Slopes<A>* slots = static_cast<Slopes<A>*>(parts.data_ptr());
    differentiate<T, A><<<dim3(blocks_for(pieces), blocks_for(layout.channels)), kThreads, 0, stream>>>(
        static_cast<const T*>(upstream.data_ptr()), static_cast<const T*>(source.data_ptr()),
        static_cast<T*>(result.data_ptr()), static_cast<const A*>(height.data_ptr()),
        static_cast<const A*>(bounds.data_ptr()), slots, layout.outer, layout.channels, layout.inner);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    add_slopes<A><<<1, kThreads, 0, stream>>>(slots, layout.channels, pieces, static_cast<A*>(of_scale.data_ptr()),
                                              static_cast<A*>(of_threshold.data_ptr()));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    grad_scale = like_parameter(scale, of_scale);
    grad_threshold = like_parameter(threshold, of_threshold);
  });
  return {result, grad_scale, grad_threshold};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lightning_nncf, CUDA, m) {
  m.impl("binarize_weights", TORCH_BOX(&binarize_weights));
  m.impl("binarize_activations", TORCH_BOX(&binarize_activations));
  m.impl("binarize_activations_backward", TORCH_BOX(&binarize_activations_backward));
}

}  // namespace lightning_nncf

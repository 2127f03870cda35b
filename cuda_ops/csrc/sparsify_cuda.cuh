// RB sparsity on the GPU: a mask is drawn from its logits and applied in one pass, and drawn again in backward.
#pragma once

#include "device_cuda.h"
#include "random.h"

namespace lightning_nncf {
namespace {

constexpr int64_t kBlocks = 8192;

// The odds of an element: it is kept where `raised` (of the logit and the draw) exceeds `rest`.
template <typename A>
struct Odds {
  A raised;
  A rest;

  __device__ Odds(A logit, int64_t position, int64_t seed) {
    const uint64_t bits = static_cast<uint64_t>(seed);
    const A drawn = A(uniform(uint32_t(position), uint32_t(bits), uint32_t(bits >> 32)));
    const A u = fmin(fmax(drawn, A(1e-6f)), A(1) - A(1e-6f));
    raised = exp(fmin(fmax(logit, A(-60)), A(60))) * u;
    rest = A(1) - u;
  }
};

template <typename T, typename A>
__global__ void __launch_bounds__(kThreads)
    mask(const T* __restrict__ x, const A* __restrict__ logits, const int64_t* __restrict__ seed, T* __restrict__ y,
         int64_t numel) {
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < numel; i += int64_t(gridDim.x) * kThreads) {
    const Odds<A> odds(logits[i], i, *seed);
    y[i] = odds.raised > odds.rest ? x[i] : narrowed<T>(A(0));
  }
}

template <typename T, typename A>
__global__ void __launch_bounds__(kThreads)
    mask_backward(const T* __restrict__ grad, const T* __restrict__ x, const A* __restrict__ logits,
                  const int64_t* __restrict__ seed, T* __restrict__ grad_x, A* __restrict__ grad_logits,
                  int64_t numel) {
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < numel; i += int64_t(gridDim.x) * kThreads) {
    const Odds<A> odds(logits[i], i, *seed);
    const A share = odds.raised / (odds.raised + odds.rest);
    grad_logits[i] = A(widened(grad[i])) * A(widened(x[i])) * (share * (A(1) - share));
    grad_x[i] = odds.raised > odds.rest ? grad[i] : narrowed<T>(A(0));
  }
}

void check(const Tensor& x, const Tensor& logits, const Tensor& seed) {
  STD_TORCH_CHECK(x.numel() == logits.numel() && x.dim() == logits.dim(), "the logits need the shape of the tensor");
  STD_TORCH_CHECK(seed.numel() == 1 && seed.scalar_type() == ScalarType::Long, "expected a seed of one int64 value");
}

// The seed where the kernel can read it.
Tensor placed(const Tensor& seed, const Tensor& x) {
  return seed.is_cuda() ? seed : torch::stable::to(seed, x.device());
}

unsigned int blocks(const Tensor& x) {
  return blocks_for(std::min<int64_t>((x.numel() + kThreads - 1) / kThreads, kBlocks));
}

Tensor sample_and_mask(const Tensor& x, const Tensor& logits, const Tensor& seed) {
  check(x, logits, seed);
  if (x.numel() == 0) return torch::stable::empty_like(x);
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const Tensor source = packed(x);
  const Tensor drawn_from = placed(seed, x);
  Tensor result = torch::stable::empty_like(source);
  dispatch_cuda(x, [&](auto stored, auto compute) {
    using T = decltype(stored);
    using A = decltype(compute);
    const Tensor held = computed<A>(logits);
    mask<T, A><<<blocks(x), kThreads, 0, current_stream(x)>>>(
        static_cast<const T*>(source.data_ptr()), static_cast<const A*>(held.data_ptr()),
        static_cast<const int64_t*>(drawn_from.data_ptr()), static_cast<T*>(result.data_ptr()), x.numel());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return like_parameter(x, result);
}

std::tuple<Tensor, Tensor> sample_and_mask_backward(const Tensor& grad, const Tensor& x, const Tensor& logits,
                                                    const Tensor& seed) {
  check(x, logits, seed);
  if (x.numel() == 0) return {torch::stable::empty_like(x), torch::stable::empty_like(logits)};
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const Tensor source = packed(x);
  const Tensor upstream = in_layout_of(grad, source);
  const Tensor drawn_from = placed(seed, x);
  Tensor result = torch::stable::empty_like(source);
  Tensor of_logits;
  dispatch_cuda(x, [&](auto stored, auto compute) {
    using T = decltype(stored);
    using A = decltype(compute);
    const Tensor held = computed<A>(logits);
    of_logits = torch::stable::empty_like(held);
    mask_backward<T, A><<<blocks(x), kThreads, 0, current_stream(x)>>>(
        static_cast<const T*>(upstream.data_ptr()), static_cast<const T*>(source.data_ptr()),
        static_cast<const A*>(held.data_ptr()), static_cast<const int64_t*>(drawn_from.data_ptr()),
        static_cast<T*>(result.data_ptr()), static_cast<A*>(of_logits.data_ptr()), x.numel());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {like_parameter(x, result), like_parameter(logits, of_logits)};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lightning_nncf, CUDA, m) {
  m.impl("sample_and_mask", TORCH_BOX(&sample_and_mask));
  m.impl("sample_and_mask_backward", TORCH_BOX(&sample_and_mask_backward));
}

}  // namespace lightning_nncf

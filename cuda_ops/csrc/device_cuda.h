// What the CUDA kernels share: storage types, packs of values, launching.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <type_traits>

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include "layout.h"

namespace lightning_nncf {

constexpr int kThreads = 256;
constexpr int64_t kPiece = 8192;  // most elements of a row for one block
constexpr int kWarp = 32;

__device__ inline float widened(float value) { return value; }
__device__ inline double widened(double value) { return value; }
__device__ inline float widened(__half value) { return __half2float(value); }
__device__ inline float widened(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename T>
__device__ inline T narrowed(double value) {
  if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(float(value));
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(float(value));
  } else {
    return T(value);
  }
}

template <typename T>
__device__ inline T narrowed(float value) {
  if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(value);
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(value);
  } else {
    return T(value);
  }
}

// Values that one thread loads at once.
template <typename T, int Count>
struct alignas(sizeof(T) * Count) Pack {
  T v[Count];
};

// Values of `T` in 16 bytes.
template <typename T>
constexpr int kPack = 16 / int(sizeof(T));

// Adds up a value over the lanes of a warp, in a fixed order; every lane gets the sum.
template <typename A>
__device__ inline A warp_sum(A value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

// Adds up a value over a block of `kThreads` threads, in a fixed order; the first thread gets the sum.
template <typename A>
__device__ inline A block_sum(A value) {
  __shared__ A parts[kThreads / kWarp];
  value = warp_sum(value);
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = value;
  __syncthreads();
  A total = threadIdx.x < kThreads / kWarp ? parts[threadIdx.x] : A(0);
  if (threadIdx.x < kWarp) total = warp_sum(total);
  __syncthreads();
  return total;
}

inline cudaStream_t current_stream(const Tensor& x) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

inline unsigned int blocks_for(int64_t count) {
  STD_TORCH_CHECK(count <= 0x7fffffff, "the tensor is too large for one kernel launch");
  return static_cast<unsigned int>(count);
}

inline bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

// Calls `body` with a value of the storage type and one of the computation type.
template <typename F>
void dispatch_cuda(const Tensor& x, const F& body) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return body(float{}, float{});
    case ScalarType::BFloat16:
      return body(__nv_bfloat16{}, float{});
    case ScalarType::Half:
      return body(__half{}, float{});
    case ScalarType::Double:
      return body(double{}, double{});
    default:
      STD_TORCH_CHECK(false, "expected a tensor of a floating-point type");
  }
}

// A parameter in the type of the computation, its values one after the other.
template <typename A>
Tensor computed(const Tensor& parameter) {
  constexpr ScalarType type = std::is_same_v<A, double> ? ScalarType::Double : ScalarType::Float;
  return packed(parameter.scalar_type() == type ? parameter : torch::stable::to(parameter, type));
}

// Gives `values` the type and the strides of a parameter.
inline Tensor like_parameter(const Tensor& parameter, const Tensor& values) {
  if (values.scalar_type() == parameter.scalar_type() && same_strides(values, parameter)) return values;
  Tensor result = torch::stable::empty_like(parameter);
  torch::stable::copy_(result, values);
  return result;
}

}  // namespace lightning_nncf

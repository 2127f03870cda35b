// What the CPU kernels share: types at run time, the values of parameters, results.
#pragma once

#include <cstdlib>
#include <memory>
#include <vector>

#include "buffers_cpu.h"
#include "convert_cpu.h"
#include "layout.h"

namespace lightning_nncf {

constexpr int64_t kGrain = 32768;   // elements worth a thread
constexpr int64_t kShortRow = 128;  // elements of rows of channels that are taken together

constexpr int64_t kLine = 64;  // bytes of a cache line, and of the widest vector

struct Release {
  void operator()(void* block) const { std::free(block); }
};

template <typename A>
using Array = std::unique_ptr<A[], Release>;

// The next number of values that fills whole cache lines.
template <typename A>
constexpr int64_t whole_lines(int64_t count) {
  constexpr int64_t kValues = kLine / sizeof(A);
  return (count + kValues - 1) / kValues * kValues;
}

// An array that begins at a cache line; its values are not set.
template <typename A>
Array<A> aligned_array(int64_t count) {
  void* block = std::aligned_alloc(kLine, whole_lines<A>(std::max<int64_t>(count, 1)) * sizeof(A));
  STD_TORCH_CHECK(block != nullptr, "cannot allocate ", count, " values");
  return Array<A>(static_cast<A*>(block));
}

// Calls `body` with a value of the storage type and one of the computation type.
template <typename F>
void dispatch(const Tensor& x, const F& body) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return body(float{}, float{});
    case ScalarType::BFloat16:
      return body(bfloat16_t{}, float{});
    case ScalarType::Half:
      return body(half_t{}, float{});
    case ScalarType::Double:
      return body(double{}, double{});
    default:
      STD_TORCH_CHECK(false, "expected a tensor of a floating-point type");
  }
}

// The values of a parameter in the type of the computation.
template <typename A>
std::vector<A> values_of(const Tensor& parameter) {
  const Tensor held = packed(parameter);
  std::vector<A> values(held.numel());
  const void* data = held.data_ptr();
  switch (held.scalar_type()) {
    case ScalarType::Float:
      widen(static_cast<const float*>(data), values.data(), values.size());
      break;
    case ScalarType::Double:
      widen(static_cast<const double*>(data), values.data(), values.size());
      break;
    case ScalarType::BFloat16:
      widen(static_cast<const bfloat16_t*>(data), values.data(), values.size());
      break;
    case ScalarType::Half:
      widen(static_cast<const half_t*>(data), values.data(), values.size());
      break;
    default:
      STD_TORCH_CHECK(false, "expected parameters of a floating-point type");
  }
  return values;
}

// The values of a parameter in the type of the computation, where they lie if they are of that type.
template <typename A>
class Values {
 public:
  explicit Values(const Tensor& parameter) : held_(packed(parameter)) {
    const ScalarType type = held_.scalar_type();
    if (type == (std::is_same_v<A, float> ? ScalarType::Float : ScalarType::Double)) {
      data_ = static_cast<const A*>(held_.data_ptr());
    } else {
      converted_ = values_of<A>(held_);
      data_ = converted_.data();
    }
    count_ = held_.numel();
  }
  Values(const Values&) = delete;

  int64_t count() const { return count_; }
  A operator[](int64_t c) const { return data_[c]; }

 private:
  Tensor held_;
  std::vector<A> converted_;
  const A* data_;
  int64_t count_;
};

// A new tensor in the shape, type and strides of a parameter.
inline Tensor like_parameter(const Tensor& parameter, const std::vector<double>& values) {
  Tensor held = parameter.is_contiguous() ? empty_as(parameter) : torch::stable::new_empty(parameter, parameter.sizes());
  void* data = held.data_ptr();
  const int64_t count = values.size();
  switch (held.scalar_type()) {
    case ScalarType::Float:
      narrow(values.data(), static_cast<float*>(data), count);
      break;
    case ScalarType::Double:
      narrow(values.data(), static_cast<double*>(data), count);
      break;
    case ScalarType::BFloat16:
      narrow(values.data(), static_cast<bfloat16_t*>(data), count);
      break;
    default:
      narrow(values.data(), static_cast<half_t*>(data), count);
  }
  if (parameter.is_contiguous()) return held;
  Tensor result = torch::stable::empty_like(parameter);
  torch::stable::copy_(result, held);
  return result;
}

}  // namespace lightning_nncf

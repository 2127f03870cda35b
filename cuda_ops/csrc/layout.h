// How a tensor lies in memory, seen from the axis of its channels.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

namespace lightning_nncf {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int kMaxDims = 64;

// A dense tensor in memory order is [outer, channels, inner]; per tensor it is [1, 1, numel].
struct Layout {
  int64_t outer = 1;
  int64_t channels = 1;
  int64_t inner = 1;

  int64_t numel() const { return outer * channels * inner; }
};

// True where the elements fill one block of memory without holes or overlap; then `layout` says in which order.
inline bool describe(const Tensor& x, int64_t axis, Layout& layout) {
  const int64_t dims = x.dim();
  STD_TORCH_CHECK(dims <= kMaxDims, "a tensor of ", dims, " dimensions is not supported");
  const auto sizes = x.sizes();
  const auto strides = x.strides();
  std::array<int64_t, kMaxDims> order{};
  int64_t count = 0;
  for (int64_t dim = 0; dim < dims; ++dim) {
    if (sizes[dim] != 1) order[count++] = dim;
  }
  std::stable_sort(order.begin(), order.begin() + count, [&](int64_t a, int64_t b) { return strides[a] > strides[b]; });
  int64_t expected = 1;
  int64_t inner = 1;
  bool found = false;
  for (int64_t i = count; i-- > 0;) {
    const int64_t dim = order[i];
    if (strides[dim] != expected) return false;
    if (dim == axis) {
      inner = expected;
      found = true;
    }
    expected *= sizes[dim];
  }
  layout = Layout{};
  if (!found) {
    layout.inner = expected;
    return true;
  }
  layout.inner = inner;
  layout.channels = sizes[axis];
  layout.outer = expected / (inner * layout.channels);
  return true;
}

inline bool same_strides(const Tensor& a, const Tensor& b) {
  const auto sizes = a.sizes();
  const auto left = a.strides();
  const auto right = b.strides();
  for (int64_t dim = 0; dim < a.dim(); ++dim) {
    if (sizes[dim] != 1 && left[dim] != right[dim]) return false;
  }
  return true;
}

// Returns `x` itself where it is dense, else a dense copy; `layout` describes what is returned.
inline Tensor dense(const Tensor& x, int64_t axis, Layout& layout) {
  if (describe(x, axis, layout)) return x;
  Tensor copy = torch::stable::empty_like(x);
  torch::stable::copy_(copy, x);
  STD_TORCH_CHECK(describe(copy, axis, layout), "a copy of a tensor is not dense");
  return copy;
}

// Returns `x` in the strides and the type of `like`.
inline Tensor in_layout_of(const Tensor& x, const Tensor& like) {
  STD_TORCH_CHECK(x.dim() == like.dim() && x.numel() == like.numel(), "the gradient has another shape than the input");
  if (x.scalar_type() == like.scalar_type() && same_strides(x, like)) return x;
  Tensor copy = torch::stable::empty_like(like);
  torch::stable::copy_(copy, x);
  return copy;
}

// A new tensor in the shape, type and strides of `x`, which has no holes. Asked of the dispatcher, it costs three times
// as much.
inline Tensor empty_as(const Tensor& x) {
  const auto sizes = x.sizes();
  int32_t type, device;
  AtenTensorHandle made;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(x.get(), &type));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(x.get(), &device));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(sizes.size(), sizes.data(), x.strides().data(), type, device,
                                                         x.get_device_index(), &made));
  return Tensor(made);
}

inline Tensor packed(const Tensor& x) { return x.is_contiguous() ? x : torch::stable::contiguous(x); }

inline int64_t channels_of(const Tensor& x, int64_t axis) {
  if (axis < 0) return 1;
  STD_TORCH_CHECK(axis < x.dim(), "`axis` ", axis, " is out of range for a tensor of ", x.dim(), " dimensions");
  return x.size(axis);
}

inline void check_parameter(const Tensor& parameter, int64_t channels) {
  STD_TORCH_CHECK(parameter.numel() == channels, "expected parameters with ", channels, " values, got ",
                  parameter.numel());
}

// True where a parameter asks for more precision than the tensor has; such a tensor is computed as float64.
inline bool widens_to_double(const Tensor& x, const Tensor& parameter) {
  return parameter.scalar_type() == ScalarType::Double && x.scalar_type() != ScalarType::Double;
}

inline Tensor in_type_of(const Tensor& x, const Tensor& like) { return torch::stable::to(x, like.scalar_type()); }

}  // namespace lightning_nncf

#include "buffers_cpu.h"

namespace lightning_nncf {

Buffers& Buffers::instance() {
  static Buffers* buffers = new Buffers();
  return *buffers;
}

namespace {

int64_t bytes_of(ScalarType type) {
  switch (type) {
    case ScalarType::Double:
      return 8;
    case ScalarType::Float:
      return 4;
    default:
      return 2;
  }
}

}  // namespace

Tensor empty_like_dense(const Tensor& x) {
#if TORCH_FEATURE_VERSION >= TORCH_VERSION_2_11_0
  const int64_t bytes = x.numel() * bytes_of(x.scalar_type());
  if (bytes >= Buffers::kSmallest) {
    void* block = Buffers::instance().take(bytes);
    return torch::stable::from_blob(block, x.sizes(), x.strides(), x.device(), x.scalar_type(),
                                    +[](void* data) { Buffers::instance().give_back(data); });
  }
#endif
  return empty_as(x);
}

}  // namespace lightning_nncf

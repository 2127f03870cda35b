// Memory for large results on the CPU, kept for the next call.
//
// The C library returns freed blocks of this size to the system, and every new one pays a page fault for each 4 KiB:
// in a training step that costs more than fake quantization itself. Blocks are reused by size instead; what is kept
// never exceeds what was once in use at the same time by more than a quarter.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

#include <sys/mman.h>

#include "layout.h"

namespace lightning_nncf {

class Buffers {
 public:
  static constexpr int64_t kSmallest = 128 << 10;  // below, the C library reuses memory itself
  static constexpr int64_t kSlack = 32 << 20;
  static constexpr int64_t kHugePage = 2 << 20;

  // One for the process; never destroyed, since tensors may outlive static objects.
  static Buffers& instance() {
    static Buffers* buffers = new Buffers();
    return *buffers;
  }

  void* take(int64_t bytes) {
    const int64_t size = rounded(bytes);
    {
      const std::lock_guard<std::mutex> guard(mutex_);
      used_ += size;
      most_used_ = std::max(most_used_, used_);
      auto& blocks = free_[size];
      if (!blocks.empty()) {
        void* block = blocks.back();
        blocks.pop_back();
        kept_ -= size;
        sizes_[block] = size;
        return block;
      }
    }
    const bool huge = size >= 2 * kHugePage;
    void* block = nullptr;
    const int error = posix_memalign(&block, huge ? kHugePage : 64, size);
    const std::lock_guard<std::mutex> guard(mutex_);
    if (error != 0) {
      used_ -= size;
      STD_TORCH_CHECK(false, "cannot allocate ", size, " bytes");
    }
#ifdef MADV_HUGEPAGE
    if (huge) madvise(block, size, MADV_HUGEPAGE);
#endif
    sizes_[block] = size;
    return block;
  }

  void give_back(void* block) {
    std::vector<void*> surplus;
    {
      const std::lock_guard<std::mutex> guard(mutex_);
      const auto found = sizes_.find(block);
      const int64_t size = found->second;
      sizes_.erase(found);
      used_ -= size;
      kept_ += size;
      free_[size].push_back(block);
      const int64_t limit = most_used_ + most_used_ / 4 + kSlack;
      for (auto it = free_.begin(); it != free_.end() && used_ + kept_ > limit; ++it) {
        auto& blocks = it->second;
        while (!blocks.empty() && used_ + kept_ > limit) {
          surplus.push_back(blocks.back());
          blocks.pop_back();
          kept_ -= it->first;
        }
      }
    }
    for (void* each : surplus) std::free(each);
  }

 private:
  // Up to an eighth of the next lower power of two, so that nearly equal sizes share blocks.
  static int64_t rounded(int64_t bytes) {
    int64_t power = kSmallest;
    while (power * 2 <= bytes) power *= 2;
    const int64_t unit = power / 8;
    return (bytes + unit - 1) / unit * unit;
  }

  std::mutex mutex_;
  std::map<int64_t, std::vector<void*>> free_;
  std::unordered_map<void*, int64_t> sizes_;
  int64_t used_ = 0;
  int64_t kept_ = 0;
  int64_t most_used_ = 0;
};

inline int64_t bytes_of(ScalarType type) {
  switch (type) {
    case ScalarType::Double:
      return 8;
    case ScalarType::Float:
      return 4;
    default:
      return 2;
  }
}

// A new tensor in the shape, type and strides of a dense one.
inline Tensor empty_like_dense(const Tensor& x) {
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

// Vectors of the computation type: AVX-512, AVX2, or plain loops.
#pragma once

#include "lanes_cpu.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#include "floats_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "floats_avx2.h"
#else
namespace lightning_nncf {
using Floats = Lanes<float, 8>;
}
#endif

namespace lightning_nncf {

// The vectors of a computation type.
template <typename A>
using Vector = std::conditional_t<std::is_same_v<A, float>, Floats, Lanes<A, 4>>;

template <typename V, typename T>
inline void load_pair(const T* from, V& first, V& second) {
  first = V::load(from);
  second = V::load(from + V::kWidth);
}

template <typename V, typename T>
inline void store_pair(const V& first, const V& second, T* to) {
  first.store(to);
  second.store(to + V::kWidth);
}

}  // namespace lightning_nncf

// Half types on the CPU: blocks are widened into a small buffer, computed there, and narrowed again.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <torch/headeronly/util/Half.h>

#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace lightning_nncf {

struct half_t {
  uint16_t bits;
};

struct bfloat16_t {
  uint16_t bits;
};

template <typename T, typename A>
inline void widen(const T* source, A* target, int64_t count) {
  for (int64_t i = 0; i < count; ++i) target[i] = A(source[i]);
}

template <typename A>
inline void widen(const bfloat16_t* source, A* target, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = uint32_t(source[i].bits) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    target[i] = A(value);
  }
}

inline float widen_one(half_t value) {
#if defined(__F16C__)
  return _cvtsh_ss(value.bits);
#else
  return static_cast<float>(c10::Half(value.bits, c10::Half::from_bits()));
#endif
}

template <typename A>
inline void widen(const half_t* source, A* target, int64_t count) {
  int64_t i = 0;
#if defined(__F16C__)
  if constexpr (std::is_same_v<A, float>) {
    for (; i + 8 <= count; i += 8) {
      const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source + i));
      _mm256_storeu_ps(target + i, _mm256_cvtph_ps(bits));
    }
  }
#endif
  for (; i < count; ++i) target[i] = A(widen_one(source[i]));
}

template <typename T, typename A>
inline void narrow(const A* source, T* target, int64_t count) {
  for (int64_t i = 0; i < count; ++i) target[i] = T(source[i]);
}

template <typename A>
inline void narrow(const A* source, bfloat16_t* target, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const float value = float(source[i]);
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    target[i].bits = uint16_t(value != value ? 0x7fc0u : rounded);
  }
}

inline half_t narrow_one(float value) {
#if defined(__F16C__)
  return {uint16_t(_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT))};
#else
  return {c10::Half(value).x};
#endif
}

template <typename A>
inline void narrow(const A* source, half_t* target, int64_t count) {
  int64_t i = 0;
#if defined(__F16C__)
  if constexpr (std::is_same_v<A, float>) {
    for (; i + 8 <= count; i += 8) {
      const __m128i bits = _mm256_cvtps_ph(_mm256_loadu_ps(source + i), _MM_FROUND_TO_NEAREST_INT);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(target + i), bits);
    }
  }
#endif
  for (; i < count; ++i) target[i] = narrow_one(float(source[i]));
}

}  // namespace lightning_nncf

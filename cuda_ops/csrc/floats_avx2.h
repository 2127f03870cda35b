// Eight float32 lanes in AVX2 registers.
#pragma once

#include "convert_cpu.h"

namespace lightning_nncf {

struct Floats {
  using Scalar = float;
  using Mask = __m256;
  static constexpr int kWidth = 8;
  __m256 v;

  // A copy in a register, where GCC would copy a whole struct of vectors through memory.
  Floats same() const { return {v}; }
  static Floats set(float value) { return {_mm256_set1_ps(value)}; }
  static Floats load(const float* from) { return {_mm256_loadu_ps(from)}; }
  static Floats load(const bfloat16_t* from) {
    const __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(bits, 16))};
  }
  static Floats load(const half_t* from) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)))};
  }
  void store(float* to) const { _mm256_storeu_ps(to, v); }
  void store(bfloat16_t* to) const {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, odd), _mm256_set1_epi32(0x7fff));
    const __m256 rounded = _mm256_blendv_ps(_mm256_castsi256_ps(sum), _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000)),
                                            _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    store_high(to, _mm256_castps_si256(rounded));
  }
  void store(half_t* to) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  void store_unrounded(float* to) const { store(to); }
  void store_unrounded(half_t* to) const { store(to); }
  void store_unrounded(bfloat16_t* to) const { store_high(to, _mm256_castps_si256(v)); }
  friend Floats operator+(Floats a, Floats b) { return {_mm256_add_ps(a.v, b.v)}; }
  friend Floats operator-(Floats a, Floats b) { return {_mm256_sub_ps(a.v, b.v)}; }
  friend Floats operator*(Floats a, Floats b) { return {_mm256_mul_ps(a.v, b.v)}; }
  friend Floats operator/(Floats a, Floats b) { return {_mm256_div_ps(a.v, b.v)}; }
  friend Mask operator>(Floats a, Floats b) { return _mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ); }
  friend Mask operator>=(Floats a, Floats b) { return _mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ); }
  static Floats max(Floats a, Floats b) { return {_mm256_max_ps(a.v, b.v)}; }
  static Floats min(Floats a, Floats b) { return {_mm256_min_ps(a.v, b.v)}; }
  static Floats round(Floats a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
  static Floats minus_product(Floats a, Floats b, Floats c) { return {_mm256_fnmadd_ps(b.v, c.v, a.v)}; }
  static Floats plus_product(Floats a, Floats b, Floats c) { return {_mm256_fmadd_ps(b.v, c.v, a.v)}; }
  static Floats product_minus(Floats b, Floats c, Floats a) { return {_mm256_fmsub_ps(b.v, c.v, a.v)}; }
  static Floats plus_where(Floats a, Mask mask, Floats b) { return a + keep(mask, b); }
  static Floats choose(Mask mask, Floats a, Floats b) { return {_mm256_blendv_ps(b.v, a.v, mask)}; }
  static Floats keep(Mask mask, Floats a) { return {_mm256_and_ps(mask, a.v)}; }
  static Floats drop(Mask mask, Floats a) { return {_mm256_andnot_ps(mask, a.v)}; }
  static Mask either(Mask a, Mask b) { return _mm256_or_ps(a, b); }
  static Mask both(Mask a, Mask b) { return _mm256_and_ps(a, b); }
  static bool any(Mask mask) { return _mm256_movemask_ps(mask) != 0; }
  static Mask last(int count) {
    const __m256i lanes = _mm256_setr_epi32(7, 6, 5, 4, 3, 2, 1, 0);
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(count), lanes));
  }
  float sum() const {
    const __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
  }

 private:
  static void store_high(bfloat16_t* to, __m256i bits) {
    const __m256i high = _mm256_srli_epi32(bits, 16);
    const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), packed);
  }
};

// Stores two vectors one after the other; NaN must come without low bits, as the machine's own and that of half types do.
inline void store_pair(Floats first, Floats second, bfloat16_t* to) {
  const auto rounded = [](Floats a) {
    const __m256i bits = _mm256_castps_si256(a.v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, odd), _mm256_set1_epi32(0x7fff));
    return _mm256_srli_epi32(sum, 16);
  };
  const __m256i by_half = _mm256_packus_epi32(rounded(first), rounded(second));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permute4x64_epi64(by_half, 0xd8));
}

}  // namespace lightning_nncf

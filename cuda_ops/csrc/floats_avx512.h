// Sixteen float32 lanes in AVX-512 registers.
#pragma once

#include "convert_cpu.h"

namespace lightning_nncf {

struct Floats {
  using Scalar = float;
  using Mask = __mmask16;
  static constexpr int kWidth = 16;
  __m512 v;

  // A copy in a register, where GCC would copy a whole struct of vectors through memory.
  Floats same() const { return {v}; }
  static Floats set(float value) { return {_mm512_set1_ps(value)}; }
  static Floats load(const float* from) { return {_mm512_loadu_ps(from)}; }
  static Floats load(const bfloat16_t* from) {
    const __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(bits, 16))};
  }
  static Floats load(const half_t* from) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))};
  }
  void store(float* to) const { _mm512_storeu_ps(to, v); }
#if defined(__AVX512BF16__)
  void store(bfloat16_t* to) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(v));
  }
#else
  void store(bfloat16_t* to) const {
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
    const __m512i rounded = _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), sum,
                                                    _mm512_set1_epi32(0x7fc00000));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
  }
#endif
  void store(half_t* to) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  void store_unrounded(float* to) const { store(to); }
  void store_unrounded(half_t* to) const { store(to); }
  void store_unrounded(bfloat16_t* to) const {
    const __m512i bits = _mm512_srli_epi32(_mm512_castps_si512(v), 16);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(bits));
  }
  friend Floats operator+(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
  friend Floats operator-(Floats a, Floats b) { return {_mm512_sub_ps(a.v, b.v)}; }
  friend Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
  friend Floats operator/(Floats a, Floats b) { return {_mm512_div_ps(a.v, b.v)}; }
  friend Mask operator>(Floats a, Floats b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ); }
  friend Mask operator>=(Floats a, Floats b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ); }
  static Floats max(Floats a, Floats b) { return {_mm512_max_ps(a.v, b.v)}; }
  static Floats min(Floats a, Floats b) { return {_mm512_min_ps(a.v, b.v)}; }
  static Floats round(Floats a) {
    return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  static Floats minus_product(Floats a, Floats b, Floats c) { return {_mm512_fnmadd_ps(b.v, c.v, a.v)}; }
  static Floats plus_product(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(b.v, c.v, a.v)}; }
  static Floats product_minus(Floats b, Floats c, Floats a) { return {_mm512_fmsub_ps(b.v, c.v, a.v)}; }
  static Floats plus_where(Floats a, Mask mask, Floats b) { return {_mm512_mask_add_ps(a.v, mask, a.v, b.v)}; }
  static Floats choose(Mask mask, Floats a, Floats b) { return {_mm512_mask_mov_ps(b.v, mask, a.v)}; }
  static Floats keep(Mask mask, Floats a) { return {_mm512_maskz_mov_ps(mask, a.v)}; }
  static Floats drop(Mask mask, Floats a) { return {_mm512_maskz_mov_ps(Mask(~mask), a.v)}; }
  static Mask either(Mask a, Mask b) { return Mask(a | b); }
  static Mask both(Mask a, Mask b) { return Mask(a & b); }
  static bool any(Mask mask) { return mask != 0; }
  static Mask last(int count) { return Mask(0xffffu << (kWidth - count)); }
  float sum() const {
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    const __m128 pair = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
    return _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
  }
};

#if defined(__AVX512VBMI__)
// Loads two vectors that lie one after the other: one instruction moves the bytes of each and clears the others.
inline void load_pair(const bfloat16_t* from, Floats& first, Floats& second) {
  const auto order = [](int start) {
    alignas(64) uint8_t places[64];
    for (int i = 0; i < 64; ++i) places[i] = uint8_t(start + i / 4 * 2 + i % 2);
    return _mm512_load_si512(places);
  };
  constexpr __mmask64 kUpper = 0xccccccccccccccccull;
  __m512i bits = _mm512_loadu_si512(from);
  __asm__("" : "+v"(bits));  // in a register, where GCC would put it onto the stack for the second
  first.v = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi8(kUpper, order(0), bits));
  second.v = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi8(kUpper, order(32), bits));
}
#endif

// Stores two vectors one after the other; NaN must come without low bits, as the machine's own and that of half types do.
inline void store_pair(Floats first, Floats second, bfloat16_t* to) {
#if defined(__AVX512BF16__)
  _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(second.v, first.v));
#else
  const auto rounded = [](Floats a) {
    const __m512i bits = _mm512_castps_si512(a.v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
    return _mm512_srli_epi32(sum, 16);
  };
  const __m512i by_quarter = _mm512_packus_epi32(rounded(first), rounded(second));
  const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  _mm512_storeu_si512(to, _mm512_permutexvar_epi64(order, by_quarter));
#endif
}

}  // namespace lightning_nncf

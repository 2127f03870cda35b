// A vector of the computation type: AVX-512, AVX2, or plain loops that the compiler vectorizes as it can.
#pragma once

#include "convert_cpu.h"

namespace lightning_nncf {

// `Width` lanes of `A` in plain C++; with one lane this is the scalar form of every kernel.
template <typename A, int Width>
struct Lanes {
  using Scalar = A;
  using Mask = Lanes;  // 1 or 0 in every lane
  static constexpr int kWidth = Width;
  A v[Width];

  static Lanes set(A value) {
    Lanes r;
    for (int i = 0; i < Width; ++i) r.v[i] = value;
    return r;
  }
  template <typename T>
  static Lanes load(const T* from) {
    Lanes r;
    widen(from, r.v, Width);
    return r;
  }
  template <typename T>
  void store(T* to) const {
    narrow(v, to, Width);
  }
  template <typename T>
  void store_unrounded(T* to) const {
    narrow(v, to, Width);
  }
  template <typename F>
  static Lanes each(const Lanes& a, const Lanes& b, const F& f) {
    Lanes r;
    for (int i = 0; i < Width; ++i) r.v[i] = f(a.v[i], b.v[i]);
    return r;
  }
  friend Lanes operator+(const Lanes& a, const Lanes& b) { return each(a, b, [](A x, A y) { return x + y; }); }
  friend Lanes operator-(const Lanes& a, const Lanes& b) { return each(a, b, [](A x, A y) { return x - y; }); }
  friend Lanes operator*(const Lanes& a, const Lanes& b) { return each(a, b, [](A x, A y) { return x * y; }); }
  friend Lanes operator/(const Lanes& a, const Lanes& b) { return each(a, b, [](A x, A y) { return x / y; }); }
  friend Lanes operator>(const Lanes& a, const Lanes& b) { return each(a, b, [](A x, A y) { return A(x > y); }); }
  friend Lanes operator>=(const Lanes& a, const Lanes& b) { return each(a, b, [](A x, A y) { return A(x >= y); }); }
  // Of two values the second where either is NaN.
  static Lanes max(const Lanes& a, const Lanes& b) { return each(a, b, [](A x, A y) { return x > y ? x : y; }); }
  static Lanes min(const Lanes& a, const Lanes& b) { return each(a, b, [](A x, A y) { return x < y ? x : y; }); }
  static Lanes round(const Lanes& a) { return each(a, a, [](A x, A) { return std::rint(x); }); }
  // a - b * c and a + b * c, rounded once where the machine can.
  static Lanes minus_product(const Lanes& a, const Lanes& b, const Lanes& c) { return a - b * c; }
  static Lanes plus_product(const Lanes& a, const Lanes& b, const Lanes& c) { return a + b * c; }
  static Lanes keep(const Mask& mask, const Lanes& a) {
    return each(mask, a, [](A m, A x) { return m != A(0) ? x : A(0); });
  }
  static Lanes drop(const Mask& mask, const Lanes& a) {
    return each(mask, a, [](A m, A x) { return m != A(0) ? A(0) : x; });
  }
  static Mask either(const Mask& a, const Mask& b) { return max(a, b); }
  static Mask both(const Mask& a, const Mask& b) { return min(a, b); }
  static bool any(const Mask& mask) {
    bool found = false;
    for (int i = 0; i < Width; ++i) found |= mask.v[i] != A(0);
    return found;
  }
  static Mask last(int count) {
    Lanes r;
    for (int i = 0; i < Width; ++i) r.v[i] = A(i >= Width - count);
    return r;
  }
  A sum() const {
    A total = v[0];
    for (int i = 1; i < Width; ++i) total += v[i];
    return total;
  }
};

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)

struct Floats {
  using Scalar = float;
  using Mask = __mmask16;
  static constexpr int kWidth = 16;
  __m512 v;

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
  void store(bfloat16_t* to) const {
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
    const __m512i rounded = _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), sum,
                                                    _mm512_set1_epi32(0x7fc00000));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
  }
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

#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

struct Floats {
  using Scalar = float;
  using Mask = __m256;
  static constexpr int kWidth = 8;
  __m256 v;

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

#else

using Floats = Lanes<float, 8>;

#endif

// The vectors of a computation type.
template <typename A>
using Vector = std::conditional_t<std::is_same_v<A, float>, Floats, Lanes<A, 4>>;

// Two vectors of values that are next to each other in memory, in the order that costs least.
template <typename V>
struct Pair {
  V first, second;
};

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define LIGHTNING_NNCF_SPLITS_PAIRS 1

// bfloat16 is the upper half of float32: the even and the odd values of a vector of them are widened by one operation
// each, and rounded results are put together by two.
inline Pair<Floats> split(const bfloat16_t* from) {
  const __m512i bits = _mm512_loadu_si512(from);
  return {{_mm512_castsi512_ps(_mm512_slli_epi32(bits, 16))},
          {_mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(int(0xffff0000))))}};
}

inline __m512i rounded_up(Floats a) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  return _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
}

inline void join(const Pair<Floats>& pair, bfloat16_t* to) {
  const __m512i even = _mm512_srli_epi32(rounded_up(pair.first), 16);
  _mm512_storeu_si512(to, _mm512_mask_blend_epi16(0xaaaaaaaau, even, rounded_up(pair.second)));
}

#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define LIGHTNING_NNCF_SPLITS_PAIRS 1

// bfloat16 is the upper half of float32: the even and the odd values of a vector of them are widened by one operation
// each, and rounded results are put together by two.
inline Pair<Floats> split(const bfloat16_t* from) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return {{_mm256_castsi256_ps(_mm256_slli_epi32(bits, 16))},
          {_mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32(int(0xffff0000))))}};
}

inline __m256i rounded_up(Floats a) {
  const __m256i bits = _mm256_castps_si256(a.v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  return _mm256_add_epi32(_mm256_add_epi32(bits, odd), _mm256_set1_epi32(0x7fff));
}

inline void join(const Pair<Floats>& pair, bfloat16_t* to) {
  const __m256i even = _mm256_srli_epi32(rounded_up(pair.first), 16);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_blend_epi16(even, rounded_up(pair.second), 0xaa));
}

#endif

#ifdef LIGHTNING_NNCF_SPLITS_PAIRS
template <typename V, typename T>
constexpr bool kSplits = std::is_same_v<V, Floats> && std::is_same_v<T, bfloat16_t>;
#else
template <typename V, typename T>
constexpr bool kSplits = false;
#endif

template <typename V, typename T>
inline Pair<V> load_pair(const T* from) {
#ifdef LIGHTNING_NNCF_SPLITS_PAIRS
  if constexpr (kSplits<V, T>) return split(from);
#endif
  return {V::load(from), V::load(from + V::kWidth)};
}

// Rounds; NaN must come without low bits, as NaN of a half type and the machine's own do.
template <typename V, typename T>
inline void store_pair(const Pair<V>& pair, T* to) {
#ifdef LIGHTNING_NNCF_SPLITS_PAIRS
  if constexpr (kSplits<V, T>) return join(pair, to);
#endif
  pair.first.store(to);
  pair.second.store(to + V::kWidth);
}

// Where `load_pair` puts value `index` of a pair.
template <typename V, typename T>
inline int pair_position(int index) {
  if (!kSplits<V, T>) return index;
  return index / 2 + (index % 2) * V::kWidth;
}

}  // namespace lightning_nncf

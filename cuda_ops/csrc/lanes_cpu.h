// Vectors as plain loops that the compiler vectorizes as it can; with one lane, the scalar form of every kernel.
#pragma once

#include "convert_cpu.h"

namespace lightning_nncf {

// True where the machine rounds `a + b * c` once.
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
constexpr bool kFuses = true;
#else
constexpr bool kFuses = false;
#endif

// `Width` lanes of `A` in plain C++; with one lane this is the scalar form of every kernel.
template <typename A, int Width>
struct Lanes {
  using Scalar = A;
  using Mask = Lanes;  // 1 or 0 in every lane
  static constexpr int kWidth = Width;
  A v[Width];

  Lanes same() const { return *this; }
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
  // a + b * c, a - b * c and b * c - a, rounded once where the machine can.
  static Lanes plus_product(const Lanes& a, const Lanes& b, const Lanes& c) {
    if constexpr (!kFuses) return a + b * c;
    Lanes r;
    for (int i = 0; i < Width; ++i) r.v[i] = std::fma(b.v[i], c.v[i], a.v[i]);
    return r;
  }
  static Lanes minus_product(const Lanes& a, const Lanes& b, const Lanes& c) {
    // Not -b, which GCC moves into the product that b may come from, where the sign of a zero is lost.
    return plus_product(a, b, each(c, c, [](A x, A) { return -x; }));
  }
  static Lanes product_minus(const Lanes& b, const Lanes& c, const Lanes& a) {
    return plus_product(each(a, a, [](A x, A) { return -x; }), b, c);
  }
  static Lanes plus_where(const Lanes& a, const Mask& mask, const Lanes& b) { return a + keep(mask, b); }
  static Lanes choose(const Mask& mask, const Lanes& a, const Lanes& b) {
    Lanes r;
    for (int i = 0; i < Width; ++i) r.v[i] = mask.v[i] != A(0) ? a.v[i] : b.v[i];
    return r;
  }
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

}  // namespace lightning_nncf

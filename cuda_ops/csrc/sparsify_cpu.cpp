// RB sparsity on the CPU: a mask is drawn from its logits and applied in one pass, and drawn again in backward.

#include "random.h"
#include "tensors_cpu.h"

namespace lightning_nncf {
namespace {

constexpr int64_t kBlock = 512;
constexpr float kLargest = 60;  // exp of more overflows float32 when squared

inline double exponential(double x) { return std::exp(x); }

// exp in float32 to two units in the last place for |x| <= 60, in a form that compilers vectorize.
inline float exponential(float x) {
  const float n = std::rint(x * 1.44269504f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const uint32_t bits = uint32_t(int32_t(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return p * power;
}

// The odds of an element: it is kept where `raised` (of the logit and the draw) exceeds `rest`.
template <typename A>
struct Odds {
  A raised[kBlock];
  A rest[kBlock];

  void draw(const A* logits, int64_t begin, int64_t count, uint32_t low, uint32_t high) {
    // Written so that compilers vectorize it: narrow counters, comparisons instead of fmin and fmax.
    const uint32_t first = uint32_t(begin);
    const A least = A(1e-6f), most = A(1) - A(1e-6f), largest = A(kLargest);
    for (int i = 0; i < int(count); ++i) {
      const A drawn = A(uniform(first + uint32_t(i), low, high));
      const A raised_draw = drawn < least ? least : drawn;
      const A u = raised_draw > most ? most : raised_draw;
      const A above = logits[i] < -largest ? -largest : logits[i];
      raised[i] = exponential(above > largest ? largest : above) * u;
      rest[i] = A(1) - u;
    }
  }
};

int64_t seed_of(const Tensor& seed) {
  STD_TORCH_CHECK(seed.numel() == 1 && seed.scalar_type() == ScalarType::Long, "expected a seed of one int64 value");
  return *static_cast<const int64_t*>(seed.data_ptr());
}

void check_logits(const Tensor& x, const Tensor& logits) {
  STD_TORCH_CHECK(x.numel() == logits.numel() && x.dim() == logits.dim(), "the logits need the shape of the tensor");
}

// Logits in the type of the computation, in the order of the elements.
template <typename A>
Tensor computed(const Tensor& logits) {
  constexpr ScalarType type = std::is_same_v<A, double> ? ScalarType::Double : ScalarType::Float;
  return packed(logits.scalar_type() == type ? logits : torch::stable::to(logits, type));
}

// Gives a packed result the strides of `like`.
Tensor restored(const Tensor& result, const Tensor& like) {
  if (result.scalar_type() == like.scalar_type() && same_strides(result, like)) return result;
  Tensor copy = torch::stable::empty_like(like);
  torch::stable::copy_(copy, result);
  return copy;
}

Tensor sample_and_mask(const Tensor& x, const Tensor& logits, const Tensor& seed) {
  check_logits(x, logits);
  if (x.numel() == 0) return torch::stable::empty_like(x);
  const uint64_t bits = uint64_t(seed_of(seed));
  const uint32_t low = uint32_t(bits), high = uint32_t(bits >> 32);
  const Tensor source = packed(x);
  Tensor result = empty_like_dense(source);
  dispatch(x, [&](auto stored, auto compute) {
    using T = decltype(stored);
    using A = decltype(compute);
    const Tensor held = computed<A>(logits);
    const T* values = static_cast<const T*>(source.data_ptr());
    const A* chances = static_cast<const A*>(held.data_ptr());
    T* target = static_cast<T*>(result.data_ptr());
    torch::stable::parallel_for(0, x.numel(), kGrain, [&](int64_t begin, int64_t end) {
      Odds<A> odds;
      for (int64_t at = begin; at < end; at += kBlock) {
        const int64_t count = std::min(kBlock, end - at);
        odds.draw(chances + at, at, count, low, high);
        alignas(64) A wide[kBlock];
        widen(values + at, wide, count);
        for (int64_t i = 0; i < count; ++i) wide[i] = odds.raised[i] > odds.rest[i] ? wide[i] : A(0);
        narrow(wide, target + at, count);
      }
    });
  });
  return restored(result, x);
}

std::tuple<Tensor, Tensor> sample_and_mask_backward(const Tensor& grad, const Tensor& x, const Tensor& logits,
                                                    const Tensor& seed) {
  check_logits(x, logits);
  if (x.numel() == 0) return {torch::stable::empty_like(x), torch::stable::empty_like(logits)};
  const uint64_t bits = uint64_t(seed_of(seed));
  const uint32_t low = uint32_t(bits), high = uint32_t(bits >> 32);
  const Tensor source = packed(x);
  const Tensor upstream = in_layout_of(grad, source);
  Tensor result = empty_like_dense(source);
  Tensor of_logits;
  dispatch(x, [&](auto stored, auto compute) {
    using T = decltype(stored);
    using A = decltype(compute);
    const Tensor held = computed<A>(logits);
    of_logits = empty_like_dense(held);
    const T* values = static_cast<const T*>(source.data_ptr());
    const T* grads = static_cast<const T*>(upstream.data_ptr());
    const A* chances = static_cast<const A*>(held.data_ptr());
    T* target = static_cast<T*>(result.data_ptr());
    A* slopes = static_cast<A*>(of_logits.data_ptr());
    torch::stable::parallel_for(0, x.numel(), kGrain, [&](int64_t begin, int64_t end) {
      Odds<A> odds;
      for (int64_t at = begin; at < end; at += kBlock) {
        const int64_t count = std::min(kBlock, end - at);
        odds.draw(chances + at, at, count, low, high);
        alignas(64) A wide[kBlock], wide_grad[kBlock];
        widen(values + at, wide, count);
        widen(grads + at, wide_grad, count);
        for (int64_t i = 0; i < count; ++i) {
          const A share = odds.raised[i] / (odds.raised[i] + odds.rest[i]);
          slopes[at + i] = wide_grad[i] * wide[i] * (share * (A(1) - share));
          wide_grad[i] = odds.raised[i] > odds.rest[i] ? wide_grad[i] : A(0);
        }
        narrow(wide_grad, target + at, count);
      }
    });
  });
  return {restored(result, x), restored(of_logits, logits)};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lightning_nncf, CPU, m) {
  m.impl("sample_and_mask", TORCH_BOX(&sample_and_mask));
  m.impl("sample_and_mask_backward", TORCH_BOX(&sample_and_mask_backward));
}

}  // namespace lightning_nncf

// Random numbers that depend on a seed and the position of an element alone, computed alike by every implementation:
// two rounds of a 32-bit hash (Ettinger's search for low bias), the halves of the seed added before each.
#pragma once

#include <cstdint>

#include "grid.h"

namespace lightning_nncf {

LIGHTNING_NNCF_HOST_DEVICE inline uint32_t mixed(uint32_t bits) {
  bits ^= bits >> 16;
  bits *= 0x21f0aaadu;
  bits ^= bits >> 15;
  bits *= 0x735a2d97u;
  return bits ^ (bits >> 15);
}

// One of 2^23 numbers in (0, 1), the middles of equal parts, all exact in float32.
LIGHTNING_NNCF_HOST_DEVICE inline float uniform(uint32_t position, uint32_t low, uint32_t high) {
  const uint32_t bits = mixed(mixed(position + low) + high);
  return (float(int32_t(bits >> 9)) + 0.5f) * (1.0f / 8388608.0f);
}

}  // namespace lightning_nncf

// Sums of many floats that keep their digits.
#pragma once

#include "panels.h"

#include <algorithm>
#include <cstdint>

constexpr int64_t kStretch = 4096;  // the number of floats that are added up in single precision

// Adds up the terms of all indices: in vectors of floats within a stretch, and in a double over the stretches.
template <typename Vectorised, typename Scalar>
inline double add_up(int64_t count, const Vectorised& vectorised, const Scalar& scalar) {
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kStretch) {
    const int64_t end = std::min(count, begin + kStretch);
    Vector sums{};
    int64_t index = begin;
    for (; index + kWidth <= end; index += kWidth) sums += vectorised(index);
    for (int lane = 0; lane < kWidth; lane++) total += sums[lane];
    for (; index < end; index++) total += scalar(index);
  }
  return total;
}

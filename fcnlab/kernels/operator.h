// What MindSpore hands an operator, and expects of it.
#pragma once

#include <cstdint>

// Runs `body` and returns the operator's answer to MindSpore: 0, or 1 after an exception, as when memory runs out.
template <typename Body>
int answer(const Body& body) {
  try {
    body();
    return 0;
  } catch (...) {
    return 1;
  }
}

// The operator's tensor of that number, inputs first.
inline float* at(void** data, int index) { return static_cast<float*>(data[index]); }

// The side of a map after 2x2 max-pooling; -1 is a side that is not known yet.
inline int64_t halved(int64_t side) { return side < 0 ? side : side / 2; }

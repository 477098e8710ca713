// The normalisation of a channel with given statistics (Ioffe & Szegedy, ICML 2015, algorithm 1), and the ReLU after it.
#pragma once

#include <cmath>
#include <cstdint>

constexpr float kEpsilon = 1e-5f;  // the same as in `fcnlab.models.layers.NormRelu`

// The normalised value is scale * x + shift, and x_hat is (x - mean) * inverse.
struct Affine {
  float mean, inverse, scale, shift;

  Affine(const float* statistics, const float* gamma, const float* beta, int64_t channels, int64_t channel)
      : mean(statistics[channel]), inverse(1.0f / std::sqrt(statistics[channels + channel] + kEpsilon)),
        scale(gamma[channel] * inverse), shift(beta[channel] - mean * scale) {}
};

// Rectifies a float or a vector of floats; NaN stays NaN.
template <typename Value>
inline Value rectified(const Value& value) {
  return value < 0 ? Value{} : value;
}

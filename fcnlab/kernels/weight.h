// The weight of a convolution as its forward pass and its input gradient read it.
#pragma once

#include <cstdint>

// A weight, O x I x kernel x kernel. `flipped` is for the input gradient, which is a convolution with inputs and
// outputs exchanged and the kernel rotated by 180 degrees.
struct Weight {
  const float* weight;
  int64_t out_channels, in_channels, taps;
  bool flipped;

  int64_t inputs() const { return flipped ? out_channels : in_channels; }
  int64_t outputs() const { return flipped ? in_channels : out_channels; }
};

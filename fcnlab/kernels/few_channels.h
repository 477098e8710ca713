// The 3x3 convolution of images, which have few channels.
#pragma once

#include <cstdint>

constexpr int64_t kFewChannels = 4;  // the most channels for which this is faster than Winograd's algorithm in panels

// Convolves images x channels x height x width by a weight, outputs x channels x 3 x 3, stride 1, padding 1. If `scale`
// and `shift` are given, one of each for an output, it normalises and rectifies what comes out, and takes the largest
// of each window of `side` x `side`, 1 or 2.
void convolve_few_channels(const float* input, int64_t images, int64_t channels, int64_t height, int64_t width,
                           const float* weight, int64_t outputs, const float* scale, const float* shift, int side,
                           float* output);

// Computes the gradient of the weight from that of the output, images x outputs x height x width.
void few_channels_weight_gradient(const float* input, int64_t images, int64_t channels, int64_t height, int64_t width,
                                  const float* gradient, int64_t outputs, float* result);

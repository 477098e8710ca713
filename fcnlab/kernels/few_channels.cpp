// The 3x3 convolution of images with few channels, such as red, green and blue, and the gradient of its weight, by their
// definitions. A panel of 16 channels would be empty for the most part, and there are too few products for Winograd's
// algorithm to save much. A vector register holds consecutive pixels of a row here, so that nothing is transposed.
//
// Each value is summed up in a fixed order, so that results are the same to the bit on any number of threads.

#include "few_channels.h"

#include "affine.h"
#include "buffer.h"
#include "panels.h"
#include "parallel.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace {

constexpr int kOutputs = 4;  // the outputs that are in registers at a time
constexpr int kVectors = 2;  // the vectors of pixels that are in registers at a time
constexpr int kStep = kVectors * kWidth;
constexpr int64_t kMostRows = 16;    // the most rows of the output in a strip
constexpr int64_t kStrip = 1 << 15;  // bytes of input that stay in a core's first-level cache
constexpr int64_t kMostParts = 64;   // the most sums of the weight's gradient that are added up in the end

// Consecutive rows of an image with those above and below, and zeros around the image: rows x channels x `stride`.
class Strip {
 public:
  Strip(const float* image, int64_t channels, int64_t height, int64_t width, int64_t begin, int64_t end)
      : channels_(channels), stride_(stride_of(width)),
        buffer_(divide_up((end - begin + 2) * channels * stride_, kLanes)), values_(reinterpret_cast<float*>(buffer_.data())) {
    float* target = values_;
    for (int64_t y = begin - 1; y <= end; y++) {
      for (int64_t channel = 0; channel < channels; channel++, target += stride_) {
        if (y < 0 || y >= height) {
          std::memset(target, 0, stride_ * sizeof(float));
        } else {
          target[0] = 0;
          std::memcpy(target + 1, image + (channel * height + y) * width, width * sizeof(float));
          std::memset(target + 1 + width, 0, (stride_ - 1 - width) * sizeof(float));
        }
      }
    }
  }

  // The distance between rows, which leaves room for reading whole vectors.
  static int64_t stride_of(int64_t width) { return round_up(width, kStep) + kWidth; }

  // The pixel to the upper left of that one.
  const float* at(int64_t row, int64_t channel, int64_t x) const { return values_ + (row * channels_ + channel) * stride_ + x; }

 private:
  const int64_t channels_, stride_;
  Buffer buffer_;
  float* const values_;
};

// Computes kStep pixels of kOutputs outputs. `weights` are channels x 9 x kOutputs.
inline void convolve_step(const Strip& strip, int64_t channels, int64_t row, int64_t x, const float* weights,
                          Vector (&sums)[kOutputs][kVectors]) {
  for (auto& sum : sums) {
    for (Vector& vector : sum) vector = Vector{};
  }
  for (int64_t channel = 0; channel < channels; channel++) {
    for (int below = 0; below < 3; below++) {
      const float* pixels = strip.at(row + below, channel, x);
      for (int right = 0; right < 3; right++, weights += kOutputs) {
        Vector values[kVectors];
        for (int vector = 0; vector < kVectors; vector++) {
          values[vector] = load(pixels + right + vector * kWidth);
        }
        for (int output = 0; output < kOutputs; output++) {
          for (int vector = 0; vector < kVectors; vector++) sums[output][vector] += weights[output] * values[vector];
        }
      }
    }
  }
}

// Orders a weight as groups of outputs x channels x 9 x kOutputs, with zeros beyond the last output.
std::vector<float> in_groups(const float* weight, int64_t outputs, int64_t channels) {
  const int64_t taps = channels * 9;
  std::vector<float> groups(round_up(outputs, kOutputs) * taps);
  for (int64_t output = 0; output < outputs; output++) {
    float* const target = groups.data() + output / kOutputs * kOutputs * taps + output % kOutputs;
    for (int64_t tap = 0; tap < taps; tap++) target[tap * kOutputs] = weight[output * taps + tap];
  }
  return groups;
}

// Writes the larger ones of pairs of rows and columns.
inline void pool_rows(const float* above, const float* below, int64_t width, float* out) {
  const auto larger = [](float a, float b) { return a >= b ? a : b; };
  for (int64_t x = 0; x < width / 2; x++) {
    out[x] = larger(larger(above[2 * x], above[2 * x + 1]), larger(below[2 * x], below[2 * x + 1]));
  }
}

// How images are divided into strips.
struct Strips {
  int64_t height, rows, count;  // the rows of an image and of a strip, and the strips of an image

  Strips(int64_t channels, int64_t height, int64_t width) : height(height) {
    const int64_t row_bytes = channels * Strip::stride_of(width) * int64_t{sizeof(float)};
    rows = std::clamp<int64_t>((kStrip / row_bytes - 2) / 2 * 2, 4, kMostRows);
    count = divide_up(height, rows);
  }

  int64_t image(int64_t index) const { return index / count; }
  int64_t begin(int64_t index) const { return index % count * rows; }
  int64_t end(int64_t index) const { return std::min(begin(index) + rows, height); }
};

// Adds the products of one channel's pixels and an output's gradient, of `rows` rows of `width` pixels, to 9 totals.
void add_products(const Strip& strip, int64_t channel, const float* gradient, int64_t rows, int64_t width,
                  double* totals) {
  Vector sums[3][3] = {};
  for (int64_t row = 0; row < rows; row++) {
    const float* pixels[3];
    for (int below = 0; below < 3; below++) pixels[below] = strip.at(row + below, channel, 0);
    const auto add = [&](const Vector& values, int64_t x) {
      for (int below = 0; below < 3; below++) {
        for (int right = 0; right < 3; right++) sums[below][right] += values * load(pixels[below] + x + right);
      }
    };
    int64_t x = 0;
    for (; x + kWidth <= width; x += kWidth) add(load(gradient + row * width + x), x);
    if (x < width) {
      alignas(64) float rest[kWidth] = {};
      std::memcpy(rest, gradient + row * width + x, (width - x) * sizeof(float));
      add(load(rest), x);
    }
  }
  for (int tap = 0; tap < 9; tap++) {
    for (int lane = 0; lane < kWidth; lane++) totals[tap] += sums[tap / 3][tap % 3][lane];
  }
}

}  // namespace

void convolve_few_channels(const float* input, int64_t images, int64_t channels, int64_t height, int64_t width,
                           const float* weight, int64_t outputs, const float* scale, const float* shift, int side,
                           float* output) {
  const std::vector<float> weights = in_groups(weight, outputs, channels);
  const int64_t stride = Strip::stride_of(width), out_height = height / side, out_width = width / side;
  const Strips strips(channels, height, width);
  Threads().run(images * strips.count, [&](int64_t task) {
    const int64_t image = strips.image(task), begin = strips.begin(task), end = strips.end(task);
    const Strip strip(input + image * channels * height * width, channels, height, width, begin, end);
    std::vector<float> pooled(side == 2 ? 2 * kOutputs * stride : 0);  // two rows of each output
    for (int64_t first = 0; first < outputs; first += kOutputs) {
      const int64_t existing = std::min<int64_t>(kOutputs, outputs - first);
      const float* group = weights.data() + first * channels * 9;
      for (int64_t y = begin; y < end; y++) {
        float* const plane = output + (image * outputs + first) * out_height * out_width;
        float* const target = side == 2 ? pooled.data() + y % 2 * kOutputs * stride : plane + y * width;
        const int64_t step = side == 2 ? stride : height * width;
        for (int64_t x = 0; x < width; x += kStep) {
          Vector sums[kOutputs][kVectors];
          convolve_step(strip, channels, y - begin, x, group, sums);
          for (int64_t index = 0; scale != nullptr && index < existing; index++) {
            for (Vector& sum : sums[index]) {
              sum = rectified(Vector(sum * scale[first + index] + shift[first + index]));
            }
          }
          if (existing == kOutputs && x + kStep <= width) {
            for (int index = 0; index < kOutputs; index++) {
              for (int vector = 0; vector < kVectors; vector++) {
                *reinterpret_cast<LooseVector*>(target + index * step + x + vector * kWidth) = sums[index][vector];
              }
            }
          } else {
            const int64_t count = std::min<int64_t>(kStep, width - x);
            for (int64_t index = 0; index < existing; index++) {
              std::memcpy(target + index * step + x, sums[index], count * sizeof(float));
            }
          }
        }
        for (int64_t index = 0; side == 2 && y % 2 == 1 && index < existing; index++) {
          const float* above = pooled.data() + index * stride;
          pool_rows(above, above + kOutputs * stride, width, plane + (index * out_height + y / 2) * out_width);
        }
      }
    }
  });
}

void few_channels_weight_gradient(const float* input, int64_t images, int64_t channels, int64_t height, int64_t width,
                                  const float* gradient, int64_t outputs, float* result) {
  const Strips strips(channels, height, width);
  const int64_t count = images * strips.count, parts = std::min(kMostParts, count), size = outputs * channels * 9;
  std::vector<double> sums(std::max<int64_t>(parts, 1) * size);
  Threads().run(parts, [&](int64_t part) {
    double* const own = sums.data() + part * size;
    for (int64_t index = count * part / parts; index < count * (part + 1) / parts; index++) {
      const int64_t image = strips.image(index), begin = strips.begin(index), end = strips.end(index);
      const Strip strip(input + image * channels * height * width, channels, height, width, begin, end);
      for (int64_t output = 0; output < outputs; output++) {
        const float* rows = gradient + ((image * outputs + output) * height + begin) * width;
        for (int64_t channel = 0; channel < channels; channel++) {
          add_products(strip, channel, rows, end - begin, width, own + (output * channels + channel) * 9);
        }
      }
    }
  });
  for (int64_t index = 0; index < size; index++) {
    for (int64_t part = 1; part < parts; part++) sums[index] += sums[part * size + index];
    result[index] = static_cast<float>(sums[index]);
  }
}

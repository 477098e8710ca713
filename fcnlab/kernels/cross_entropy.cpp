// The softmax cross-entropy of each pixel, and its gradient. The logits of a stretch of pixels stay in the cache while
// they are read three times: for their maximum, for the sum of their exponentials, and for the label's.
//
// Logits are float32, N x C x H x W, and labels are int32, N x H x W. A label that is no class, as that of void pixels,
// has the loss 0 and the gradient 0. Each pixel is computed by itself, so that results do not depend on the number of
// threads.

#include "operator.h"
#include "panels.h"
#include "parallel.h"

#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int64_t kStretch = 1024;  // pixels that are computed together, a multiple of every vector's width

struct Sizes {
  int64_t images, classes, area;

  explicit Sizes(const int64_t* logits) : images(logits[0]), classes(logits[1]), area(logits[2] * logits[3]) {}
  int64_t stretches() const { return divide_up(area, kStretch); }
};

inline Lanes bits_of(const Vector& values) { return (Lanes)values; }
inline Vector floats_of(const Lanes& values) { return (Vector)values; }

// Computes e^x for x <= 0, and NaN for NaN. What is smaller than the smallest normal float becomes that float.
//
// x = n ln 2 + r with a whole n and |r| <= ln 2 / 2, and e^r is its Taylor series, whose next term is below 6e-9. ln 2 is
// in two parts, of which n times the first is exact.
inline Vector exponential(Vector x) {
  const Vector smallest = Vector{} - 87.3f;
  x = x < smallest ? smallest : x;
  const float whole = 12582912.0f;  // 1.5 * 2^23: what is added to it loses its fraction
  const Vector shifted = x * 1.44269504f + whole;
  const Vector n = shifted - whole;
  const Vector r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  Vector series = r * (1.0f / 5040) + 1.0f / 720;
  series = series * r + 1.0f / 120;
  series = series * r + 1.0f / 24;
  series = series * r + 1.0f / 6;
  series = series * r + 0.5f;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  const Vector power = floats_of((bits_of(shifted) << 23) + (127 << 23));  // 2^n, by its exponent
  return series * power;
}

// Computes the logarithm of x >= 1, and NaN for NaN.
//
// x = 2^n m with m in [1/sqrt(2), sqrt(2)), and ln m = 2 artanh(z) with z = (m - 1) / (m + 1), |z| < 0.172: the series'
// next term is below 4e-10 of it.
inline Vector logarithm(const Vector& x) {
  const int32_t root = 0x3f3504f3;  // the bits of 1/sqrt(2)
  const Lanes bits = bits_of(x), exponent = (bits - root) >> 23;
  const Vector m = floats_of(bits - (exponent << 23));
  Vector n;
  for (int lane = 0; lane < kWidth; lane++) n[lane] = static_cast<float>(exponent[lane]);
  const Vector z = (m - 1.0f) / (m + 1.0f), square = z * z;
  Vector series = square * (2.0f / 9) + 2.0f / 7;
  series = series * square + 2.0f / 5;
  series = series * square + 2.0f / 3;
  series = series * square + 2.0f;
  const Vector result = z * series + n * -2.12194440e-4f + n * 0.693359375f;
  return x == x ? result : x;
}

// What the pixels of a stretch have in common for all classes.
struct Stretch {
  int64_t count;       // pixels
  const float* first;  // the logit of the first class at the first pixel
  const int32_t* labels;
  alignas(64) float largest[kStretch], sums[kStretch];  // of the logits, and of e^(logit - largest)

  Stretch(const float* logits, const int32_t* every_label, const Sizes& sizes, int64_t task) {
    const int64_t image = task / sizes.stretches(), begin = task % sizes.stretches() * kStretch;
    count = std::min(kStretch, sizes.area - begin);
    first = logits + image * sizes.classes * sizes.area + begin;
    labels = every_label + image * sizes.area + begin;
    std::memcpy(largest, first, count * sizeof(float));
    std::fill(largest + count, largest + round_up(count, kWidth), 0.0f);
    for (int64_t index = 1; index < sizes.classes; index++) {
      each(first + index * sizes.area, [&](int64_t pixel, const Vector& logit) {
        Vector& most = at(largest, pixel);
        most = logit > most ? logit : most;
      });
    }
    std::fill(sums, sums + round_up(count, kWidth), 0.0f);
    for (int64_t index = 0; index < sizes.classes; index++) {
      each(first + index * sizes.area, [&](int64_t pixel, const Vector& logit) {
        at(sums, pixel) += exponential(logit - at(largest, pixel));
      });
    }
  }

  static Vector& at(float* values, int64_t pixel) { return *reinterpret_cast<Vector*>(values + pixel); }

  // Calls `body(pixel, vector)` for all vectors of a row of `count` values, the last of which may be filled with zeros.
  template <typename Body>
  inline void each(const float* row, const Body& body) const {
    int64_t pixel = 0;
    for (; pixel + kWidth <= count; pixel += kWidth) body(pixel, load(row + pixel));
    if (pixel < count) {
      Vector rest{};
      std::memcpy(&rest, row + pixel, (count - pixel) * sizeof(float));
      body(pixel, rest);
    }
  }

  bool counts(int64_t pixel, int64_t classes) const { return labels[pixel] >= 0 && labels[pixel] < classes; }
};

void losses(const float* logits, const int32_t* labels, const Sizes& sizes, float* out) {
  Threads().run(sizes.images * sizes.stretches(), [&](int64_t task) {
    Stretch stretch(logits, labels, sizes, task);
    float* target = out + (stretch.labels - labels);
    for (int64_t pixel = 0; pixel < stretch.count; pixel += kWidth) {
      Stretch::at(stretch.sums, pixel) = logarithm(Stretch::at(stretch.sums, pixel));
    }
    for (int64_t pixel = 0; pixel < stretch.count; pixel++) {
      if (stretch.counts(pixel, sizes.classes)) {
        const float chosen = stretch.first[stretch.labels[pixel] * sizes.area + pixel];
        target[pixel] = stretch.sums[pixel] - (chosen - stretch.largest[pixel]);
      } else {
        target[pixel] = 0;
      }
    }
  });
}

void logits_gradient(const float* logits, const int32_t* labels, const float* gradient, const Sizes& sizes,
                     float* out) {
  Threads().run(sizes.images * sizes.stretches(), [&](int64_t task) {
    Stretch stretch(logits, labels, sizes, task);
    const float* of_losses = gradient + (stretch.labels - labels);
    float* target = out + (stretch.first - logits);
    alignas(64) float factors[kStretch];
    for (int64_t pixel = 0; pixel < stretch.count; pixel++) {
      factors[pixel] = stretch.counts(pixel, sizes.classes) ? of_losses[pixel] / stretch.sums[pixel] : 0.0f;
    }
    std::fill(factors + stretch.count, factors + round_up(stretch.count, kWidth), 0.0f);
    for (int64_t index = 0; index < sizes.classes; index++) {
      float* row = target + index * sizes.area;
      stretch.each(stretch.first + index * sizes.area, [&](int64_t pixel, const Vector& logit) {
        const Vector share = exponential(logit - Stretch::at(stretch.largest, pixel)) * Stretch::at(factors, pixel);
        std::memcpy(row + pixel, &share, std::min<int64_t>(kWidth, stretch.count - pixel) * sizeof(float));
      });
    }
    for (int64_t pixel = 0; pixel < stretch.count; pixel++) {
      if (stretch.counts(pixel, sizes.classes)) {
        target[stretch.labels[pixel] * sizes.area + pixel] -= of_losses[pixel];
      }
    }
  });
}

inline int32_t* labels_at(void** data, int index) { return static_cast<int32_t*>(data[index]); }

}  // namespace

extern "C" {

// logits (N x C x H x W), labels (N x H x W, int32) -> the loss of each pixel, N x H x W
int cross_entropy(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return answer([&] { losses(at(data, 0), labels_at(data, 1), Sizes(shapes[0]), at(data, 2)); });
}

std::vector<int64_t> cross_entropyInferShape(int*, int64_t** shapes, void*) {
  return {shapes[0][0], shapes[0][2], shapes[0][3]};
}

// logits, labels, the gradient of each pixel's loss (N x H x W) -> the gradient of the logits, N x C x H x W
int cross_entropy_logits_gradient(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return answer(
      [&] { logits_gradient(at(data, 0), labels_at(data, 1), at(data, 2), Sizes(shapes[0]), at(data, 3)); });
}

std::vector<int64_t> cross_entropy_logits_gradientInferShape(int*, int64_t** shapes, void*) {
  return std::vector<int64_t>(shapes[0], shapes[0] + 4);
}

}  // extern "C"

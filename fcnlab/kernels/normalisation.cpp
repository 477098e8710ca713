// Batch normalisation and ReLU in one pass, with the 2x2 max-pooling that ends a block of VGG in the same pass (Ioffe &
// Szegedy, ICML 2015, algorithm 1). Intermediate values are never written: the backward pass computes them again from
// the convolution's output, which costs less than reading them would.
//
// Tensors are float32, N x C x H x W. Statistics and sums are 2 x C. Terms are added up within stretches of a plane, and
// what stretches give in a fixed order, so that results do not depend on the number of threads.

#include "affine.h"
#include "operator.h"
#include "panels.h"
#include "parallel.h"
#include "sums.h"

#include <cstdint>
#include <vector>

namespace {

struct Planes {
  int64_t images, channels, height, width;

  explicit Planes(const int64_t* sizes) : images(sizes[0]), channels(sizes[1]), height(sizes[2]), width(sizes[3]) {}
  int64_t area() const { return height * width; }
  int64_t count() const { return images * channels; }

  // Whether a task for each channel would leave more than a quarter of the threads' time unused, and one for each plane
  // would not. A channel as a whole is read from the cache again where it is read twice.
  bool are_better_tasks_than_channels(const Threads& threads) const {
    const int64_t rounds = divide_up(channels, threads.count());
    return images > 1 && 4 * channels < 3 * rounds * threads.count();
  }
};

// Sends the gradient of each window in two rows to the first of its largest inputs, if that one has passed the ReLU.
inline void unpool(const float* x, int64_t width, const Affine& affine, const float* pooled, float* out) {
  const float* below = x + width;
  for (int64_t column = 0; column < width / 2; column++) {
    const float a = x[2 * column] * affine.scale + affine.shift, b = x[2 * column + 1] * affine.scale + affine.shift;
    const float c = below[2 * column] * affine.scale + affine.shift;
    const float d = below[2 * column + 1] * affine.scale + affine.shift;
    const float ab = a >= b ? a : b, cd = c >= d ? c : d;
    const float top = ab >= cd ? ab : cd;
    const float gradient = top > 0 ? pooled[column] : 0.0f;
    const float upper = ab >= cd ? gradient : 0.0f, lower = ab >= cd ? 0.0f : gradient;
    out[2 * column] = a >= b ? upper : 0.0f;
    out[2 * column + 1] = a >= b ? 0.0f : upper;
    out[width + 2 * column] = c >= d ? lower : 0.0f;
    out[width + 2 * column + 1] = c >= d ? 0.0f : lower;
  }
  if (width % 2) out[width - 1] = out[2 * width - 1] = 0;
}

// Calls `body(x, gradient, offset, count)` for stretches of a plane, with the gradient of the normalised values, which
// has passed back through the pooling, if there is any, and the ReLU.
template <bool Pool, typename Body>
inline void backward_plane(const float* x, const float* gradient, const Planes& planes, const Affine& affine,
                           const Body& body) {
  if constexpr (Pool) {
    std::vector<float> rows(2 * planes.width);
    int64_t row = 0;
    for (; row + 2 <= planes.height; row += 2) {
      unpool(x + row * planes.width, planes.width, affine, gradient + row / 2 * (planes.width / 2), rows.data());
      body(x + row * planes.width, rows.data(), row * planes.width, 2 * planes.width);
    }
    if (row < planes.height) {
      std::fill(rows.begin(), rows.end(), 0.0f);
      body(x + row * planes.width, rows.data(), row * planes.width, planes.width);
    }
  } else {
    float stretch[kStretch];
    for (int64_t begin = 0; begin < planes.area(); begin += kStretch) {
      const int64_t count = std::min(kStretch, planes.area() - begin);
      for (int64_t index = 0; index < count; index++) {
        stretch[index] = x[begin + index] * affine.scale + affine.shift > 0 ? gradient[begin + index] : 0.0f;
      }
      body(x + begin, stretch, begin, count);
    }
  }
}

template <bool Pool>
void forward(const float* x, const Planes& planes, const float* statistics, const float* gamma, const float* beta,
             float* out) {
  const int64_t out_height = planes.height / 2, out_width = planes.width / 2;
  Threads().run(planes.images * planes.channels, [&](int64_t plane) {
    const Affine affine(statistics, gamma, beta, planes.channels, plane % planes.channels);
    const float* source = x + plane * planes.area();
    if constexpr (Pool) {
      std::vector<float> larger(planes.width);
      for (int64_t row = 0; row < out_height; row++) {
        const float* above = source + 2 * row * planes.width;
        const float* below = above + planes.width;
        for (int64_t column = 0; column < planes.width; column++) {
          const float a = above[column] * affine.scale + affine.shift, b = below[column] * affine.scale + affine.shift;
          larger[column] = a >= b ? a : b;
        }
        float* target = out + (plane * out_height + row) * out_width;
        for (int64_t column = 0; column < out_width; column++) {
          const float a = larger[2 * column], b = larger[2 * column + 1];
          target[column] = rectified(a >= b ? a : b);
        }
      }
    } else {
      float* target = out + plane * planes.area();
      for (int64_t index = 0; index < planes.area(); index++) {
        target[index] = rectified(source[index] * affine.scale + affine.shift);
      }
    }
  });
}

struct Sums {
  double sum, product;

  void operator+=(const Sums& other) {
    sum += other.sum;
    product += other.product;
  }
};

// Sums up, for each channel, the gradient of the normalised values and its product with x_hat: the gradients of beta
// and gamma.
template <bool Pool>
void sum_gradients(const float* x, const Planes& planes, const float* gradient, const float* statistics,
                   const float* gamma, const float* beta, float* sums) {
  const int64_t gradient_area = Pool ? (planes.height / 2) * (planes.width / 2) : planes.area();
  // Calls `take` with the sums of each stretch of a plane.
  const auto sum_plane = [&](int64_t plane, const auto& take) {
    const Affine affine(statistics, gamma, beta, planes.channels, plane % planes.channels);
    backward_plane<Pool>(
        x + plane * planes.area(), gradient + plane * gradient_area, planes, affine,
        [&](const float* values, const float* gradients, int64_t, int64_t count) {
          const double sum = add_up(
              count, [&](int64_t i) { return load(gradients + i); }, [&](int64_t i) { return gradients[i]; });
          const double product = add_up(
              count, [&](int64_t i) { return load(gradients + i) * (load(values + i) - affine.mean); },
              [&](int64_t i) { return gradients[i] * (values[i] - affine.mean); });
          take(Sums{sum, product});
        });
  };
  const auto store = [&](int64_t channel, const Sums& total) {
    const Affine affine(statistics, gamma, beta, planes.channels, channel);
    sums[channel] = static_cast<float>(total.sum);
    sums[planes.channels + channel] = static_cast<float>(total.product * affine.inverse);
  };
  const Threads threads;
  if (!planes.are_better_tasks_than_channels(threads)) {
    threads.run(planes.channels, [&](int64_t channel) {
      Sums total{};
      for (int64_t image = 0; image < planes.images; image++) {
        sum_plane(image * planes.channels + channel, [&](const Sums& stretch) { total += stretch; });
      }
      store(channel, total);
    });
    return;
  }
  const int64_t stretches = Pool ? divide_up(planes.height, 2) : divide_up(planes.area(), kStretch);
  std::vector<Sums> parts(planes.count() * stretches);
  threads.run(planes.count(), [&](int64_t plane) {
    Sums* part = parts.data() + plane * stretches;
    sum_plane(plane, [&](const Sums& stretch) { *part++ = stretch; });
  });
  for (int64_t channel = 0; channel < planes.channels; channel++) {
    Sums total{};
    for (int64_t image = 0; image < planes.images; image++) {
      const Sums* const part = parts.data() + (image * planes.channels + channel) * stretches;
      for (int64_t stretch = 0; stretch < stretches; stretch++) total += part[stretch];
    }
    store(channel, total);
  }
}

template <bool Pool>
void input_gradient(const float* x, const Planes& planes, const float* gradient, const float* statistics,
                    const float* gamma, const float* beta, const float* sums, float* out) {
  const int64_t gradient_area = Pool ? (planes.height / 2) * (planes.width / 2) : planes.area();
  const float count = static_cast<float>(planes.images * planes.area());
  Threads().run(planes.images * planes.channels, [&](int64_t plane) {
    const int64_t channel = plane % planes.channels;
    const Affine affine(statistics, gamma, beta, planes.channels, channel);
    // The gradient is scale * (g - mean(g) - x_hat * mean(g * x_hat)), which is linear in g and x.
    const float slope = -affine.scale * affine.inverse * (sums[planes.channels + channel] / count);
    const float offset = -affine.scale * (sums[channel] / count) - slope * affine.mean;
    float* target = out + plane * planes.area();
    backward_plane<Pool>(x + plane * planes.area(), gradient + plane * gradient_area, planes, affine,
                         [&](const float* values, const float* gradients, int64_t begin, int64_t length) {
                           for (int64_t i = 0; i < length; i++) {
                             target[begin + i] = affine.scale * gradients[i] + (slope * values[i] + offset);
                           }
                         });
  });
}

// Computes the mean and the biased variance of each channel.
void find_statistics(const float* x, const Planes& planes, float* statistics) {
  const auto sum = [&](int64_t plane) {
    const float* values = x + plane * planes.area();
    return add_up(planes.area(), [&](int64_t i) { return load(values + i); }, [&](int64_t i) { return values[i]; });
  };
  const auto sum_squares = [&](int64_t plane) {
    const float* values = x + plane * planes.area();
    const float mean = statistics[plane % planes.channels];
    return add_up(
        planes.area(),
        [&](int64_t i) {
          const Vector difference = load(values + i) - mean;
          return difference * difference;
        },
        [&](int64_t i) { return (values[i] - mean) * (values[i] - mean); });
  };
  // Divides what the planes of a channel give.
  const auto average = [&](int64_t channel, const auto& of_plane) {
    double total = 0;
    for (int64_t image = 0; image < planes.images; image++) total += of_plane(image * planes.channels + channel);
    return static_cast<float>(total / static_cast<double>(planes.images * planes.area()));
  };
  const Threads threads;
  if (!planes.are_better_tasks_than_channels(threads)) {
    threads.run(planes.channels, [&](int64_t channel) {
      statistics[channel] = average(channel, sum);
      statistics[planes.channels + channel] = average(channel, sum_squares);
    });
    return;
  }
  std::vector<double> parts(planes.count());
  const auto average_all = [&](const auto& of_plane, float* target) {
    threads.run(planes.count(), [&](int64_t plane) { parts[plane] = of_plane(plane); });
    for (int64_t channel = 0; channel < planes.channels; channel++) {
      target[channel] = average(channel, [&](int64_t plane) { return parts[plane]; });
    }
  };
  average_all(sum, statistics);
  average_all(sum_squares, statistics + planes.channels);
}

std::vector<int64_t> pooled(const int64_t* shape) {
  return {shape[0], shape[1], halved(shape[2]), halved(shape[3])};
}

}  // namespace

extern "C" {

// x -> the mean and the biased variance of each channel, 2 x C
int channel_statistics(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return answer([&] { find_statistics(at(data, 0), Planes(shapes[0]), at(data, 1)); });
}

std::vector<int64_t> channel_statisticsInferShape(int*, int64_t** shapes, void*) { return {2, shapes[0][1]}; }

// x, statistics, gamma, beta -> relu(normalised x)
int norm_relu(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return answer([&] {
    forward<false>(at(data, 0), Planes(shapes[0]), at(data, 1), at(data, 2), at(data, 3), at(data, 4));
  });
}

std::vector<int64_t> norm_reluInferShape(int* sizes, int64_t** shapes, void*) {
  return std::vector<int64_t>(shapes[0], shapes[0] + sizes[0]);
}

// x, statistics, gamma, beta -> relu(normalised x), pooled to N x C x H/2 x W/2
int norm_relu_pool(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return answer([&] {
    forward<true>(at(data, 0), Planes(shapes[0]), at(data, 1), at(data, 2), at(data, 3), at(data, 4));
  });
}

std::vector<int64_t> norm_relu_poolInferShape(int*, int64_t** shapes, void*) { return pooled(shapes[0]); }

// x, gradient, statistics, gamma, beta -> the gradients of beta and gamma, 2 x C
int norm_relu_sums(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return answer([&] {
    sum_gradients<false>(at(data, 0), Planes(shapes[0]), at(data, 1), at(data, 2), at(data, 3), at(data, 4), at(data, 5));
  });
}

std::vector<int64_t> norm_relu_sumsInferShape(int*, int64_t** shapes, void*) { return {2, shapes[0][1]}; }

int norm_relu_pool_sums(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return answer([&] {
    sum_gradients<true>(at(data, 0), Planes(shapes[0]), at(data, 1), at(data, 2), at(data, 3), at(data, 4), at(data, 5));
  });
}

std::vector<int64_t> norm_relu_pool_sumsInferShape(int*, int64_t** shapes, void*) { return {2, shapes[0][1]}; }

// x, gradient, statistics, gamma, beta, sums (zeros where the statistics are constants) -> the gradient of x
int norm_relu_input_gradient(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return answer([&] {
    input_gradient<false>(at(data, 0), Planes(shapes[0]), at(data, 1), at(data, 2), at(data, 3), at(data, 4), at(data, 5),
        at(data, 6));
  });
}

std::vector<int64_t> norm_relu_input_gradientInferShape(int* sizes, int64_t** shapes, void*) {
  return std::vector<int64_t>(shapes[0], shapes[0] + sizes[0]);
}

int norm_relu_pool_input_gradient(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return answer([&] {
    input_gradient<true>(at(data, 0), Planes(shapes[0]), at(data, 1), at(data, 2), at(data, 3), at(data, 4), at(data, 5),
        at(data, 6));
  });
}

std::vector<int64_t> norm_relu_pool_input_gradientInferShape(int* sizes, int64_t** shapes, void*) {
  return std::vector<int64_t>(shapes[0], shapes[0] + sizes[0]);
}

}  // extern "C"

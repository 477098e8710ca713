// A convolution of any odd kernel, stride 1, output as large as the input, and its two gradients, by the definition:
// one matrix product for every tap of the kernel, between the channels of the pixels that the tap joins. It is for
// large kernels on coarse maps, where much of an unfolded image (im2col) would be padding: of a 7x7 kernel's products
// on a map of 8x8, a share of 0.62 is with pixels of the image, and only those are computed.
//
// Tensors are float32, N x C x H x W, like MindSpore's. Internally, everything is in panels of 16 channels. Each value
// is summed up by one task in a fixed order, so that results are the same to the bit on any number of threads.

#include "buffer.h"
#include "operator.h"
#include "panels.h"
#include "parallel.h"
#include "weight.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

namespace {

constexpr int64_t kCache = int64_t{3} << 17;  // bytes of kernels that stay in a core's second-level cache
constexpr int64_t kWorthKernels = 32;         // pixels that are worth packing kernels

struct Shape {
  int64_t images, channels, height, width;

  explicit Shape(const int64_t* sizes) : images(sizes[0]), channels(sizes[1]), height(sizes[2]), width(sizes[3]) {}
  int64_t area() const { return height * width; }
  int64_t pixels() const { return images * area(); }
  int64_t panels() const { return divide_up(channels, kLanes); }
  int64_t channels_of(int64_t panel) const { return std::min<int64_t>(kLanes, channels - panel * kLanes); }
};

// Two pixels that a tap of the kernel joins, numbered over all images.
struct Pair {
  int64_t input, output;
};

// Returns, for each tap, the pairs within the image.
std::vector<std::vector<Pair>> pairs_of(const Shape& shape, int64_t kernel_size) {
  const int64_t reach = kernel_size / 2;
  std::vector<std::vector<Pair>> pairs(kernel_size * kernel_size);
  for (int64_t tap = 0; tap < kernel_size * kernel_size; tap++) {
    const int64_t down = tap / kernel_size - reach, right = tap % kernel_size - reach;
    for (int64_t image = 0; image < shape.images; image++) {
      for (int64_t y = std::max<int64_t>(0, -down); y < std::min(shape.height, shape.height - down); y++) {
        for (int64_t x = std::max<int64_t>(0, -right); x < std::min(shape.width, shape.width - right); x++) {
          const int64_t output = (image * shape.height + y) * shape.width + x;
          pairs[tap].push_back({output + down * shape.width + right, output});
        }
      }
    }
  }
  return pairs;
}

// Copies images to panels of channels x pixels x 16.
void gather(const float* images, const Shape& shape, Panel* out, const Threads& threads) {
  threads.run(shape.panels() * shape.images, [&](int64_t task) {
    const int64_t panel = task / shape.images, image = task % shape.images;
    gather_row(images + (image * shape.channels + panel * kLanes) * shape.area(), shape.area(), shape.channels_of(panel),
               0, shape.area(), shape.area(), out + panel * shape.pixels() + image * shape.area());
  });
}

struct Kernels : Weight {
  // Copies the weights of one panel of outputs and `depth` inputs from `first` on to taps x `step` inputs x 16 outputs,
  // with zeros beyond the last input.
  void pack(int64_t panel, int64_t first, int64_t depth, int64_t step, Panel* out) const {
    const int64_t lanes = std::min<int64_t>(kLanes, outputs() - panel * kLanes);
    const int64_t count = std::min(depth, inputs() - first);
    for (int64_t tap = 0; tap < taps; tap++) {
      std::memset(static_cast<void*>(out + tap * step + count), 0, (depth - count) * sizeof(Panel));
    }
    if (flipped) {
      for (int64_t input = 0; input < count; input++) {
        const float* source = weight + ((first + input) * in_channels + panel * kLanes) * taps;
        transpose_columns(source, taps, lanes, taps,
                          [&](int64_t column) { return out + (taps - 1 - column) * step + input; });
      }
    } else {
      const float* source = weight + (panel * kLanes * in_channels + first) * taps;
      int64_t input = 0, tap = 0, expected = 0;
      transpose_columns(source, in_channels * taps, lanes, count * taps, [&](int64_t column) {
        if (column != expected) {  // the last block overlaps with the one before
          input = column / taps;
          tap = column % taps;
        }
        Panel* const target = out + tap * step + input;
        expected = column + 1;
        if (++tap == taps) {
          tap = 0;
          input++;
        }
        return target;
      });
    }
  }
};

// Reorders panels of channels x pixels x 16 to blocks of pixels x panels x kRows x 16, and adapts the pairs. A kernel
// of one tap reads the pixels in order, so that pixels that are read together then lie together.
void reorder(const Panel* inputs, const Shape& shape, std::vector<Pair>& pairs, Panel* out, const Threads& threads) {
  const int64_t pixels = shape.pixels(), panels = shape.panels();
  threads.run(divide_up(pixels, kRows), [&](int64_t block) {
    const int64_t begin = block * kRows, count = std::min<int64_t>(kRows, pixels - begin);
    for (int64_t panel = 0; panel < panels; panel++) {
      std::copy_n(inputs + panel * pixels + begin, count, out + (block * panels + panel) * kRows);
    }
  });
  for (Pair& pair : pairs) pair.input = pair.input / kRows * panels * kRows + pair.input % kRows;
}

// Consecutive pixels of the output, numbered over all images.
struct Range {
  int64_t begin, end;

  int64_t length() const { return end - begin; }
};

// Adds the product of the input's channels and the kernels to the sum of the output, for each pair of one tap whose
// output is in the range. `inputs` are depth_panels panels, `input_step` apart, `kernels` are Panels x kernel_step
// depths x 16, and `sums` are Panels x (the range and a pixel that nobody reads) x 16.
template <int Panels>
inline void add_tap(const std::vector<Pair>& pairs, Range range, const Panel* inputs, int64_t input_step,
                    int64_t depth_panels, const Panel* kernels, int64_t kernel_step, Panel* sums) {
  constexpr int kVectors = Panels * kLanes / kWidth, kParts = kLanes / kWidth;
  const int64_t sum_step = range.length() + 1;
  const auto before = [](const Pair& pair, int64_t pixel) { return pair.output < pixel; };
  const Pair* const begin = std::lower_bound(pairs.data(), pairs.data() + pairs.size(), range.begin, before);
  const Pair* const end = std::lower_bound(begin, pairs.data() + pairs.size(), range.end, before);
  for (const Pair* first = begin; first < end; first += kRows) {
    const float* left[kRows];
    Panel* target[kRows];
    for (int row = 0; row < kRows; row++) {
      const bool exists = first + row < end;
      left[row] = reinterpret_cast<const float*>(inputs + (exists ? first[row].input : first->input));
      target[row] = sums + (exists ? first[row].output - range.begin : range.length());
    }
    Vector sum[kRows][kVectors];
    for (int row = 0; row < kRows; row++) {
      for (int vector = 0; vector < kVectors; vector++) {
        sum[row][vector] = reinterpret_cast<const Vector*>(target[row] + vector / kParts * sum_step)[vector % kParts];
      }
    }
    const Panel* right = kernels;
    for (int64_t panel = 0; panel < depth_panels; panel++) {
#pragma GCC unroll 4
      for (int lane = 0; lane < kLanes; lane++) {
        Vector values[kVectors];
        for (int vector = 0; vector < kVectors; vector++) {
          values[vector] = reinterpret_cast<const Vector*>(right + lane + vector / kParts * kernel_step)[vector % kParts];
        }
        for (int row = 0; row < kRows; row++) {
          for (int vector = 0; vector < kVectors; vector++) {
            sum[row][vector] += left[row][panel * input_step * kLanes + lane] * values[vector];
          }
        }
      }
      right += kLanes;
    }
    for (int row = 0; row < kRows; row++) {
      for (int vector = 0; vector < kVectors; vector++) {
        reinterpret_cast<Vector*>(target[row] + vector / kParts * sum_step)[vector % kParts] = sum[row][vector];
      }
    }
  }
}

// Runs a task of `convolve`: the outputs of `Panels` panels from `panel` on, for some pixels.
template <int Panels>
void convolve_panels(const Panel* inputs, int64_t input_step, const Shape& in, const Kernels& kernels,
                     const std::vector<std::vector<Pair>>& pairs, const float* bias, int64_t panel, Range range,
                     float* output, const Shape& out) {
  const int64_t sum_step = range.length() + 1;
  // The chunk decides the order of the sums, and must not depend on `Panels`, which depends on the number of threads.
  const int64_t cached = kCache / (kernels.taps * kPanels * kLanes * int64_t{sizeof(Panel)});
  const int64_t chunk = std::clamp<int64_t>(cached, 1, in.panels());
  // The distance between taps is no multiple of 16 lines, so that their columns do not compete for one set of the
  // cache.
  const int64_t tap_step = chunk * kLanes + 1, kernel_step = kernels.taps * tap_step;
  Buffer buffer(Panels * (kernel_step + sum_step));
  Panel* packed = buffer.data();
  Panel* sums = packed + Panels * kernel_step;
  for (int part = 0; part < Panels; part++) {
    alignas(64) float start[kLanes] = {};
    if (bias != nullptr) {
      std::memcpy(start, bias + (panel + part) * kLanes, out.channels_of(panel + part) * sizeof(float));
    }
    std::fill_n(sums + part * sum_step, sum_step, *reinterpret_cast<const Panel*>(start));
  }
  for (int64_t first = 0; first < in.panels(); first += chunk) {
    const int64_t depth_panels = std::min(chunk, in.panels() - first), depth = depth_panels * kLanes;
    for (int part = 0; part < Panels; part++) {
      kernels.pack(panel + part, first * kLanes, depth, tap_step, packed + part * kernel_step);
    }
    for (int64_t tap = 0; tap < kernels.taps; tap++) {
      add_tap<Panels>(pairs[tap], range, inputs + first * input_step, input_step, depth_panels, packed + tap * tap_step,
                      kernel_step, sums);
    }
  }
  for (int part = 0; part < Panels; part++) {
    for (int64_t pixel = range.begin; pixel < range.end;) {
      const int64_t image = pixel / out.area(), place = pixel % out.area();
      const int64_t count = std::min(out.area() - place, range.end - pixel);
      scatter_row(sums + part * sum_step + (pixel - range.begin), count, out.channels_of(panel + part),
                  output + (image * out.channels + (panel + part) * kLanes) * out.area() + place, out.area());
      pixel += count;
    }
  }
}

// Convolves `input`; `bias` may be null.
void convolve(const float* input, const Shape& in, const Kernels& kernels, int64_t kernel_size, const float* bias,
              float* output, const Shape& out) {
  const Threads threads = Threads::for_products(in.pixels() * kernels.taps * in.channels * out.channels);
  std::vector<std::vector<Pair>> pairs = pairs_of(in, kernel_size);
  Buffer inputs(in.panels() * in.pixels() + 1);
  gather(input, in, inputs.data(), threads);
  std::optional<Buffer> blocks;
  if (kernels.taps == 1) {
    blocks.emplace(in.panels() * round_up(in.pixels(), kRows) + 1);
    reorder(inputs.data(), in, pairs[0], blocks->data(), threads);
  }
  const Panel* source = blocks ? blocks->data() : inputs.data();
  const int64_t input_step = blocks ? int64_t{kRows} : in.pixels();
  const int64_t together = divide_up(out.panels(), kPanels) >= threads.count() ? kPanels : 1;
  // Where there are fewer panels than threads, several tasks pack the same kernels, each for a part of the pixels.
  const int64_t tasks = divide_up(out.panels(), together), pixels = out.pixels();
  const int64_t wanted = std::clamp<int64_t>(threads.count() / std::max<int64_t>(tasks, 1), 1, std::max<int64_t>(1, pixels / kWorthKernels));
  const int64_t share = round_up(divide_up(pixels, wanted), kRows), parts = pixels > 0 ? divide_up(pixels, share) : 0;
  threads.run(tasks * parts, [&](int64_t task) {
    const int64_t panel = task / parts * together, first = task % parts * share;
    const Range range{first, std::min(first + share, pixels)};
    if (panel + together <= out.panels() && together == kPanels) {
      convolve_panels<kPanels>(source, input_step, in, kernels, pairs, bias, panel, range, output, out);
    } else {
      convolve_panels<1>(source, input_step, in, kernels, pairs, bias, panel, range, output, out);
    }
  });
}

// Sums up the products over the pairs of one tap: 16 outputs x Panels x 16 inputs.
template <int Panels>
inline void sum_tap(const std::vector<Pair>& pairs, const Panel* inputs, int64_t pixels, const Panel* gradients,
                    Panel* sums, int64_t sum_step) {
  for (int row = 0; row < kLanes; row += kRows) {
    Accumulator<Panels> accumulator;
    accumulator.clear();
    for (const Pair& pair : pairs) {
      accumulator.template add<1>(reinterpret_cast<const float*>(gradients + pair.output) + row, inputs + pair.input,
                                  pixels);
    }
    accumulator.store(sums + row, sum_step);
  }
}

// Copies taps x `step` x 16 inputs to `lanes` inputs x taps.
void store_taps(const Panel* sums, int64_t step, int64_t lanes, int64_t taps, float* out) {
  if (taps < kLanes) {
    for (int64_t tap = 0; tap < taps; tap++) {
      const float* values = reinterpret_cast<const float*>(sums + tap * step);
      for (int64_t lane = 0; lane < lanes; lane++) out[lane * taps + tap] = values[lane];
    }
    return;
  }
  for (int64_t begin = 0; begin < taps; begin += kLanes) {
    const int64_t from = std::min(begin, taps - kLanes);
    transpose([&](int tap, int lane) { return vector_of(sums + (from + tap) * step, lane); },
              [&](int lane, int tap, const Vector& values) {
                if (lane < lanes) store(values, out + lane * taps + from + tap);
              });
  }
}

// Computes the gradient for 16 outputs and the inputs of `Panels` panels from `in_panel` on. `sums` has room for Panels
// x taps x 16 outputs x 16 inputs.
template <int Panels>
void weight_gradient_panels(const Panel* inputs, const Shape& in, const Panel* gradients, const Shape& out,
                            const std::vector<std::vector<Pair>>& pairs, int64_t in_panel, int64_t out_panel,
                            Panel* sums, float* result) {
  const int64_t taps = static_cast<int64_t>(pairs.size()), pixels = in.pixels(), sum_step = taps * kLanes;
  for (int64_t tap = 0; tap < taps; tap++) {
    sum_tap<Panels>(pairs[tap], inputs + in_panel * pixels, pixels, gradients + out_panel * pixels, sums + tap * kLanes,
                    sum_step);
  }
  for (int64_t lane = 0; lane < out.channels_of(out_panel); lane++) {
    for (int part = 0; part < Panels; part++) {
      store_taps(sums + part * sum_step + lane, kLanes, in.channels_of(in_panel + part), taps,
                 result + ((out_panel * kLanes + lane) * in.channels + (in_panel + part) * kLanes) * taps);
    }
  }
}

void weight_gradient(const float* images, const Shape& in, const float* gradient, const Shape& out, int64_t kernel_size,
                     float* result) {
  const Threads threads = Threads::for_products(in.pixels() * kernel_size * kernel_size * in.channels * out.channels);
  const std::vector<std::vector<Pair>> pairs = pairs_of(in, kernel_size);
  Buffer inputs(in.panels() * in.pixels() + 1), gradients(out.panels() * out.pixels() + 1);
  gather(images, in, inputs.data(), threads);
  gather(gradient, out, gradients.data(), threads);
  // Several tasks for each thread, since they do not divide evenly; a task's panels of inputs are as many as registers
  // hold, or a multiple of them.
  const int64_t groups = divide_up(in.panels(), kPanels);
  const int64_t parts = std::clamp<int64_t>(divide_up(4 * threads.count(), out.panels()), 1, groups);
  threads.run(out.panels() * parts, [&](int64_t task) {
    const int64_t out_panel = task / parts, part = task % parts;
    Buffer sums(kPanels * kernel_size * kernel_size * kLanes);
    int64_t panel = groups * part / parts * kPanels;
    const int64_t end = std::min(groups * (part + 1) / parts * kPanels, in.panels());
    for (; panel + kPanels <= end; panel += kPanels) {
      weight_gradient_panels<kPanels>(inputs.data(), in, gradients.data(), out, pairs, panel, out_panel, sums.data(), result);
    }
    for (; panel < end; panel++) {
      weight_gradient_panels<1>(inputs.data(), in, gradients.data(), out, pairs, panel, out_panel, sums.data(), result);
    }
  });
}

Kernels kernels_of(const float* weight, const int64_t* shape, bool flipped) {
  return {weight, shape[0], shape[1], shape[2] * shape[3], flipped};
}

}  // namespace

extern "C" {

// images (N x I x H x W), weight (O x I x K x K), bias (O) -> N x O x H x W
int direct_convolution(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return answer([&] {
    convolve(at(data, 0), Shape(shapes[0]), kernels_of(at(data, 1), shapes[1], false), shapes[1][2], at(data, 2),
             at(data, 3), Shape(shapes[3]));
  });
}

std::vector<int64_t> direct_convolutionInferShape(int*, int64_t** shapes, void*) {
  return {shapes[0][0], shapes[1][0], shapes[0][2], shapes[0][3]};
}

// output gradient (N x O x H x W), weight (O x I x K x K) -> N x I x H x W
int direct_convolution_input_gradient(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return answer([&] {
    convolve(at(data, 0), Shape(shapes[0]), kernels_of(at(data, 1), shapes[1], true), shapes[1][2], nullptr, at(data, 2),
             Shape(shapes[2]));
  });
}

std::vector<int64_t> direct_convolution_input_gradientInferShape(int*, int64_t** shapes, void*) {
  return {shapes[0][0], shapes[1][1], shapes[0][2], shapes[0][3]};
}

// images (N x I x H x W), output gradient (N x O x H x W), weight (O x I x K x K; its shape alone) -> O x I x K x K
int direct_convolution_weight_gradient(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return answer([&] {
    weight_gradient(at(data, 0), Shape(shapes[0]), at(data, 1), Shape(shapes[1]), shapes[2][2], at(data, 3));
  });
}

std::vector<int64_t> direct_convolution_weight_gradientInferShape(int*, int64_t** shapes, void*) {
  return std::vector<int64_t>(shapes[2], shapes[2] + 4);
}

}  // extern "C"

// 3x3 convolution, stride 1, padding 1, and its two gradients, by Winograd's minimal filtering F(4x4, 3x3)
// (Lavin & Gray, CVPR 2016, section 4): an output tile of 4x4 costs 36 products for each pair of channels where the
// definition takes 144. Patches of 6x6 input pixels are transformed, the 36 points of the transform are 36 independent
// matrix products, and the result is transformed back.
//
// Images of few channels are convolved by the definition (few_channels.cpp).
//
// Tensors are float32, N x C x H x W, like MindSpore's. Internally, everything is in panels of 16 channels, so that a
// vector register holds the channels of one pixel. How the work is divided does not depend on the number of threads, so
// that results are the same to the bit on any number of threads.

#include "affine.h"
#include "buffer.h"
#include "few_channels.h"
#include "operator.h"
#include "panels.h"
#include "parallel.h"

#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int kTile = 4;     // the side of an output tile in pixels
constexpr int kPatch = 6;    // the side of an input patch in pixels
constexpr int kPoints = 36;  // the number of points of the transform
constexpr int kRun = 16;     // the largest number of tiles in a run
constexpr int kScratchStride = kRun * kTile + 2;

constexpr int64_t kCache = int64_t{3} << 17;        // bytes that stay in a core's second-level cache
constexpr int64_t kManyKernels = int64_t{3} << 19;  // bytes of kernels that no core should read alone for few tiles
constexpr int64_t kSmallSums = int64_t{3} << 19;    // bytes of sums that a thread may have for itself
constexpr int64_t kWorthKernels = 64;               // tiles that are worth reading all kernels from memory

// Panels that are left free between two of the 36 planes of a transform. At distances that are powers of two, the planes
// would compete for one set of the cache.
constexpr int64_t kGap = 5;

struct Shape {
  int64_t images, channels, height, width;

  explicit Shape(const int64_t* sizes) : Shape(sizes[0], sizes[1], sizes[2], sizes[3]) {}
  Shape(int64_t images, int64_t channels, int64_t height, int64_t width)
      : images(images), channels(channels), height(height), width(width) {}
  int64_t tile_rows() const { return divide_up(height, kTile); }
  int64_t tile_columns() const { return divide_up(width, kTile); }
  int64_t tiles() const { return images * tile_rows() * tile_columns(); }
};

// Consecutive tiles of one tile row of one image.
struct Run {
  int64_t image, row, column, length;
  int64_t first;  // the position of its first tile within the block
};

std::vector<Run> runs_of(const Shape& shape, int64_t begin, int64_t end) {
  std::vector<Run> runs;
  const int64_t columns = shape.tile_columns(), rows = shape.tile_rows();
  for (int64_t tile = begin; tile < end;) {
    const int64_t column = tile % columns, line = tile / columns;
    const int64_t length = std::min({columns - column, end - tile, int64_t{kRun}});
    runs.push_back({line / rows, line % rows, column, length, tile - begin});
    tile += length;
  }
  return runs;
}

// Computes B^T d: six values from the six of a row or column of an input patch.
inline void transform_input(const Vector* d, int64_t step, Vector* v, int64_t v_step) {
  const Vector d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
  const Vector even = d4 - 4.0f * d2, odd = d3 - 4.0f * d1;
  const Vector even2 = d4 - d2, odd2 = 2.0f * (d3 - d1);
  v[0] = 4.0f * d0 - 5.0f * d2 + d4;
  v[v_step] = even + odd;
  v[2 * v_step] = even - odd;
  v[3 * v_step] = even2 + odd2;
  v[4 * v_step] = even2 - odd2;
  v[5 * v_step] = 4.0f * d1 - 5.0f * d3 + d5;
}

// Computes A^T m: the four values of a row or column of an output tile.
inline void transform_output(const Vector* m, int64_t step, Vector* y, int64_t y_step) {
  const Vector m1 = m[step], m2 = m[2 * step], m3 = m[3 * step], m4 = m[4 * step];
  const Vector sum = m1 + m2, difference = m1 - m2, sum2 = m3 + m4, difference2 = m3 - m4;
  y[0] = m[0] + sum + sum2;
  y[y_step] = difference + 2.0f * difference2;
  y[2 * y_step] = sum + 4.0f * sum2;
  y[3 * y_step] = difference + 8.0f * difference2 + m[5 * step];
}

// Computes A y, with the transpose of that matrix: six values from the four of an output gradient.
inline void transform_gradient(const Vector* y, int64_t step, Vector* m, int64_t m_step) {
  const Vector y0 = y[0], y1 = y[step], y2 = y[2 * step], y3 = y[3 * step];
  const Vector even = y0 + y2, odd = y1 + y3, even2 = y0 + 4.0f * y2, odd2 = 2.0f * y1 + 8.0f * y3;
  m[0] = y0;
  m[m_step] = even + odd;
  m[2 * m_step] = even - odd;
  m[3 * m_step] = even2 + odd2;
  m[4 * m_step] = even2 - odd2;
  m[5 * m_step] = y3;
}

// Computes G g: six values from the three of a kernel.
inline void transform_kernel(const Vector* g, int64_t step, Vector* u, int64_t u_step) {
  const Vector g0 = g[0], g1 = g[step], g2 = g[2 * step];
  const Vector ends = (g0 + g2) * (-1.0f / 6), middle = g1 * (1.0f / 6);
  const Vector ends2 = g0 * (1.0f / 24) + g2 * (1.0f / 6), middle2 = g1 * (1.0f / 12);
  u[0] = g0 * 0.25f;
  u[u_step] = ends - middle;
  u[2 * u_step] = ends + middle;
  u[3 * u_step] = ends2 + middle2;
  u[4 * u_step] = ends2 - middle2;
  u[5 * u_step] = g2;
}

// Computes G^T m, with the transpose of that matrix: the three values of a kernel's gradient.
inline void transform_kernel_gradient(const Vector* m, int64_t step, Vector* g, int64_t g_step) {
  const Vector m0 = m[0], m1 = m[step], m2 = m[2 * step], m3 = m[3 * step], m4 = m[4 * step], m5 = m[5 * step];
  const Vector sum = (m1 + m2) * (-1.0f / 6), sum2 = m3 + m4;
  g[0] = m0 * 0.25f + sum + sum2 * (1.0f / 24);
  g[g_step] = (m2 - m1) * (1.0f / 6) + (m3 - m4) * (1.0f / 12);
  g[2 * g_step] = sum + sum2 * (1.0f / 6) + m5;
}

using Transform = void (*)(const Vector*, int64_t, Vector*, int64_t);

// The distances, in panels, between the rows and the columns of a patch.
struct Layout {
  int64_t row_step, column_step;
};

// Transforms the columns and then the rows of a patch, as many lanes at a time as a register has: a patch of whole
// panels would take more registers than there are.
template <int From, int To, Transform transform>
inline void transform_both(const Panel* patch, Layout from, Panel* out, Layout to) {
  constexpr int64_t kParts = kLanes / kWidth;
  for (int64_t part = 0; part < kParts; part++) {
    const Vector* source = reinterpret_cast<const Vector*>(patch) + part;
    Vector* target = reinterpret_cast<Vector*>(out) + part;
    Vector half[To * From];
    for (int column = 0; column < From; column++) {
      transform(source + column * from.column_step * kParts, from.row_step * kParts, half + column, From);
    }
    for (int row = 0; row < To; row++) {
      transform(half + row * From, 1, target + row * to.row_step * kParts, to.column_step * kParts);
    }
  }
}

// Transforms the kernels to kPoints x panels of outputs x inputs (padded) x 16. `flipped` is for the input gradient,
// which is a convolution with inputs and outputs exchanged and the kernel rotated by 180 degrees.
void transform_kernels(const float* weight, int64_t out_channels, int64_t in_channels, bool flipped, Panel* kernels,
                       const Threads& threads) {
  const int64_t outputs = flipped ? in_channels : out_channels, inputs = flipped ? out_channels : in_channels;
  const int64_t output_panels = divide_up(outputs, kLanes), depth = round_up(inputs, kLanes);
  const int64_t plane = output_panels * depth + kGap;
  const int64_t output_step = flipped ? 9 : in_channels * 9, input_step = flipped ? in_channels * 9 : 9;
  threads.run(output_panels * (depth / kLanes), [&](int64_t task) {
    const int64_t panel = task / (depth / kLanes), first = task % (depth / kLanes) * kLanes;
    const int64_t lanes = std::min<int64_t>(kLanes, outputs - panel * kLanes);
    const int64_t count = std::min<int64_t>(kLanes, inputs - first);
    const float* source = weight + panel * kLanes * output_step + first * input_step;
    Panel taps[kLanes * 9] = {};
    if (flipped) {
      for (int64_t input = 0; input < count; input++) {
        float* values = reinterpret_cast<float*>(taps + input * 9);
        const float* row = source + input * input_step;
        for (int64_t lane = 0; lane < lanes; lane++, row += output_step) {
          for (int tap = 0; tap < 9; tap++) values[(8 - tap) * kLanes + lane] = row[tap];
        }
      }
    } else {
      transpose_columns(source, output_step, lanes, count * 9, [&](int64_t column) { return taps + column; });
    }
    for (int64_t input = 0; input < kLanes; input++) {
      transform_both<3, 6, transform_kernel>(taps + input * 9, {3, 1}, kernels + panel * depth + first + input,
                                             {kPatch * plane, plane});
    }
  });
}

// Transforms the tiles of some runs, for one panel of channels, into kPoints planes.
template <int Rows, int Offset, Transform transform>
void transform_tiles(const float* images, const Shape& shape, int64_t panel, const std::vector<Run>& runs, Panel* out,
                     int64_t plane, Panel* scratch) {
  const int64_t channels = std::min<int64_t>(kLanes, shape.channels - panel * kLanes);
  for (const Run& run : runs) {
    const float* source = images + (run.image * shape.channels + panel * kLanes) * shape.height * shape.width;
    const int64_t width = run.length * kTile + (Rows - kTile), left = run.column * kTile - Offset;
    for (int row = 0; row < Rows; row++) {
      const int64_t y = run.row * kTile - Offset + row;
      if (y < 0 || y >= shape.height) {
        std::memset(static_cast<void*>(scratch + row * kScratchStride), 0, width * sizeof(Panel));
      } else {
        gather_row(source + y * shape.width, shape.height * shape.width, channels, left, width, shape.width,
                   scratch + row * kScratchStride);
      }
    }
    for (int64_t tile = 0; tile < run.length; tile++) {
      transform_both<Rows, kPatch, transform>(scratch + tile * kTile, {kScratchStride, 1}, out + run.first + tile,
                                              {kPatch * plane, plane});
    }
  }
}

// What is done to the output of a convolution before it is written: nothing, or normalisation with given statistics,
// ReLU and perhaps 2x2 max-pooling.
struct Finish {
  int side = 1;  // of the windows that are pooled; 1 is no pooling
  std::vector<float> scale{}, shift{};  // of each channel, up to a whole panel; empty for no normalisation

  // Normalises and pools kTile rows of `width` pixels, whose panels become those of kTile / side rows.
  void operator()(Panel* rows, int64_t width, int64_t panel) const {
    if (scale.empty()) return;
    constexpr int64_t kParts = kLanes / kWidth, kStep = kScratchStride * kParts;
    for (int64_t part = 0; part < kParts; part++) {
      const Vector factor = load(scale.data() + panel * kLanes + part * kWidth);
      const Vector summand = load(shift.data() + panel * kLanes + part * kWidth);
      Vector* const first = reinterpret_cast<Vector*>(rows) + part;
      for (int row = 0; row < kTile; row++) {
        for (int64_t pixel = 0; pixel < width; pixel++) {
          Vector& value = first[row * kStep + pixel * kParts];
          value = rectified(Vector(value * factor + summand));
        }
      }
      if (side == 1) continue;
      for (int row = 0; row < kTile / 2; row++) {
        for (int64_t pixel = 0; pixel < width / 2; pixel++) {
          const Vector* window = first + 2 * row * kStep + 2 * pixel * kParts;
          first[row * kStep + pixel * kParts] =
              larger(larger(window[0], window[kParts]), larger(window[kStep], window[kStep + kParts]));
        }
      }
    }
  }

 private:
  static Vector larger(const Vector& a, const Vector& b) { return a >= b ? a : b; }
};

// Transforms tiles back, for one panel of output channels, and writes what `finish` makes of them. `shape` is that of the
// convolution's output.
void restore_tiles(const Panel* products, int64_t plane, const std::vector<Run>& runs, float* images, const Shape& shape,
                   int64_t panel, Panel* scratch, const Finish& finish) {
  const int64_t channels = std::min<int64_t>(kLanes, shape.channels - panel * kLanes);
  const int64_t height = shape.height / finish.side, width = shape.width / finish.side, side = kTile / finish.side;
  for (const Run& run : runs) {
    for (int64_t tile = 0; tile < run.length; tile++) {
      transform_both<kPatch, kTile, transform_output>(products + run.first + tile, {kPatch * plane, plane},
                                                      scratch + tile * kTile, {kScratchStride, 1});
    }
    finish(scratch, run.length * kTile, panel);
    float* target = images + (run.image * shape.channels + panel * kLanes) * height * width;
    for (int row = 0; row < side; row++) {
      const int64_t y = run.row * side + row, left = run.column * side;
      if (y >= height) break;
      scatter_row(scratch + row * kScratchStride, std::min(run.length * side, width - left), channels,
                  target + y * width + left, height * width);
    }
  }
}

// Convolves `input` with transformed kernels, in three phases that all threads share: each reads a part of the kernels,
// and the patches and products of all tiles go through memory. It is for few tiles.
void convolve_in_phases(const float* input, const Shape& in, const Panel* kernels, float* output, const Shape& out,
                        const Finish& finish, const Threads& threads) {
  const int64_t in_panels = divide_up(in.channels, kLanes), out_panels = divide_up(out.channels, kLanes);
  const int64_t depth = in_panels * kLanes, kernel_plane = out_panels * depth + kGap;
  const int64_t step = round_up(in.tiles(), kRows), slices = divide_up(in.tiles(), kLanes);
  const int64_t patch_plane = step * in_panels + kGap, product_plane = step * out_panels + kGap;
  Buffer patches(kPoints * patch_plane), products(kPoints * product_plane);
  const auto runs_of_slice = [&](int64_t slice) {
    return runs_of(in, slice * kLanes, std::min(in.tiles(), (slice + 1) * kLanes));
  };
  threads.run(in_panels * slices, [&](int64_t task) {
    const int64_t panel = task / slices, slice = task % slices;
    Panel scratch[kPatch * kScratchStride];
    transform_tiles<kPatch, 1, transform_input>(input, in, panel, runs_of_slice(slice),
                                                patches.data() + panel * step + slice * kLanes, patch_plane, scratch);
  });
  const int64_t groups = divide_up(out_panels, kPanels);
  // Points and panels divide unevenly among many threads if there are few panels.
  const int64_t wanted = std::clamp<int64_t>(divide_up(4 * threads.count(), kPoints * groups), 1, step / kRows);
  const int64_t share = round_up(divide_up(step, wanted), kRows), parts = divide_up(step, share);
  threads.run(kPoints * groups * parts, [&](int64_t task) {
    const int64_t point = task / (groups * parts), panel = task / parts % groups * kPanels, first = task % parts * share;
    multiply(patches.data() + point * patch_plane + first, step, kernels + point * kernel_plane + panel * depth, depth,
             products.data() + point * product_plane + panel * step + first, step, std::min(share, step - first),
             std::min<int64_t>(kPanels, out_panels - panel), in_panels);
  });
  threads.run(out_panels * slices, [&](int64_t task) {
    const int64_t panel = task / slices, slice = task % slices;
    Panel scratch[kPatch * kScratchStride];
    restore_tiles(products.data() + panel * step + slice * kLanes, product_plane, runs_of_slice(slice), output, out,
                  panel, scratch, finish);
  });
}

// Convolves `input` with transformed kernels. Each tile is computed by itself, so that the ways to divide the work give
// the same bits.
void convolve(const float* input, const Shape& in, const Panel* kernels, float* output, const Shape& out,
              const Finish& finish, const Threads& threads) {
  const int64_t in_panels = divide_up(in.channels, kLanes), out_panels = divide_up(out.channels, kLanes);
  const int64_t depth = in_panels * kLanes, kernel_plane = out_panels * depth + kGap;
  // A block's patches and products should stay in the second-level cache, and a block should be large enough to pay for
  // reading all kernels.
  const int64_t cached = kCache / (kPoints * (in_panels + out_panels) * int64_t{sizeof(Panel)});
  const int64_t share = divide_up(in.tiles(), threads.count());
  const int64_t block = round_up(std::min(std::max<int64_t>(cached, kWorthKernels), share), kRows);
  const bool many_kernels = kPoints * kernel_plane * int64_t{sizeof(Panel)} > kManyKernels && share < kWorthKernels;
  if (threads.count() > 1 && (many_kernels || divide_up(in.tiles(), block) < threads.count())) {
    convolve_in_phases(input, in, kernels, output, out, finish, threads);
    return;
  }
  threads.run(divide_up(in.tiles(), block), [&](int64_t task) {
    const int64_t begin = task * block, end = std::min(in.tiles(), begin + block);
    const std::vector<Run> runs = runs_of(in, begin, end);
    const int64_t patch_plane = block * in_panels + kGap, product_plane = block * out_panels + kGap;
    Buffer buffer(kPoints * (patch_plane + product_plane) + kPatch * kScratchStride);
    Panel* patches = buffer.data();
    Panel* products = patches + kPoints * patch_plane;
    Panel* scratch = products + kPoints * product_plane;
    for (int64_t panel = 0; panel < in_panels; panel++) {
      transform_tiles<kPatch, 1, transform_input>(input, in, panel, runs, patches + panel * block, patch_plane, scratch);
    }
    for (int point = 0; point < kPoints; point++) {
      multiply(patches + point * patch_plane, block, kernels + point * kernel_plane, depth,
               products + point * product_plane, block, round_up(end - begin, kRows), out_panels, in_panels);
    }
    for (int64_t panel = 0; panel < out_panels; panel++) {
      restore_tiles(products + panel * block, product_plane, runs, output, out, panel, scratch, finish);
    }
  });
}

void convolution(const float* input, const Shape& in, const float* weight, const int64_t* weight_shape, bool flipped,
                 float* output, const Finish& finish = {}) {
  const int64_t outputs = weight_shape[flipped ? 1 : 0];
  const Shape out{in.images, outputs, in.height, in.width};
  if (!flipped && in.channels <= kFewChannels) {
    const bool plain = finish.scale.empty();
    convolve_few_channels(input, in.images, in.channels, in.height, in.width, weight, outputs,
                          plain ? nullptr : finish.scale.data(), plain ? nullptr : finish.shift.data(), finish.side, output);
    return;
  }
  const Threads threads;
  Buffer kernels(kPoints * (divide_up(out.channels, kLanes) * round_up(in.channels, kLanes) + kGap));
  transform_kernels(weight, weight_shape[0], weight_shape[1], flipped, kernels.data(), threads);
  convolve(input, in, kernels.data(), output, out, finish, threads);
}

// Adds up the products of input patches and output gradients over the tiles from `begin` to `end`, in the transform
// domain: kPoints planes of in_panels x outputs x 16 inputs.
void sum_products(const float* images, const Shape& in, const float* gradient, const Shape& out, int64_t begin,
                  int64_t end, int64_t chunk, Panel* sums, const Threads& threads) {
  const int64_t in_panels = divide_up(in.channels, kLanes), out_panels = divide_up(out.channels, kLanes);
  const int64_t outputs = out_panels * kLanes, sum_plane = in_panels * outputs + kGap;
  const int64_t patch_plane = chunk * in_panels + kGap, gradient_plane = chunk * out_panels + kGap;
  Buffer patches(kPoints * patch_plane), gradients(kPoints * gradient_plane);
  for (int64_t first = begin; first < end; first += chunk) {
    const int64_t length = std::min(chunk, end - first), slices = divide_up(length, kLanes);
    threads.run((in_panels + out_panels) * slices, [&](int64_t task) {
      const int64_t panel = task / slices, offset = task % slices * kLanes;
      const std::vector<Run> runs = runs_of(in, first + offset, first + std::min(length, offset + kLanes));
      Panel scratch[kPatch * kScratchStride];
      if (panel < in_panels) {
        transform_tiles<kPatch, 1, transform_input>(images, in, panel, runs, patches.data() + panel * chunk + offset,
                                                    patch_plane, scratch);
      } else {
        transform_tiles<kTile, 0, transform_gradient>(gradient, out, panel - in_panels, runs,
                                                      gradients.data() + (panel - in_panels) * chunk + offset,
                                                      gradient_plane, scratch);
      }
    });
    threads.run(kPoints * out_panels, [&](int64_t task) {
      const int64_t point = task / out_panels, panel = task % out_panels;
      multiply_transposed(gradients.data() + point * gradient_plane + panel * chunk,
                          patches.data() + point * patch_plane, chunk, sums + point * sum_plane + panel * kLanes,
                          outputs, in_panels, length, first > begin);
    });
  }
}

void weight_gradient(const float* images, const Shape& in, const float* gradient, const Shape& out, float* result) {
  if (in.channels <= kFewChannels) {
    few_channels_weight_gradient(images, in.images, in.channels, in.height, in.width, gradient, out.channels, result);
    return;
  }
  const int64_t in_panels = divide_up(in.channels, kLanes), out_panels = divide_up(out.channels, kLanes);
  const int64_t outputs = out_panels * kLanes, sum_plane = in_panels * outputs + kGap, tiles = in.tiles();
  const Threads threads;

  // With few channels, each thread adds up its own part of the tiles. With many, all threads work on the same tiles,
  // since sums of their own would be large. The parts depend on the shape alone, so that the result does not depend on
  // the number of threads.
  const int64_t tile_bytes = kPoints * (in_panels + out_panels) * int64_t{sizeof(Panel)};
  const bool small = kPoints * sum_plane * int64_t{sizeof(Panel)} <= kSmallSums;
  const int64_t parts = small ? std::min<int64_t>(16, divide_up(tiles, 64)) : 1;
  const int64_t share = divide_up(tiles, parts);
  const int64_t chunk = std::min(share, std::max<int64_t>((small ? kCache : 16 * kCache) / tile_bytes, 64));
  Buffer sums(parts * kPoints * sum_plane);
  if (small) {
    const Threads one = Threads::one();
    threads.run(parts, [&](int64_t part) {
      sum_products(images, in, gradient, out, part * share, std::min(tiles, (part + 1) * share), chunk,
                   sums.data() + part * kPoints * sum_plane, one);
    });
  } else {
    sum_products(images, in, gradient, out, 0, tiles, chunk, sums.data(), threads);
  }

  threads.run(in_panels * out_panels, [&](int64_t task) {
    const int64_t panel = task / out_panels, first = task % out_panels * kLanes;
    const int64_t lanes = std::min<int64_t>(kLanes, in.channels - panel * kLanes);
    for (int64_t output = first; output < std::min(first + kLanes, out.channels); output++) {
      Panel total[kPoints], taps[9];
      for (int point = 0; point < kPoints; point++) {
        const Panel* sum = sums.data() + point * sum_plane + panel * outputs + output;
        for (int lane = 0; lane < kLanes; lane += kWidth) {
          Vector value = vector_of(sum, lane);
          for (int64_t part = 1; part < parts; part++) value += vector_of(sum + part * kPoints * sum_plane, lane);
          vector_of(total + point, lane) = value;
        }
      }
      transform_both<kPatch, 3, transform_kernel_gradient>(total, {kPatch, 1}, taps, {3, 1});
      const float* values = reinterpret_cast<const float*>(taps);
      float* target = result + (output * in.channels + panel * kLanes) * 9;
      for (int64_t lane = 0; lane < lanes; lane++) {
        for (int tap = 0; tap < 9; tap++) target[lane * 9 + tap] = values[tap * kLanes + lane];
      }
    }
  });
}

// Normalises with the mean and the biased variance of each channel (2 x C), and rectifies.
Finish normalisation(const float* statistics, const float* gamma, const float* beta, int64_t channels, bool pool) {
  Finish finish{pool ? 2 : 1};
  finish.scale.resize(round_up(channels, kLanes));
  finish.shift.resize(round_up(channels, kLanes));
  for (int64_t channel = 0; channel < channels; channel++) {
    const Affine affine(statistics, gamma, beta, channels, channel);
    finish.scale[channel] = affine.scale;
    finish.shift[channel] = affine.shift;
  }
  return finish;
}

int normalised(void** data, int64_t** shapes, bool pool) {
  return answer([&] {
    const Finish finish = normalisation(at(data, 2), at(data, 3), at(data, 4), shapes[1][0], pool);
    convolution(at(data, 0), Shape(shapes[0]), at(data, 1), shapes[1], false, at(data, 5), finish);
  });
}

}  // namespace

extern "C" {

// images (N x I x H x W), weight (O x I x 3 x 3) -> N x O x H x W
int conv3x3(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return answer([&] { convolution(at(data, 0), Shape(shapes[0]), at(data, 1), shapes[1], false, at(data, 2)); });
}

std::vector<int64_t> conv3x3InferShape(int*, int64_t** shapes, void*) {
  return {shapes[0][0], shapes[1][0], shapes[0][2], shapes[0][3]};
}

// images (N x I x H x W), weight (O x I x 3 x 3), statistics (2 x O), gamma, beta -> relu(normalised), N x O x H x W
int conv3x3_norm_relu(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return normalised(data, shapes, false);
}

std::vector<int64_t> conv3x3_norm_reluInferShape(int* sizes, int64_t** shapes, void* attributes) {
  return conv3x3InferShape(sizes, shapes, attributes);
}

// images, weight, statistics, gamma, beta -> relu(normalised), pooled to N x O x H/2 x W/2
int conv3x3_norm_relu_pool(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return normalised(data, shapes, true);
}

std::vector<int64_t> conv3x3_norm_relu_poolInferShape(int*, int64_t** shapes, void*) {
  return {shapes[0][0], shapes[1][0], halved(shapes[0][2]), halved(shapes[0][3])};
}

// output gradient (N x O x H x W), weight (O x I x 3 x 3) -> N x I x H x W
int conv3x3_input_gradient(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return answer([&] { convolution(at(data, 0), Shape(shapes[0]), at(data, 1), shapes[1], true, at(data, 2)); });
}

std::vector<int64_t> conv3x3_input_gradientInferShape(int*, int64_t** shapes, void*) {
  return {shapes[0][0], shapes[1][1], shapes[0][2], shapes[0][3]};
}

// images (N x I x H x W), output gradient (N x O x H x W) -> O x I x 3 x 3
int conv3x3_weight_gradient(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return answer([&] {
    weight_gradient(at(data, 0), Shape(shapes[0]), at(data, 1), Shape(shapes[1]), at(data, 2));
  });
}

std::vector<int64_t> conv3x3_weight_gradientInferShape(int*, int64_t** shapes, void*) {
  return {shapes[1][1], shapes[0][1], 3, 3};
}

}  // extern "C"

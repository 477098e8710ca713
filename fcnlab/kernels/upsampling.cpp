// Transposed convolution of kernel 2s, stride s and padding s/2, for an even s, and its two gradients. It is a 2x2
// convolution of the map to O * s * s channels, which are then laid out as blocks of s x s pixels (Shi et al., "Is the
// deconvolution layer the same as a convolutional layer?", 2016), since the block between four neighbouring pixels
// depends on those four alone. So the operator and both gradients are matrix products over the blocks. A map of H x W
// has (H + 1) x (W + 1) of them, cropped by s/2 at its edges.
//
// Tensors are float32. The matrices are in panels of 16: `neighbours` are blocks x (input channel, 2 x 2 pixels),
// `kernels` are (input channel, 2 x 2) x (output channel, s x s), and `pixels` are blocks x (output channel, s x s).
// How the work is divided depends on the shape alone, so that results are the same to the bit on any number of threads.

#include "buffer.h"
#include "operator.h"
#include "panels.h"
#include "parallel.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int64_t kMostBlocks = 128;             // the most blocks in a tile
constexpr int64_t kMostPanels = 32;              // the most panels of pixels in a group
constexpr int64_t kCache = int64_t{3} << 16;     // bytes of kernels that stay in a core's second-level cache
constexpr int64_t kMostParts = 16;               // the most parts that a weight's gradient is summed up in
constexpr int64_t kPartBlocks = 512;             // the fewest blocks of such a part
constexpr int64_t kPartBytes = int64_t{1} << 24; // the most bytes of all parts together

// The sizes of one call.
struct Sizes {
  int64_t images, inputs, outputs, height, width, stride;

  // Takes the shapes of the input and of the weight (I x O x 2s x 2s).
  Sizes(const int64_t* map, const int64_t* weight)
      : images(map[0]), inputs(map[1]), outputs(weight[1]), height(map[2]), width(map[3]), stride(weight[2] / 2) {}

  int64_t area() const { return stride * stride; }
  int64_t blocks() const { return images * (height + 1) * (width + 1); }
  int64_t depth_panels() const { return divide_up(4 * inputs, kLanes); }
  int64_t depth() const { return depth_panels() * kLanes; }
  int64_t pixel_panels() const { return divide_up(outputs * area(), kLanes); }
  // The number of blocks of a task, enough to use the kernels often and few enough to occupy many threads.
  int64_t tile() const { return std::min(kMostBlocks, round_up(divide_up(std::max<int64_t>(blocks(), 1), 8), kRows)); }
  int64_t tiles() const { return divide_up(blocks(), tile()); }
  int64_t products() const { return blocks() * depth() * pixel_panels() * kLanes; }
  // The number of panels of pixels of a task.
  int64_t group() const {
    return std::clamp<int64_t>(kCache / (depth() * int64_t{sizeof(Panel)}), kPanels, kMostPanels);
  }
  int64_t groups() const { return divide_up(pixel_panels(), group()); }
};

// Consecutive blocks of one row of blocks of one image.
struct Run {
  int64_t image, row, column, length;
  int64_t first;  // the position of its first block within the tile
};

std::vector<Run> runs_of(const Sizes& sizes, int64_t begin, int64_t end) {
  std::vector<Run> runs;
  const int64_t columns = sizes.width + 1, rows = sizes.height + 1;
  for (int64_t block = begin; block < end;) {
    const int64_t column = block % columns, line = block / columns;
    const int64_t length = std::min(columns - column, end - block);
    runs.push_back({line / rows, line % rows, column, length, block - begin});
    block += length;
  }
  return runs;
}

// Copies the four pixels around each block to depth panels x `step` blocks x 16.
void gather_neighbours(const float* map, const Sizes& sizes, const std::vector<Run>& runs, Panel* out, int64_t step) {
  for (const Run& run : runs) {
    for (int64_t channel = 0; channel < sizes.depth() / 4; channel++) {
      float* target = reinterpret_cast<float*>(out + channel / 4 * step + run.first) + channel % 4 * 4;
      const float* plane = map + (run.image * sizes.inputs + channel) * sizes.height * sizes.width;
      for (int64_t below = 0; below < 2; below++, target += 2) {
        const int64_t y = run.row - 1 + below;
        const bool exists = channel < sizes.inputs && y >= 0 && y < sizes.height;
        const float* source = exists ? plane + y * sizes.width : nullptr;
        for (int64_t index = 0; index < run.length; index++) {
          const int64_t x = run.column + index;
          target[index * kLanes] = exists && x > 0 ? source[x - 1] : 0.0f;
          target[index * kLanes + 1] = exists && x < sizes.width ? source[x] : 0.0f;
        }
      }
    }
  }
}

// Calls `body(panel, lane, channel, row, column)` for each `Piece` pixels of a row of a block that lie in one panel.
template <int Piece, typename Body>
inline void for_pieces(const Sizes& sizes, int64_t begin, int64_t end, const Body& body) {
  for (int64_t panel = begin; panel < end; panel++) {
    for (int lane = 0; lane < kLanes; lane += Piece) {
      const int64_t index = panel * kLanes + lane;
      body(panel, lane, index / sizes.area(), index / sizes.stride % sizes.stride, index % sizes.stride);
    }
  }
}

// Copies pixels between the upsampled map and the panels from `begin` to `end`, each of `step` blocks: with `Scatter`
// from the panels to the map, else from the map, with zeros around it, to the panels.
template <int Piece, bool Scatter, typename Float>
void move_pixels(Float* map, const Sizes& sizes, const std::vector<Run>& runs, int64_t begin, int64_t end, Panel* panels,
                 int64_t step) {
  const int64_t height = sizes.height * sizes.stride, width = sizes.width * sizes.stride, half = sizes.stride / 2;
  for (const Run& run : runs) {
    for_pieces<Piece>(sizes, begin, end, [&](int64_t panel, int lane, int64_t channel, int64_t row, int64_t column) {
      float* values = reinterpret_cast<float*>(panels + (panel - begin) * step + run.first) + lane;
      const int64_t y = run.row * sizes.stride - half + row;
      if (channel >= sizes.outputs || y < 0 || y >= height) {
        if constexpr (!Scatter) {
          for (int64_t index = 0; index < run.length; index++) std::memset(values + index * kLanes, 0, Piece * 4);
        }
        return;
      }
      Float* line = map + ((run.image * sizes.outputs + channel) * height + y) * width;
      const auto edge = [&](int64_t index) {
        const int64_t left = (run.column + index) * sizes.stride - half + column;
        for (int64_t pixel = 0; pixel < Piece; pixel++) {
          const bool inside = left + pixel >= 0 && left + pixel < width;
          if constexpr (Scatter) {
            if (inside) line[left + pixel] = values[index * kLanes + pixel];
          } else {
            values[index * kLanes + pixel] = inside ? line[left + pixel] : 0.0f;
          }
        }
      };
      int64_t index = 0, last = run.length;
      if (run.column == 0) edge(index++);
      if (run.column + run.length == sizes.width + 1 && index < last) edge(--last);
      Float* pixels = line + (run.column * sizes.stride - half + column);
      for (; index < last; index++) {
        if constexpr (Scatter) {
          std::memcpy(pixels + index * sizes.stride, values + index * kLanes, Piece * sizeof(float));
        } else {
          std::memcpy(values + index * kLanes, pixels + index * sizes.stride, Piece * sizeof(float));
        }
      }
    });
  }
}

// Calls `body(weights, values)` for each `Piece` weights and their place in the kernels' panels from `begin` to `end`
// (panels of pixels x depth x 16); `weights` is null where the panels are padded.
template <int Piece, typename Float, typename Body>
inline void for_weights(Float* weight, const Sizes& sizes, int64_t begin, int64_t end, Panel* kernels,
                        const Body& body) {
  const int64_t side = 2 * sizes.stride;
  for_pieces<Piece>(sizes, begin, end, [&](int64_t panel, int lane, int64_t channel, int64_t row, int64_t column) {
    for (int64_t depth = 0; depth < sizes.depth(); depth++) {
      // A pixel above or to the left of a block reaches it with the second half of its kernel.
      const int64_t input = depth / 4, y = row + (depth & 2 ? 0 : sizes.stride), x = column + (depth & 1 ? 0 : sizes.stride);
      const bool exists = channel < sizes.outputs && input < sizes.inputs;
      body(exists ? weight + ((input * sizes.outputs + channel) * side + y) * side + x : nullptr,
           reinterpret_cast<float*>(kernels + panel * sizes.depth() + depth) + lane);
    }
  });
}

template <int Piece>
void pack_weights(const float* weight, const Sizes& sizes, int64_t begin, int64_t end, Panel* kernels) {
  for_weights<Piece>(weight, sizes, begin, end, kernels, [](const float* weights, float* values) {
    if (weights == nullptr) {
      std::memset(values, 0, Piece * sizeof(float));
    } else {
      std::memcpy(values, weights, Piece * sizeof(float));
    }
  });
}

template <int Piece>
void unpack_weights(float* weight, const Sizes& sizes, int64_t begin, int64_t end, Panel* kernels) {
  for_weights<Piece>(weight, sizes, begin, end, kernels, [](float* weights, const float* values) {
    if (weights != nullptr) std::memcpy(weights, values, Piece * sizeof(float));
  });
}

// The functions that copy pixels and weights, which are the only ones that are compiled for each size of a piece.
struct Copies {
  void (*scatter)(float*, const Sizes&, const std::vector<Run>&, int64_t, int64_t, Panel*, int64_t);
  void (*gather)(const float*, const Sizes&, const std::vector<Run>&, int64_t, int64_t, Panel*, int64_t);
  void (*pack)(const float*, const Sizes&, int64_t, int64_t, Panel*);
  void (*unpack)(float*, const Sizes&, int64_t, int64_t, Panel*);

  template <int Piece>
  static constexpr Copies of() {
    return {move_pixels<Piece, true, float>, move_pixels<Piece, false, const float>, pack_weights<Piece>,
            unpack_weights<Piece>};
  }

  // Those for the largest power of two, up to 16, that divides the stride.
  static Copies for_stride(int64_t stride) {
    return stride % 16 == 0 ? of<16>() : stride % 8 == 0 ? of<8>() : stride % 4 == 0 ? of<4>() : of<2>();
  }
};

void pack_kernels(const float* weight, const Sizes& sizes, const Copies& copies, Panel* kernels,
                  const Threads& threads) {
  threads.run(sizes.groups(), [&](int64_t group) {
    const int64_t begin = group * sizes.group(), end = std::min(begin + sizes.group(), sizes.pixel_panels());
    copies.pack(weight, sizes, begin, end, kernels);
  });
}

// Upsamples images.
void upsample(const float* map, const float* weight, const Sizes& sizes, float* output) {
  const Copies copies = Copies::for_stride(sizes.stride);
  const Threads threads = Threads::for_products(sizes.products());
  Buffer kernels(sizes.pixel_panels() * sizes.depth());
  pack_kernels(weight, sizes, copies, kernels.data(), threads);
  // Consecutive tasks use the same kernels.
  threads.run(sizes.groups() * sizes.tiles(), [&](int64_t task) {
    const int64_t tile = task % sizes.tiles(), panel = task / sizes.tiles() * sizes.group(), step = sizes.tile();
    const int64_t panels = std::min(sizes.group(), sizes.pixel_panels() - panel);
    const int64_t begin = tile * step, end = std::min(begin + step, sizes.blocks());
    const std::vector<Run> runs = runs_of(sizes, begin, end);
    Buffer buffer((sizes.depth_panels() + panels) * step);
    Panel* neighbours = buffer.data();
    Panel* pixels = neighbours + sizes.depth_panels() * step;
    gather_neighbours(map, sizes, runs, neighbours, step);
    multiply(neighbours, step, kernels.data() + panel * sizes.depth(), sizes.depth(), pixels, step,
             round_up(end - begin, kRows), panels, sizes.depth_panels());
    copies.scatter(output, sizes, runs, panel, panel + panels, pixels, step);
  });
}

// Adds up the gradients of each pixel of the map from the four blocks around it: depth panels x blocks x 16 -> images.
void sum_neighbours(const Panel* sums, const Sizes& sizes, float* result, const Threads& threads) {
  const int64_t columns = sizes.width + 1, channels_at_once = kLanes / 4;
  threads.run(sizes.images * sizes.depth_panels(), [&](int64_t task) {
    const int64_t image = task / sizes.depth_panels(), panel = task % sizes.depth_panels();
    const int64_t first = panel * channels_at_once, channels = std::min(channels_at_once, sizes.inputs - first);
    float* target = result + (image * sizes.inputs + first) * sizes.height * sizes.width;
    for (int64_t y = 0; y < sizes.height; y++) {
      const Panel* above = sums + panel * sizes.blocks() + (image * (sizes.height + 1) + y) * columns;
      const float* upper = reinterpret_cast<const float*>(above);
      const float* lower = reinterpret_cast<const float*>(above + columns);
      for (int64_t x = 0; x < sizes.width; x++, upper += kLanes, lower += kLanes, target++) {
        for (int64_t channel = 0; channel < channels; channel++) {
          const int64_t lane = channel * 4;
          target[channel * sizes.height * sizes.width] =
              (lower[kLanes + lane] + lower[lane + 1]) + (upper[kLanes + lane + 2] + upper[lane + 3]);
        }
      }
    }
  });
}

void input_gradient(const float* gradient, const float* weight, const Sizes& sizes, float* result) {
  const Copies copies = Copies::for_stride(sizes.stride);
  const Threads threads = Threads::for_products(sizes.products());
  const int64_t depth = sizes.depth(), depth_panels = sizes.depth_panels(), turned_step = sizes.pixel_panels() * kLanes;
  // The kernels with rows and columns exchanged: depth panels x pixels x 16.
  Buffer kernels(sizes.pixel_panels() * depth), turned(depth_panels * turned_step);
  pack_kernels(weight, sizes, copies, kernels.data(), threads);
  threads.run(sizes.pixel_panels(), [&](int64_t panel) {
    for (int64_t part = 0; part < depth_panels; part++) {
      const Panel* from = kernels.data() + panel * depth + part * kLanes;
      Panel* to = turned.data() + part * turned_step + panel * kLanes;
      transpose([&](int row, int column) { return vector_of(from + row, column); },
                [&](int column, int row, const Vector& values) { vector_of(to + column, row) = values; });
    }
  });
  Buffer sums(depth_panels * sizes.blocks() + 1);
  threads.run(sizes.tiles(), [&](int64_t tile) {
    const int64_t step = sizes.tile(), begin = tile * step, end = std::min(begin + step, sizes.blocks());
    const std::vector<Run> runs = runs_of(sizes, begin, end);
    Buffer buffer((sizes.group() + depth_panels) * step);
    Panel* pixels = buffer.data();
    Panel* products = pixels + sizes.group() * step;
    for (int64_t panel = 0; panel < sizes.pixel_panels(); panel += sizes.group()) {
      const int64_t panels = std::min(sizes.group(), sizes.pixel_panels() - panel);
      copies.gather(gradient, sizes, runs, panel, panel + panels, pixels, step);
      multiply(pixels, step, turned.data() + panel * kLanes, turned_step, products, step, round_up(end - begin, kRows),
               depth_panels, panels);
      for (int64_t part = 0; part < depth_panels; part++) {
        Panel* sum = sums.data() + part * sizes.blocks() + begin;
        for (int64_t block = 0; block < end - begin; block++) {
          sum[block] = panel > 0 ? sum[block] + products[part * step + block] : products[part * step + block];
        }
      }
    }
  });
  sum_neighbours(sums.data(), sizes, result, threads);
}

void weight_gradient(const float* map, const float* gradient, const Sizes& sizes, float* result) {
  const Copies copies = Copies::for_stride(sizes.stride);
  const Threads threads = Threads::for_products(sizes.products());
  const int64_t depth = sizes.depth(), plane = sizes.pixel_panels() * depth;
  // Each part of the blocks has sums of its own; the number of parts depends on the shape alone.
  const int64_t affordable = std::max<int64_t>(1, kPartBytes / (plane * int64_t{sizeof(Panel)}));
  const int64_t parts = std::clamp<int64_t>(sizes.blocks() / kPartBlocks, 1, std::min(kMostParts, affordable));
  const int64_t share = divide_up(sizes.tiles(), parts);
  Buffer sums(parts * plane);
  threads.run(parts * sizes.groups(), [&](int64_t task) {
    const int64_t part = task / sizes.groups(), panel = task % sizes.groups() * sizes.group(), step = sizes.tile();
    const int64_t panels = std::min(sizes.group(), sizes.pixel_panels() - panel);
    Panel* sum = sums.data() + part * plane + panel * depth;
    std::memset(static_cast<void*>(sum), 0, panels * depth * sizeof(Panel));
    Buffer buffer((sizes.depth_panels() + panels) * step);
    Panel* neighbours = buffer.data();
    Panel* pixels = neighbours + sizes.depth_panels() * step;
    for (int64_t tile = part * share; tile < std::min((part + 1) * share, sizes.tiles()); tile++) {
      const int64_t begin = tile * step, end = std::min(begin + step, sizes.blocks());
      const std::vector<Run> runs = runs_of(sizes, begin, end);
      gather_neighbours(map, sizes, runs, neighbours, step);
      copies.gather(gradient, sizes, runs, panel, panel + panels, pixels, step);
      for (int64_t row = 0; row < sizes.depth_panels(); row++) {
        multiply_transposed(neighbours + row * step, pixels, step, sum + row * kLanes, depth, panels, end - begin, true);
      }
    }
  });
  threads.run(sizes.groups(), [&](int64_t group) {
    const int64_t begin = group * sizes.group(), end = std::min(begin + sizes.group(), sizes.pixel_panels());
    for (int64_t part = 1; part < parts; part++) {
      for (int64_t index = begin * depth; index < end * depth; index++) {
        sums.data()[index] += sums.data()[part * plane + index];
      }
    }
    copies.unpack(result, sizes, begin, end, sums.data());
  });
}

}  // namespace

extern "C" {

// images (N x I x H x W), weight (I x O x 2s x 2s) -> N x O x sH x sW
int upsampling(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return answer([&] {
    const Sizes sizes(shapes[0], shapes[1]);
    upsample(at(data, 0), at(data, 1), sizes, at(data, 2));
  });
}

std::vector<int64_t> upsamplingInferShape(int*, int64_t** shapes, void*) {
  const int64_t stride = shapes[1][2] / 2;
  const auto larger = [&](int64_t size) { return size < 0 ? size : size * stride; };  // -1 is unknown
  return {shapes[0][0], shapes[1][1], larger(shapes[0][2]), larger(shapes[0][3])};
}

// output gradient (N x O x sH x sW), weight (I x O x 2s x 2s) -> N x I x H x W
int upsampling_input_gradient(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return answer([&] {
    const Sizes sizes(shapes[2], shapes[1]);
    input_gradient(at(data, 0), at(data, 1), sizes, at(data, 2));
  });
}

std::vector<int64_t> upsampling_input_gradientInferShape(int*, int64_t** shapes, void*) {
  const int64_t stride = shapes[1][2] / 2;
  const auto smaller = [&](int64_t size) { return size < 0 ? size : size / stride; };
  return {shapes[0][0], shapes[1][0], smaller(shapes[0][2]), smaller(shapes[0][3])};
}

// images (N x I x H x W), output gradient (N x O x sH x sW), weight (I x O x 2s x 2s; its shape alone) -> like the
// weight
int upsampling_weight_gradient(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return answer([&] {
    const Sizes sizes(shapes[0], shapes[2]);
    weight_gradient(at(data, 0), at(data, 1), sizes, at(data, 3));
  });
}

std::vector<int64_t> upsampling_weight_gradientInferShape(int*, int64_t** shapes, void*) {
  return std::vector<int64_t>(shapes[2], shapes[2] + 4);
}

}  // extern "C"

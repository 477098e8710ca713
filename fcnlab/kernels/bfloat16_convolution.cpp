// A convolution whose factors are rounded to bfloat16 and whose sums are float32, and its two gradients, by the matrix
// instructions of AMX: any odd kernel, stride 1, output as large as the input. An instruction multiplies tiles: 16 rows
// of 32 factors, and 16 pairs of factors of 16 columns. It is by the definition, one product for every tap of the
// kernel: Winograd's algorithm would lose the few digits of bfloat16, and saves less than these instructions gain.
//
// Tensors are float32, N x C x H x W, like MindSpore's. Each value is summed up by one task in a fixed order, so that
// results are the same to the bit on any number of threads.

#include "amx.h"

#if defined(COMPILED_FOR_AMX)

#include "buffer.h"
#include "operator.h"
#include "panels.h"
#include "parallel.h"
#include "weight.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

#include <immintrin.h>

namespace {

constexpr int64_t kSide = 16;               // rows and columns of a tile of sums
constexpr int64_t kBlock = 2 * kSide;       // rows and columns of sums that are in registers at a time
constexpr int64_t kDepth = 32;              // factors of a row of a tile
constexpr int64_t kTile = kSide * kDepth;   // factors of a tile
constexpr int64_t kChunk = 1024;            // positions of a weight's gradient that stay in a core's cache
constexpr int64_t kMostParts = 16;          // sums of a weight's gradient that are added up in the end

// Sums of a block, two by two tiles.
struct alignas(64) Sums {
  float rows[kBlock][kBlock];
};
constexpr int64_t kSumsRow = kBlock * sizeof(float);  // bytes

struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileShapes) == 64, "the processor reads 64 bytes");
const TileShapes kFullTiles;

// The tile registers of this thread. They are released, since a thread that holds some takes longer to switch.
class Tiles {
 public:
  Tiles() { _tile_loadconfig(&kFullTiles); }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

// Two tiles of factors in memory: the bytes between their rows, and those between the tiles.
struct Layout {
  int64_t row_bytes, tile_bytes;
};

// Adds the products of `steps` blocks of left factors (32 rows of 32) and right ones (16 pairs of 32 columns) to sums.
// `left` and `right` return where the factors of a step begin.
template <typename Left, typename Right>
inline void add_products(int64_t steps, const Left& left, Layout left_layout, const Right& right, Layout right_layout,
                         Sums& sums) {
  __asm__ volatile("" ::: "memory");  // GCC does not know that loading a tile reads memory
  _tile_loadd(0, sums.rows[0], kSumsRow);
  _tile_loadd(1, sums.rows[0] + kSide, kSumsRow);
  _tile_loadd(2, sums.rows[kSide], kSumsRow);
  _tile_loadd(3, sums.rows[kSide] + kSide, kSumsRow);
  for (int64_t step = 0; step < steps; step++) {
    const char* const a = reinterpret_cast<const char*>(left(step));
    const char* const b = reinterpret_cast<const char*>(right(step));
    _tile_loadd(4, a, left_layout.row_bytes);
    _tile_loadd(6, b, right_layout.row_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + right_layout.tile_bytes, right_layout.row_bytes);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + left_layout.tile_bytes, left_layout.row_bytes);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums.rows[0], kSumsRow);
  _tile_stored(1, sums.rows[0] + kSide, kSumsRow);
  _tile_stored(2, sums.rows[kSide], kSumsRow);
  _tile_stored(3, sums.rows[kSide] + kSide, kSumsRow);
  __asm__ volatile("" ::: "memory");
}

// Returns the bits of the nearest bfloat16, of two the even one, in the lower half. NaN stays NaN.
inline uint32_t rounded(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint32_t nearest = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const uint32_t not_a_number = bits >> 16 | 0x40;
  return (bits & 0x7fffffff) > 0x7f800000 ? not_a_number : nearest;
}

inline uint32_t rounded_pair(float first, float second) { return rounded(first) | rounded(second) << 16; }

// Images as one sequence of positions. Zeros follow each row, each image and the last one, as many as a kernel reaches,
// so that a tap is a distance between positions. A row has an even number of positions, which are taken in pairs.
struct Map {
  int64_t images, channels, height, width, reach, row, image, count, before;

  Map(const int64_t* sizes, int64_t kernel_size)
      : images(sizes[0]), channels(sizes[1]), height(sizes[2]), width(sizes[3]), reach(kernel_size / 2),
        row(round_up(width + reach, 2)), image((height + reach) * row), count(round_up(images * image, kDepth)),
        before(round_up(reach * row + reach, 2)) {}

  int64_t area() const { return height * width; }
  int64_t with_surroundings() const { return before + count + before + kBlock; }

  // Returns the distance of a tap, which may be negative.
  int64_t distance(int64_t tap) const {
    const int64_t size = 2 * reach + 1;
    return (tap / size - reach) * row + tap % size - reach;
  }
};

// Returns at least `count` elements of a number of bytes, so that rows of this length begin in different sets of the
// cache.
int64_t apart(int64_t count, int64_t bytes) { return (divide_up(count * bytes, 64) | 1) * 64 / bytes; }

template <typename Element>
Buffer room_for(int64_t elements) {
  return Buffer(divide_up(elements * int64_t{sizeof(Element)}, sizeof(Panel)) + 1);
}

// Fills a row of all positions: `fill(out, source)` writes a row of an image, whose first pixel has that place in a
// channel, and what is around it becomes 0.
template <typename Element, typename Fill>
void fill_positions(const Map& map, Element* out, const Fill& fill) {
  Element* position = out;
  const auto zeros = [&position](int64_t count) {
    std::fill_n(position, count, Element{});
    position += count;
  };
  zeros(map.before);
  for (int64_t image = 0; image < map.images; image++) {
    for (int64_t y = 0; y < map.height; y++) {
      fill(position, image * map.channels * map.area() + y * map.width);
      position += map.width;
      zeros(map.row - map.width);
    }
    zeros(map.reach * map.row);
  }
  zeros(out + map.with_surroundings() - position);
}

// Rounds images to rows of positions, one for each channel and `step` apart, and rows of 0 up to a whole block.
void round_channels(const float* images, const Map& map, uint16_t* out, int64_t step, const Threads& threads) {
  threads.run(round_up(map.channels, kBlock), [&](int64_t channel) {
    const float* const source = images + channel * map.area();
    uint16_t* const row = out + channel * step;
    if (channel >= map.channels) {
      std::fill_n(row, map.with_surroundings(), uint16_t{0});
      return;
    }
    fill_positions(map, row, [&](uint16_t* position, int64_t first) {
      for (int64_t x = 0; x < map.width; x++) position[x] = static_cast<uint16_t>(rounded(source[first + x]));
    });
  });
}

// Rounds images to rows of positions, one for each two channels and `step` apart, and rows of 0 up to a whole tile.
void round_pairs_of_channels(const float* images, const Map& map, uint32_t* out, int64_t step, const Threads& threads) {
  threads.run(round_up(map.channels, kDepth) / 2, [&](int64_t pair) {
    const float* const first_channel = images + 2 * pair * map.area();
    const float* const second_channel = first_channel + map.area();
    uint32_t* const row = out + pair * step;
    if (2 * pair + 1 < map.channels) {
      fill_positions(map, row, [&](uint32_t* position, int64_t first) {
        for (int64_t x = 0; x < map.width; x++) {
          position[x] = rounded_pair(first_channel[first + x], second_channel[first + x]);
        }
      });
    } else if (2 * pair < map.channels) {
      fill_positions(map, row, [&](uint32_t* position, int64_t first) {
        for (int64_t x = 0; x < map.width; x++) position[x] = rounded(first_channel[first + x]);
      });
    } else {
      std::fill_n(row, map.with_surroundings(), uint32_t{0});
    }
  });
}

// Rounds images to pairs of positions of 32 channels each: blocks of channels x pairs x 32, with zeros around rows.
void round_pairs_of_positions(const float* images, const Map& map, uint32_t* out, const Threads& threads) {
  const int64_t pairs = map.count / 2, rows = map.images * map.height;
  threads.run(divide_up(map.channels, kBlock) * 2 * rows, [&](int64_t task) {
    const int64_t half = task / rows, image = task % rows / map.height, y = task % map.height;
    const int64_t channel = half * kLanes, lanes = std::clamp<int64_t>(map.channels - channel, 0, kLanes);
    Buffer buffer(map.row);
    Panel* const panels = buffer.data();
    if (lanes > 0) {
      gather_row(images + (image * map.channels + channel) * map.area() + y * map.width, map.area(), lanes, 0, map.row,
                 map.width, panels);
    } else {
      std::fill_n(panels, map.row, Panel{});
    }
    uint32_t* target = out + (half / 2 * pairs + (image * map.image + y * map.row) / 2) * kBlock + half % 2 * kSide;
    for (int64_t x = 0; x < map.row; x += 2, target += kBlock) {
      const float* const first = reinterpret_cast<const float*>(panels + x);
      const float* const second = reinterpret_cast<const float*>(panels + x + 1);
      for (int lane = 0; lane < kLanes; lane++) target[lane] = rounded_pair(first[lane], second[lane]);
    }
  });
  // The rows between the images, and what follows the last one.
  threads.run(divide_up(map.channels, kBlock), [&](int64_t block) {
    uint32_t* const begin = out + block * pairs * kBlock;
    for (int64_t image = 0; image < map.images; image++) {
      std::fill_n(begin + (image * map.image + map.height * map.row) / 2 * kBlock, map.reach * map.row / 2 * kBlock, 0u);
    }
    std::fill(begin + map.images * map.image / 2 * kBlock, begin + pairs * kBlock, 0u);
  });
}

struct Kernels : Weight {
  int64_t depths() const { return divide_up(inputs(), kDepth); }
  int64_t steps() const { return taps * depths(); }

  // Rounds them to blocks of 32 outputs x taps x depths x 32 outputs x 32 inputs.
  void round(uint16_t* out, const Threads& threads) const {
    const int64_t blocks = divide_up(outputs(), kBlock);
    threads.run(blocks * depths(), [&](int64_t task) {
      const int64_t block = task / depths(), depth = task % depths();
      const int64_t first_row = (flipped ? depth : block) * kBlock, first_column = (flipped ? block : depth) * kBlock;
      const int64_t rows = std::min(kBlock, out_channels - first_row);
      const int64_t columns = std::min(kBlock, in_channels - first_column);
      Buffer buffer = room_for<uint16_t>(kBlock * kBlock * taps);
      uint16_t* const values = reinterpret_cast<uint16_t*>(buffer.data());  // 32 x 32 x taps, as in the weight
      std::fill_n(values, kBlock * kBlock * taps, uint16_t{0});
      for (int64_t row = 0; row < rows; row++) {
        const float* const source = weight + ((first_row + row) * in_channels + first_column) * taps;
        uint16_t* const target = values + row * kBlock * taps;
        for (int64_t index = 0; index < columns * taps; index++) target[index] = static_cast<uint16_t>(rounded(source[index]));
      }
      const int64_t output_step = (flipped ? 1 : kBlock) * taps, input_step = (flipped ? kBlock : 1) * taps;
      for (int64_t tap = 0; tap < taps; tap++) {
        uint16_t* target = out + (block * steps() + tap * depths() + depth) * 2 * kTile;
        const uint16_t* const source = values + (flipped ? taps - 1 - tap : tap);
        for (int64_t output = 0; output < kBlock; output++) {
          for (int64_t input = 0; input < kDepth; input++) *target++ = source[output * output_step + input * input_step];
        }
      }
    });
  }
};

// Pixels of a block of positions that lie side by side in an image.
struct Run {
  int64_t column, place, length;  // the first column of the block, and the first pixel's place in the tensor
};

std::vector<Run> runs_of(const Map& map, int64_t begin, int64_t channels) {
  std::vector<Run> runs;
  for (int64_t position = begin; position < begin + kBlock && position < map.images * map.image;) {
    const int64_t image = position / map.image, y = position % map.image / map.row, x = position % map.row;
    const int64_t length = std::min(map.row - x, begin + kBlock - position);
    if (y < map.height && x < map.width) {
      runs.push_back({position - begin, image * channels * map.area() + y * map.width + x, std::min(length, map.width - x)});
    }
    position += length;
  }
  return runs;
}

// Convolves `input`, whose sizes are those of the kernels' inputs; `bias` may be null.
void convolve(const float* input, const int64_t* sizes, const Kernels& kernels, int64_t kernel_size, const float* bias,
              float* output) {
  const Map map(sizes, kernel_size);
  const Threads threads = Threads::for_products(map.images * map.area() * kernels.taps * kernels.inputs() * kernels.outputs());
  const int64_t blocks = divide_up(kernels.outputs(), kBlock), steps = kernels.steps(), channels = kernels.outputs();
  Buffer left_buffer = room_for<uint16_t>(blocks * steps * 2 * kTile);
  uint16_t* const left = reinterpret_cast<uint16_t*>(left_buffer.data());
  kernels.round(left, threads);
  const int64_t pair_step = apart(map.with_surroundings(), sizeof(uint32_t));
  Buffer right_buffer = room_for<uint32_t>(kernels.depths() * kDepth / 2 * pair_step);
  uint32_t* const right = reinterpret_cast<uint32_t*>(right_buffer.data());
  round_pairs_of_channels(input, map, right, pair_step, threads);
  std::vector<int64_t> starts;  // of the inputs that each step multiplies, from a position on
  for (int64_t tap = 0; tap < kernels.taps; tap++) {
    for (int64_t depth = 0; depth < kernels.depths(); depth++) {
      starts.push_back(depth * kDepth / 2 * pair_step + map.before + map.distance(tap));
    }
  }
  const Layout left_layout{kDepth * 2, kTile * 2};
  const Layout right_layout{pair_step * int64_t{sizeof(uint32_t)}, kSide * int64_t{sizeof(uint32_t)}};
  // A task reads the kernels of its block for each of its positions.
  const int64_t strips = map.count / kBlock, wanted = divide_up(4 * threads.count(), std::max<int64_t>(blocks, 1));
  const int64_t share = divide_up(strips, std::clamp<int64_t>(wanted, 1, std::max<int64_t>(strips, 1)));
  const int64_t parts = strips > 0 ? divide_up(strips, share) : 0;
  threads.run(blocks * parts, [&](int64_t task) {
    const int64_t block = task / parts, first = task % parts * share, lanes = std::min(kBlock, channels - block * kBlock);
    const uint16_t* const block_kernels = left + block * steps * 2 * kTile;
    const Tiles tiles;
    for (int64_t strip = first; strip < std::min(first + share, strips); strip++) {
      const uint32_t* const inputs = right + strip * kBlock;
      Sums sums = {};
      for (int64_t lane = 0; bias != nullptr && lane < lanes; lane++) {
        std::fill_n(sums.rows[lane], kBlock, bias[block * kBlock + lane]);
      }
      add_products(
          steps, [&](int64_t step) { return block_kernels + step * 2 * kTile; }, left_layout,
          [&](int64_t step) { return inputs + starts[step]; }, right_layout, sums);
      for (const Run& run : runs_of(map, strip * kBlock, channels)) {
        for (int64_t lane = 0; lane < lanes; lane++) {
          std::copy_n(sums.rows[lane] + run.column, run.length, output + run.place + (block * kBlock + lane) * map.area());
        }
      }
    }
  });
}

// Adds up `parts` sums of a block for each tap, `step` apart, and copies them to the gradient.
void store_gradient(Sums* sums, int64_t parts, int64_t step, int64_t taps, int64_t in_block, int64_t out_block,
                    int64_t inputs, int64_t outputs, float* result) {
  for (int64_t output = out_block * kBlock; output < std::min((out_block + 1) * kBlock, outputs); output++) {
    float* const target = result + (output * inputs + in_block * kBlock) * taps;
    for (int64_t tap = 0; tap < taps; tap++) {
      for (int64_t input = 0; input < std::min(kBlock, inputs - in_block * kBlock); input++) {
        float total = 0;
        for (int64_t part = 0; part < parts; part++) total += sums[part * step + tap].rows[input][output % kBlock];
        target[input * taps + tap] = total;
      }
    }
  }
}

void weight_gradient(const float* images, const int64_t* in_sizes, const float* gradient, const int64_t* out_sizes,
                     int64_t kernel_size, float* result) {
  const Map in(in_sizes, kernel_size), out(out_sizes, kernel_size);
  const int64_t taps = kernel_size * kernel_size;
  const Threads threads = Threads::for_products(in.images * in.area() * taps * in.channels * out.channels);
  const int64_t channel_step = apart(in.with_surroundings(), sizeof(uint16_t));
  Buffer left_buffer = room_for<uint16_t>(round_up(in.channels, kBlock) * channel_step);
  uint16_t* const left = reinterpret_cast<uint16_t*>(left_buffer.data());
  round_channels(images, in, left, channel_step, threads);
  const int64_t in_blocks = divide_up(in.channels, kBlock), out_blocks = divide_up(out.channels, kBlock);
  Buffer right_buffer = room_for<uint32_t>(out_blocks * out.count / 2 * kBlock);
  uint32_t* const right = reinterpret_cast<uint32_t*>(right_buffer.data());
  round_pairs_of_positions(gradient, out, right, threads);
  const Layout left_layout{channel_step * int64_t{sizeof(uint16_t)}, kSide * channel_step * int64_t{sizeof(uint16_t)}};
  const Layout right_layout{kBlock * int64_t{sizeof(uint32_t)}, kSide * int64_t{sizeof(uint32_t)}};

  // Few blocks are divided into parts of the positions, whose number depends on the shape alone, so that the result
  // does not depend on the number of threads.
  const int64_t blocks = in_blocks * out_blocks, chunks = divide_up(in.count, kChunk);
  const int64_t parts = std::clamp<int64_t>(std::min(divide_up(kMostParts, std::max<int64_t>(blocks, 1)), chunks), 1, kMostParts);
  const int64_t share = divide_up(chunks, parts) * kChunk;
  const auto add_part = [&](int64_t block, int64_t part, Sums* sums) {
    const uint16_t* const inputs = left + block / out_blocks * kBlock * channel_step + in.before;
    const uint32_t* const gradients = right + block % out_blocks * (out.count / 2) * kBlock;
    const int64_t end = std::min((part + 1) * share, in.count);
    std::fill_n(sums, taps, Sums{});
    const Tiles tiles;
    for (int64_t first = part * share; first < end; first += kChunk) {
      const int64_t steps = (std::min(first + kChunk, end) - first) / kDepth;
      for (int64_t tap = 0; tap < taps; tap++) {
        const uint16_t* const moved = inputs + first + in.distance(tap);
        add_products(
            steps, [&](int64_t step) { return moved + step * kDepth; }, left_layout,
            [&](int64_t step) { return gradients + (first + step * kDepth) / 2 * kBlock; }, right_layout, sums[tap]);
      }
    }
  };
  const auto store = [&](int64_t block, Sums* sums, int64_t step) {
    store_gradient(sums, parts, step, taps, block / out_blocks, block % out_blocks, in.channels, out.channels, result);
  };
  if (parts == 1) {
    threads.run(blocks, [&](int64_t block) {
      Buffer buffer = room_for<Sums>(taps);
      Sums* const sums = reinterpret_cast<Sums*>(buffer.data());
      add_part(block, 0, sums);
      store(block, sums, 0);
    });
    return;
  }
  Buffer buffer = room_for<Sums>(parts * blocks * taps);
  Sums* const sums = reinterpret_cast<Sums*>(buffer.data());
  threads.run(parts * blocks, [&](int64_t task) { add_part(task % blocks, task / blocks, sums + task * taps); });
  threads.run(blocks, [&](int64_t block) { store(block, sums + block * taps, blocks * taps); });
}

// Small integers, whose products are exact in either precision.
std::vector<float> integers(int64_t count, int64_t factor) {
  std::vector<float> values(count);
  for (int64_t index = 0; index < count; index++) values[index] = static_cast<float>(index * factor % 7 - 3);
  return values;
}

// Compares the three operators with their definition on a small example, to the bit.
bool are_right(int64_t size, int64_t inputs, int64_t outputs, int64_t height, int64_t width) {
  const int64_t in[] = {1, inputs, height, width}, out[] = {1, outputs, height, width}, taps = size * size;
  const int64_t area = height * width;
  const std::vector<float> images = integers(inputs * area, 3), gradient = integers(outputs * area, 5);
  const std::vector<float> weight = integers(outputs * inputs * taps, 2);
  std::vector<float> forward(gradient.size()), of_images(images.size()), of_weight(weight.size());
  std::vector<float> expected_forward(forward), expected_of_images(of_images), expected_of_weight(of_weight);
  convolve(images.data(), in, {weight.data(), outputs, inputs, taps, false}, size, nullptr, forward.data());
  convolve(gradient.data(), out, {weight.data(), outputs, inputs, taps, true}, size, nullptr, of_images.data());
  weight_gradient(images.data(), in, gradient.data(), out, size, of_weight.data());
  for (int64_t index = 0; index < outputs * inputs * taps; index++) {
    const int64_t output = index / taps / inputs * area, input = index / taps % inputs * area;
    const int64_t down = index % taps / size - size / 2, right = index % size - size / 2;
    for (int64_t y = std::max<int64_t>(0, -down); y < std::min(height, height - down); y++) {
      for (int64_t x = std::max<int64_t>(0, -right); x < std::min(width, width - right); x++) {
        const int64_t of_output = output + y * width + x, of_input = input + (y + down) * width + x + right;
        expected_forward[of_output] += images[of_input] * weight[index];
        expected_of_images[of_input] += gradient[of_output] * weight[index];
        expected_of_weight[index] += images[of_input] * gradient[of_output];
      }
    }
  }
  return forward == expected_forward && of_images == expected_of_images && of_weight == expected_of_weight;
}

// Runs an operator, if this process may use the tiles.
template <typename Body>
int answer_with_tiles(const Body& body) {
  return answer([&] {
    if (!may_use_amx()) throw std::runtime_error("Linux refuses the registers of AMX");
    body();
  });
}

int forward(void** data, int64_t** shapes, const float* bias, float* output) {
  return answer_with_tiles([&] {
    const int64_t* const weight = shapes[1];
    const Kernels kernels{at(data, 1), weight[0], weight[1], weight[2] * weight[2], false};
    convolve(at(data, 0), shapes[0], kernels, weight[2], bias, output);
  });
}

}  // namespace

#endif

extern "C" {

// Returns whether the operators of this file may be used: 0 if not, 1 if so, 2 if they compute something else here than
// their definition says, and 3 if there is too little memory to find out.
int has_bfloat16_products() {
#if defined(COMPILED_FOR_AMX)
  if (!may_use_amx()) return 0;
  bool right = false;
  // Several chunks of positions, channels of several tiles, and kernels of one, nine and 49 taps.
  const int failed = answer([&] { right = are_right(3, 35, 37, 3, 14) && are_right(1, 2, 3, 33, 40) && are_right(7, 1, 2, 4, 5); });
  return failed ? 3 : right ? 1 : 2;
#else
  return 0;
#endif
}

#if defined(COMPILED_FOR_AMX)

// images (N x I x H x W), weight (O x I x K x K) -> N x O x H x W
int bfloat16_convolution(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return forward(data, shapes, nullptr, at(data, 2));
}

std::vector<int64_t> bfloat16_convolutionInferShape(int*, int64_t** shapes, void*) {
  return {shapes[0][0], shapes[1][0], shapes[0][2], shapes[0][3]};
}

// images (N x I x H x W), weight (O x I x K x K), bias (O) -> N x O x H x W
int bfloat16_convolution_with_bias(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return forward(data, shapes, at(data, 2), at(data, 3));
}

std::vector<int64_t> bfloat16_convolution_with_biasInferShape(int* sizes, int64_t** shapes, void* attributes) {
  return bfloat16_convolutionInferShape(sizes, shapes, attributes);
}

// output gradient (N x O x H x W), weight (O x I x K x K) -> N x I x H x W
int bfloat16_convolution_input_gradient(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return answer_with_tiles([&] {
    const int64_t* const weight = shapes[1];
    const Kernels kernels{at(data, 1), weight[0], weight[1], weight[2] * weight[2], true};
    convolve(at(data, 0), shapes[0], kernels, weight[2], nullptr, at(data, 2));
  });
}

std::vector<int64_t> bfloat16_convolution_input_gradientInferShape(int*, int64_t** shapes, void*) {
  return {shapes[0][0], shapes[1][1], shapes[0][2], shapes[0][3]};
}

// images (N x I x H x W), output gradient (N x O x H x W), weight for its shape (O x I x K x K) -> O x I x K x K
int bfloat16_convolution_weight_gradient(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return answer_with_tiles([&] {
    weight_gradient(at(data, 0), shapes[0], at(data, 1), shapes[1], shapes[2][2], at(data, 3));
  });
}

std::vector<int64_t> bfloat16_convolution_weight_gradientInferShape(int*, int64_t** shapes, void*) {
  return {shapes[2][0], shapes[2][1], shapes[2][2], shapes[2][3]};
}

#endif

}  // extern "C"

// Matrices in panels of 16 channels, and the matrix product that all kernels share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <vector>

#include <sys/mman.h>

constexpr int kLanes = 16;

typedef float Panel __attribute__((vector_size(kLanes * sizeof(float)), aligned(64), may_alias));

#if defined(__AVX512F__)
constexpr int kWidth = 16;  // floats in a vector register
constexpr int kRows = 8;    // rows of a product that are in registers at a time
constexpr int kPanels = 2;  // panels of a product that are in registers at a time
#else
constexpr int kWidth = 8;
constexpr int kRows = 4;
constexpr int kPanels = 1;
#endif
typedef float Vector __attribute__((vector_size(kWidth * sizeof(float)), aligned(kWidth * sizeof(float)), may_alias));
// These two may lie anywhere in a tensor of MindSpore's.
typedef float LooseVector __attribute__((vector_size(kWidth * sizeof(float)), aligned(4), may_alias));
typedef float Loose __attribute__((vector_size(kLanes * sizeof(float)), aligned(4), may_alias));

inline int64_t divide_up(int64_t value, int64_t by) { return (value + by - 1) / by; }
inline int64_t round_up(int64_t value, int64_t to) { return divide_up(value, to) * to; }

// Uninitialised panels. Their memory is kept for the next operator, as fresh pages would cost as much as the
// arithmetic.
class Buffer {
 public:
  explicit Buffer(int64_t panels) : block_(take(round_up(panels * int64_t{sizeof(Panel)}, kPage))) {}
  ~Buffer() { give_back(block_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  Panel* data() { return static_cast<Panel*>(block_.memory); }

 private:
  struct Block {
    void* memory;
    int64_t size;  // bytes
  };
  struct Kept {
    std::mutex mutex;
    std::vector<Block> blocks;
  };
  static constexpr int64_t kPage = int64_t{1} << 21;
  static constexpr size_t kMaximumKept = 64;

  static Kept& kept() {
    static Kept* instance = new Kept;  // outlives every thread
    return *instance;
  }

  static Block take(int64_t size) {
    {
      const std::lock_guard<std::mutex> lock(kept().mutex);
      auto& blocks = kept().blocks;
      auto best = blocks.end();
      for (auto block = blocks.begin(); block != blocks.end(); ++block) {
        const bool fits = block->size >= size && block->size <= 2 * size;
        if (fits && (best == blocks.end() || block->size < best->size)) best = block;
      }
      if (best != blocks.end()) {
        const Block block = *best;
        blocks.erase(best);
        return block;
      }
    }
    void* memory = std::aligned_alloc(kPage, size);
    if (memory == nullptr) throw std::bad_alloc();
    madvise(memory, size, MADV_HUGEPAGE);
    return {memory, size};
  }

  static void give_back(const Block& block) {
    const std::lock_guard<std::mutex> lock(kept().mutex);
    auto& blocks = kept().blocks;
    blocks.push_back(block);
    if (blocks.size() > kMaximumKept) {  // frees the block that has been unused for longest
      std::free(blocks.front().memory);
      blocks.erase(blocks.begin());
    }
  }

  Block block_;
};

template <int Half>
inline void exchange(Panel* rows) {
  // This swaps the off-diagonal blocks of `Half` lanes between rows that are `Half` apart.
  Panel low, high;
  for (int first = 0; first < kLanes; first += 2 * Half) {
    for (int row = first; row < first + Half; row++) {
      const Panel a = rows[row], b = rows[row + Half];
      if constexpr (Half == 8) {
        low = __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
        high = __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
      } else if constexpr (Half == 4) {
        low = __builtin_shufflevector(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
        high = __builtin_shufflevector(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
      } else if constexpr (Half == 2) {
        low = __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
        high = __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
      } else {
        low = __builtin_shufflevector(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30);
        high = __builtin_shufflevector(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
      }
      rows[row] = low;
      rows[row + Half] = high;
    }
  }
}

inline void transpose(Panel* rows) {
  exchange<8>(rows);
  exchange<4>(rows);
  exchange<2>(rows);
  exchange<1>(rows);
}

// Copies `width` pixels from `left` on of a row of up to 16 channels to panels, with zeros outside of the image.
inline void gather_row(const float* row, int64_t channel_step, int64_t channels, int64_t left, int64_t width,
                       int64_t image_width, Panel* out) {
  int64_t pixel = 0;
  while (pixel < width) {
    const int64_t x = left + pixel;
    if (x >= 0 && x + kLanes <= image_width && channels == kLanes) {
      Panel block[kLanes];
      for (int channel = 0; channel < kLanes; channel++) {
        block[channel] = *reinterpret_cast<const Loose*>(row + channel * channel_step + x);
      }
      transpose(block);
      const int64_t count = std::min<int64_t>(kLanes, width - pixel);
      std::memcpy(static_cast<void*>(out + pixel), block, count * sizeof(Panel));
      pixel += count;
    } else {
      alignas(64) float values[kLanes] = {};
      if (x >= 0 && x < image_width) {
        for (int64_t channel = 0; channel < channels; channel++) values[channel] = row[channel * channel_step + x];
      }
      out[pixel++] = *reinterpret_cast<const Panel*>(values);
    }
  }
}

// Copies `width` panels to a row of up to 16 channels.
inline void scatter_row(const Panel* panels, int64_t width, int64_t channels, float* row, int64_t channel_step) {
  int64_t pixel = 0;
  for (; pixel + kLanes <= width && channels == kLanes; pixel += kLanes) {
    Panel block[kLanes];
    std::memcpy(static_cast<void*>(block), panels + pixel, sizeof(block));
    transpose(block);
    for (int channel = 0; channel < kLanes; channel++) {
      *reinterpret_cast<Loose*>(row + channel * channel_step + pixel) = block[channel];
    }
  }
  for (; pixel < width; pixel++) {
    const float* values = reinterpret_cast<const float*>(panels + pixel);
    for (int64_t channel = 0; channel < channels; channel++) row[channel * channel_step + pixel] = values[channel];
  }
}

// kRows rows of `Panels` panels of a product, in registers.
template <int Panels>
struct Accumulator {
  static constexpr int kVectors = Panels * kLanes / kWidth;
  Vector sum[kRows][kVectors];

  inline void clear() {
    for (int row = 0; row < kRows; row++)
      for (int vector = 0; vector < kVectors; vector++) sum[row][vector] = Vector{};
  }

  inline const Vector& at(const Panel* panels, int64_t panel_step, int vector) const {
    constexpr int kParts = kLanes / kWidth;
    return reinterpret_cast<const Vector*>(panels + vector / kParts * panel_step)[vector % kParts];
  }

  inline void load(const Panel* c, int64_t panel_step) {
    for (int row = 0; row < kRows; row++)
      for (int vector = 0; vector < kVectors; vector++) sum[row][vector] = at(c + row, panel_step, vector);
  }

  inline void store(Panel* c, int64_t panel_step) const {
    for (int row = 0; row < kRows; row++)
      for (int vector = 0; vector < kVectors; vector++)
        const_cast<Vector&>(at(c + row, panel_step, vector)) = sum[row][vector];
  }

  // sum[row] += a[row * RowStep] * b
  template <int RowStep>
  inline void add(const float* a, const Panel* b, int64_t panel_step) {
    Vector right[kVectors];
    for (int vector = 0; vector < kVectors; vector++) right[vector] = at(b, panel_step, vector);
    for (int row = 0; row < kRows; row++) {
      for (int vector = 0; vector < kVectors; vector++) sum[row][vector] += a[row * RowStep] * right[vector];
    }
  }
};

template <int Panels>
inline void multiply_rows(const Panel* a, int64_t a_step, const Panel* b, int64_t b_step, Panel* c, int64_t c_step,
                          int64_t rows, int64_t depth_panels) {
  for (int64_t row = 0; row < rows; row += kRows) {
    Accumulator<Panels> accumulator;
    accumulator.clear();
    for (int64_t panel = 0; panel < depth_panels; panel++) {
      const float* left = reinterpret_cast<const float*>(a + panel * a_step + row);
      const Panel* right = b + panel * kLanes;
#pragma GCC unroll 4
      for (int lane = 0; lane < kLanes; lane++) accumulator.template add<kLanes>(left + lane, right + lane, b_step);
    }
    accumulator.store(c + row, c_step);
  }
}

// Computes C = A B. A is depth_panels x a_step rows x 16 lanes of depth, B is panels x b_step depths x 16 lanes of
// columns, and C is panels x c_step rows x 16 lanes of columns. `rows` is a multiple of kRows.
inline void multiply(const Panel* a, int64_t a_step, const Panel* b, int64_t b_step, Panel* c, int64_t c_step,
                     int64_t rows, int64_t panels, int64_t depth_panels) {
  int64_t panel = 0;
  for (; panel + kPanels <= panels; panel += kPanels) {
    multiply_rows<kPanels>(a, a_step, b + panel * b_step, b_step, c + panel * c_step, c_step, rows, depth_panels);
  }
  for (; panel < panels; panel++) {
    multiply_rows<1>(a, a_step, b + panel * b_step, b_step, c + panel * c_step, c_step, rows, depth_panels);
  }
}

template <int Panels>
inline void multiply_transposed_panels(const Panel* a, const Panel* b, int64_t b_step, Panel* c, int64_t c_step,
                                       int64_t depth, bool accumulate) {
  for (int row = 0; row < kLanes; row += kRows) {
    Accumulator<Panels> accumulator;
    if (accumulate) {
      accumulator.load(c + row, c_step);
    } else {
      accumulator.clear();
    }
    const float* left = reinterpret_cast<const float*>(a) + row;
    for (int64_t step = 0; step < depth; step++) {
      accumulator.template add<1>(left + step * kLanes, b + step, b_step);
    }
    accumulator.store(c + row, c_step);
  }
}

// Computes C = A^T B or, to accumulate, C += A^T B. A is depth x 16 lanes of rows, B is panels x b_step depths x 16
// lanes of columns, and C is panels x c_step rows x 16 lanes of columns.
inline void multiply_transposed(const Panel* a, const Panel* b, int64_t b_step, Panel* c, int64_t c_step, int64_t panels,
                                int64_t depth, bool accumulate) {
  int64_t panel = 0;
  for (; panel + kPanels <= panels; panel += kPanels) {
    multiply_transposed_panels<kPanels>(a, b + panel * b_step, b_step, c + panel * c_step, c_step, depth, accumulate);
  }
  for (; panel < panels; panel++) {
    multiply_transposed_panels<1>(a, b + panel * b_step, b_step, c + panel * c_step, c_step, depth, accumulate);
  }
}

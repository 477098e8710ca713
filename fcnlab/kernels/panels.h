// Matrices in panels of 16 channels, and the matrix product that all kernels share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

constexpr int kLanes = 16;

typedef float Panel __attribute__((vector_size(kLanes * sizeof(float)), aligned(64), may_alias));

#if defined(__AVX512F__)
constexpr int kWidth = 16;  // floats in a vector register
constexpr int kRows = 8;    // rows of a product that are in registers at a time
constexpr int kPanels = 2;  // panels of a product that are in registers at a time
#elif defined(__AVX__)
constexpr int kWidth = 8;
constexpr int kRows = 4;
constexpr int kPanels = 1;
#else  // registers of 16 bytes, as AArch64 has
constexpr int kWidth = 4;
constexpr int kRows = 4;
constexpr int kPanels = 1;
#endif
typedef float Vector __attribute__((vector_size(kWidth * sizeof(float)), aligned(kWidth * sizeof(float)), may_alias));
typedef int32_t Lanes __attribute__((vector_size(kWidth * sizeof(float))));
// This one may lie anywhere in a tensor of MindSpore's.
typedef float LooseVector __attribute__((vector_size(kWidth * sizeof(float)), aligned(4), may_alias));

// Loads a vector by value: a reference to it would be taken for one to an aligned vector.
inline Vector load(const float* values) { return *reinterpret_cast<const LooseVector*>(values); }

inline int64_t divide_up(int64_t value, int64_t by) { return (value + by - 1) / by; }
inline int64_t round_up(int64_t value, int64_t to) { return divide_up(value, to) * to; }

// Returns lanes of two vectors: lane `i` is `Rule::source(i)`, counted through the first and then the second.
template <typename Rule, int... Lane>
inline Vector shuffled(const Vector& a, const Vector& b, std::integer_sequence<int, Lane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, Rule::source(Lane)...);
#else  // GCC has had this one for longer than the other, which came with GCC 12.
  return __builtin_shuffle(a, b, Lanes{Rule::source(Lane)...});
#endif
}

template <typename Rule>
inline Vector shuffled(const Vector& a, const Vector& b) {
  return shuffled<Rule>(a, b, std::make_integer_sequence<int, kWidth>());
}

// In each quarter of four lanes, a0 b0 a1 b1 or, with `High`, a2 b2 a3 b3.
template <bool High>
struct Interleaved {
  static constexpr int source(int lane) {
    return lane / 4 * 4 + (High ? 2 : 0) + lane % 4 / 2 + (lane % 2 ? kWidth : 0);
  }
};

// In each quarter of four lanes, a0 a1 b0 b1 or, with `High`, a2 a3 b2 b3.
template <bool High>
struct Paired {
  static constexpr int source(int lane) {
    return lane / 4 * 4 + (High ? 2 : 0) + lane % 2 + (lane % 4 / 2 ? kWidth : 0);
  }
};

// Of each 2 * Half lanes, the first half of a and that of b or, with `High`, the second halves.
template <int Half, bool High>
struct Exchanged {
  static constexpr int source(int lane) {
    return lane / (2 * Half) * (2 * Half) + (High ? Half : 0) + lane % Half + (lane / Half % 2 ? kWidth : 0);
  }
};

// Swaps the off-diagonal blocks of `Half` x `Half` lanes.
template <int Half>
inline void exchange(Vector* rows) {
  for (int first = 0; first < kWidth; first += 2 * Half) {
    for (int row = first; row < first + Half; row++) {
      const Vector a = rows[row], b = rows[row + Half];
      rows[row] = shuffled<Exchanged<Half, false>>(a, b);
      rows[row + Half] = shuffled<Exchanged<Half, true>>(a, b);
    }
  }
}

// Transposes kWidth vectors: first the blocks of 4 x 4 lanes, then the blocks among each other.
inline void transpose_vectors(Vector* rows) {
  for (int row = 0; row < kWidth; row += 4) {
    const Vector low = shuffled<Interleaved<false>>(rows[row], rows[row + 1]);
    const Vector high = shuffled<Interleaved<true>>(rows[row], rows[row + 1]);
    const Vector low2 = shuffled<Interleaved<false>>(rows[row + 2], rows[row + 3]);
    const Vector high2 = shuffled<Interleaved<true>>(rows[row + 2], rows[row + 3]);
    rows[row] = shuffled<Paired<false>>(low, low2);
    rows[row + 1] = shuffled<Paired<true>>(low, low2);
    rows[row + 2] = shuffled<Paired<false>>(high, high2);
    rows[row + 3] = shuffled<Paired<true>>(high, high2);
  }
  if constexpr (kWidth > 4) exchange<4>(rows);
  if constexpr (kWidth > 8) exchange<8>(rows);
}

// Transposes 16 rows of 16 floats: `read` returns a row's vector of kWidth floats that begins at a column, and `write`
// gets a column's vector that begins at a row. Nothing is copied as a whole panel, which GCC moves by 16 bytes at a time
// where registers are shorter than a panel: what reads longer vectors of it next would have to wait.
template <typename Read, typename Write>
inline void transpose(const Read& read, const Write& write) {
  for (int row = 0; row < kLanes; row += kWidth) {
    for (int column = 0; column < kLanes; column += kWidth) {
      Vector vectors[kWidth];
      for (int lane = 0; lane < kWidth; lane++) vectors[lane] = read(row + lane, column);
      transpose_vectors(vectors);
      for (int lane = 0; lane < kWidth; lane++) write(column + lane, row, vectors[lane]);
    }
  }
}

// Returns the vector of a panel that begins at a lane.
inline Vector& vector_of(Panel* panel, int lane) { return reinterpret_cast<Vector*>(panel)[lane / kWidth]; }
inline const Vector& vector_of(const Panel* panel, int lane) {
  return reinterpret_cast<const Vector*>(panel)[lane / kWidth];
}

inline void store(const Vector& values, float* out) { *reinterpret_cast<LooseVector*>(out) = values; }

constexpr int64_t kAhead = 128;  // how far beyond what is read a row is fetched into the cache, in floats

// Copies each of `columns` columns of up to 16 rows that are `row_step` apart to the panel that `place` returns for it,
// with zeros beyond the last row. `place` may be called more than once for a column. Rows that lie in memory are fetched
// in time, since processors do not foresee what is read of so many.
template <typename Place>
inline void transpose_columns(const float* rows, int64_t row_step, int64_t lanes, int64_t columns, const Place& place) {
  if (row_step == 1 || columns < kLanes) {
    for (int64_t column = 0; column < columns; column++) {
      float* const out = reinterpret_cast<float*>(place(column));
      std::memset(out + lanes, 0, (kLanes - lanes) * sizeof(float));
      if (row_step == 1) {
        std::memcpy(out, rows + column, lanes * sizeof(float));
      } else {
        for (int64_t lane = 0; lane < lanes; lane++) out[lane] = rows[lane * row_step + column];
      }
    }
    return;
  }
  for (int64_t begin = 0; begin < columns; begin += kLanes) {
    const int64_t from = std::min(begin, columns - kLanes);
    Panel* places[kLanes];
    for (int column = 0; column < kLanes; column++) places[column] = place(from + column);
    const auto read = [&](int row, int column) {
      if (row >= lanes) return Vector{};
      const float* values = rows + row * row_step + from + column;
      __builtin_prefetch(values + kAhead);
      return load(values);
    };
    transpose(read, [&](int column, int row, const Vector& values) { vector_of(places[column], row) = values; });
  }
}

// Copies `width` pixels from `left` on of a row of up to 16 channels to panels, with zeros outside of the image.
inline void gather_row(const float* row, int64_t channel_step, int64_t channels, int64_t left, int64_t width,
                       int64_t image_width, Panel* out) {
  int64_t pixel = 0;
  while (pixel < width) {
    const int64_t x = left + pixel;
    if (x >= 0 && x + kLanes <= image_width && channels == kLanes) {
      const int64_t count = std::min<int64_t>(kLanes, width - pixel);
      transpose([&](int channel, int first) { return load(row + channel * channel_step + x + first); },
                [&](int index, int channel, const Vector& values) {
                  if (index < count) vector_of(out + pixel + index, channel) = values;
                });
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
    transpose([&](int index, int channel) { return vector_of(panels + pixel + index, channel); },
              [&](int channel, int index, const Vector& values) {
                store(values, row + channel * channel_step + pixel + index);
              });
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

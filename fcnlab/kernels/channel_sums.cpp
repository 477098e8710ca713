// The sum of each channel over all images and pixels. Terms are added up in a fixed order, so that results do not depend
// on the number of threads.

#include "operator.h"
#include "panels.h"
#include "parallel.h"
#include "sums.h"

#include <cstdint>
#include <vector>

namespace {

void channel_sums_of(const float* x, const int64_t* shape, float* sums) {
  const int64_t images = shape[0], channels = shape[1], area = shape[2] * shape[3];
  // Neighbouring channels lie beside each other in memory.
  Threads().run(divide_up(channels, kLanes), [&](int64_t task) {
    for (int64_t channel = task * kLanes; channel < std::min(channels, (task + 1) * kLanes); channel++) {
      double total = 0;
      for (int64_t image = 0; image < images; image++) {
        const float* plane = x + (image * channels + channel) * area;
        total += add_up(area, [&](int64_t i) { return load(plane + i); }, [&](int64_t i) { return plane[i]; });
      }
      sums[channel] = static_cast<float>(total);
    }
  });
}

}  // namespace

extern "C" {

// x (N x C x H x W) -> C
int channel_sums(int, void** data, int*, int64_t** shapes, const char**, void*, void*) {
  return answer([&] { channel_sums_of(at(data, 0), shapes[0], at(data, 1)); });
}

std::vector<int64_t> channel_sumsInferShape(int*, int64_t** shapes, void*) { return {shapes[0][1]}; }

}  // extern "C"

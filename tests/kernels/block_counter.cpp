// Takes as many blocks of memory at a time as its first argument says, twice, with as many threads as the second one
// says, and prints how many blocks came from the system in the second round.

#include "buffer.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include <malloc.h>

extern "C" void use_threads(int64_t count);

static int from_system = 0;

extern "C" void* aligned_alloc(size_t alignment, size_t size) {
  from_system++;
  return memalign(alignment, size);
}

static void take(int64_t count) {
  std::vector<std::unique_ptr<Buffer>> buffers;
  for (int64_t index = 0; index < count; index++) buffers.push_back(std::make_unique<Buffer>(1));
}

int main(int, char** arguments) {
  use_threads(std::atoll(arguments[2]));
  take(std::atoll(arguments[1]));
  from_system = 0;
  take(std::atoll(arguments[1]));
  std::printf("%d\n", from_system);
}

#include "buffer.h"

#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <iterator>
#include <map>
#include <mutex>
#include <new>

#include <sys/mman.h>
#include <unistd.h>

namespace {

constexpr int64_t kPage = int64_t{1} << 21;
// The blocks that are kept for each thread: more than the sizes that it works with in a step.
constexpr int64_t kKeptForAThread = 32;

struct Block {
  void* memory;
  int64_t size;  // bytes
};

struct Kept {
  struct Unused {
    void* memory;
    int64_t since;  // how many blocks had been given back before
  };

  std::mutex mutex;
  std::multimap<int64_t, Unused> blocks;  // by their size; among equals, the one that was used last comes last
  int64_t given_back = 0;
  const pid_t process = getpid();
};

// The blocks of this process. A forked child cannot use its parent's, whose mutex may have been locked at that moment.
Kept& kept_blocks() {
  static std::atomic<Kept*> current{nullptr};
  Kept* found = current.load();
  while (found == nullptr || found->process != getpid()) {
    Kept* own = new Kept;  // outlives every thread
    if (current.compare_exchange_strong(found, own)) return *own;
    delete own;
  }
  return *found;
}

// Returns a block of at least `size` bytes.
Block take(int64_t size) {
  Kept& kept = kept_blocks();
  {
    const std::lock_guard<std::mutex> lock(kept.mutex);
    const auto smallest = kept.blocks.lower_bound(size);
    if (smallest != kept.blocks.end() && smallest->first <= 2 * size) {
      const auto found = std::prev(kept.blocks.upper_bound(smallest->first));
      const Block block{found->second.memory, found->first};
      kept.blocks.erase(found);
      return block;
    }
  }
  void* memory = std::aligned_alloc(kPage, size);
  if (memory == nullptr) throw std::bad_alloc();
  madvise(memory, size, MADV_HUGEPAGE);
  return {memory, size};
}

void give_back(const Block& block) {
  Kept& kept = kept_blocks();
  const std::lock_guard<std::mutex> lock(kept.mutex);
  try {
    kept.blocks.emplace(block.size, Kept::Unused{block.memory, kept.given_back++});
  } catch (const std::bad_alloc&) {
    std::free(block.memory);
    return;
  }
  // As many as for two threads are kept in any case.
  if (static_cast<int64_t>(kept.blocks.size()) <= 2 * kKeptForAThread) return;
  if (static_cast<int64_t>(kept.blocks.size()) <= Threads().count() * kKeptForAThread) return;
  const auto oldest = std::min_element(kept.blocks.begin(), kept.blocks.end(), [](const auto& a, const auto& b) {
    return a.second.since < b.second.since;
  });
  std::free(oldest->second.memory);
  kept.blocks.erase(oldest);
}

}  // namespace

Buffer::Buffer(int64_t panels) {
  const Block block = take(round_up(panels * int64_t{sizeof(Panel)}, kPage));
  memory_ = block.memory;
  size_ = block.size;
}

Buffer::~Buffer() { give_back({memory_, size_}); }

#include "buffer.h"

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

namespace {

constexpr int64_t kPage = int64_t{1} << 21;
constexpr size_t kMaximumKept = 64;

struct Block {
  void* memory;
  int64_t size;  // bytes
};

struct Kept {
  std::mutex mutex;
  std::vector<Block> blocks;
  const pid_t process = getpid();
};

// The blocks of this process. A forked child cannot use its parent's, whose mutex may have been locked at that moment.
Kept& kept() {
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

void give_back(const Block& block) {
  const std::lock_guard<std::mutex> lock(kept().mutex);
  auto& blocks = kept().blocks;
  blocks.push_back(block);
  if (blocks.size() > kMaximumKept) {  // frees the block that has been unused for longest
    std::free(blocks.front().memory);
    blocks.erase(blocks.begin());
  }
}

}  // namespace

Buffer::Buffer(int64_t panels) {
  const Block block = take(round_up(panels * int64_t{sizeof(Panel)}, kPage));
  memory_ = block.memory;
  size_ = block.size;
}

Buffer::~Buffer() { give_back({memory_, size_}); }

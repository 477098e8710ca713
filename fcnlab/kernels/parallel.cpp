#include "parallel.h"

#include <atomic>
#include <cstdlib>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

#include <sched.h>
#include <unistd.h>

namespace {

// The processors that this process may run on. Those of the process count, since a thread may be bound to one.
struct Affinity {
  cpu_set_t parts[8];  // 8192 processors

  bool read() { return sched_getaffinity(getpid(), sizeof(parts), parts) == 0; }
  int64_t count() const { return CPU_COUNT_S(sizeof(parts), parts); }
  void bind_this_thread() const { sched_setaffinity(0, sizeof(parts), parts); }
};

std::atomic<int64_t> most_threads{INT64_MAX};

}  // namespace

extern "C" void limit_threads(int64_t most) { most_threads = std::max<int64_t>(most, 1); }

Threads::Threads() : Threads(1) {
  Affinity affinity;
  if (affinity.read()) count_ = affinity.count();
  const char* limit = std::getenv("FCNLAB_NUM_THREADS");
  if (const int64_t wanted = limit ? std::atoll(limit) : 0; wanted > 0) count_ = std::min(count_, wanted);
  count_ = std::min(count_, most_threads.load());
}

void Threads::run(int64_t tasks, void (*body)(const void*, int64_t), const void* context) const {
  std::atomic<int64_t> next{0};
  std::atomic_flag failed = ATOMIC_FLAG_INIT;
  std::exception_ptr failure;  // the first; the others are of the same kind
  const auto work = [&] {
    try {
      for (int64_t task = next++; task < tasks; task = next++) body(context, task);
    } catch (...) {
      next = tasks;
      if (!failed.test_and_set()) failure = std::current_exception();
    }
  };
  Affinity affinity;
  const bool known = affinity.read();
  std::vector<std::thread> others;
  try {
    for (int64_t index = 1; index < std::min(count_, tasks); index++) {
      others.emplace_back([&work, &affinity, known] {
        if (known) affinity.bind_this_thread();
        work();
      });
    }
  } catch (const std::system_error&) {  // no more threads can be started: those that exist do the work
  }
  work();
  for (std::thread& other : others) other.join();
  if (failure) std::rethrow_exception(failure);
}

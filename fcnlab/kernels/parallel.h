// Threads that live as long as one call of an operator.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include <sched.h>
#include <unistd.h>

class Threads {
 public:
  // As many threads as the process may use, or as FCNLAB_NUM_THREADS allows. (MindSpore overwrites OMP_NUM_THREADS.)
  Threads() : Threads(0) {
    // The affinity of the process counts, since this thread may be bound to one processor.
    const int64_t usable = sched_getaffinity(getpid(), sizeof(processors_), &processors_) == 0 ? CPU_COUNT(&processors_) : 1;
    const char* limit = std::getenv("FCNLAB_NUM_THREADS");
    const int64_t wanted = limit ? std::atoll(limit) : 0;
    count_ = wanted > 0 ? std::min(wanted, usable) : usable;
  }

  // As many threads as this number of products of two numbers is worth: where all processors are busy, a new thread
  // waits several milliseconds until it is scheduled, and the operator waits for it.
  static Threads for_products(int64_t products) {
    Threads threads;
    threads.count_ = std::min(threads.count_, 1 + products / kWorthAThread);
    return threads;
  }

  // The calling thread, and no other.
  static Threads one() { return Threads(1); }

  int64_t count() const { return count_; }

  // Calls `body` once with each task from 0 on, and waits for all of them. An exception in one of them is thrown here.
  template <typename Body>
  void run(int64_t tasks, const Body& body) const {
    std::atomic<int64_t> next{0};
    std::exception_ptr failure;
    std::mutex mutex;
    const auto work = [&] {
      try {
        for (int64_t task = next++; task < tasks; task = next++) body(task);
      } catch (...) {
        next = tasks;
        const std::lock_guard<std::mutex> lock(mutex);
        failure = std::current_exception();
      }
    };
    std::vector<std::thread> others;
    try {
      for (int64_t index = 1; index < std::min(count_, tasks); index++) {
        others.emplace_back([&] {
          sched_setaffinity(0, sizeof(processors_), &processors_);
          work();
        });
      }
    } catch (const std::system_error&) {  // no more threads can be started: those that exist do the work
    }
    work();
    for (std::thread& other : others) other.join();
    if (failure) std::rethrow_exception(failure);
  }

 private:
  static constexpr int64_t kWorthAThread = int64_t{1} << 24;  // about 0.3 ms

  explicit Threads(int64_t count) : count_(count) {}

  int64_t count_;
  cpu_set_t processors_;
};

// Runs `body` and returns the operator's answer to MindSpore: 0, or 1 after an exception, as when memory runs out.
template <typename Body>
int answer(const Body& body) {
  try {
    body();
    return 0;
  } catch (...) {
    return 1;
  }
}

// The threads that compute an operator.
#pragma once

#include <algorithm>
#include <cstdint>

class Threads {
 public:
  // As many threads as the process may use, or as FCNLAB_NUM_THREADS says. (MindSpore overwrites OMP_NUM_THREADS.)
  Threads();

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
    run(tasks, [](const void* context, int64_t task) { (*static_cast<const Body*>(context))(task); }, &body);
  }

 private:
  static constexpr int64_t kWorthAThread = int64_t{1} << 24;  // about 0.3 ms

  explicit Threads(int64_t count) : count_(count) {}

  void run(int64_t tasks, void (*body)(const void*, int64_t), const void* context) const;

  int64_t count_;
};

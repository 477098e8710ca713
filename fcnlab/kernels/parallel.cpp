#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
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

std::atomic<int64_t> usable{0};  // the number of threads that this process was told to use, or 0

// The tasks of one call of an operator. What is not atomic is guarded by the crew's mutex.
struct Job {
  void (*body)(const void*, int64_t);
  const void* context;
  int64_t tasks;
  int64_t wanted;                  // how many more helpers may join
  int64_t working = 0;             // how many helpers have joined and not left
  std::condition_variable left{};  // no helper is working any more
  std::atomic<int64_t> next{0};
  std::atomic_flag failed = ATOMIC_FLAG_INIT;
  std::exception_ptr failure{};  // the first; the others are of the same kind

  void work() {
    try {
      for (int64_t task = next++; task < tasks; task = next++) body(context, task);
    } catch (...) {
      next = tasks;
      if (!failed.test_and_set()) failure = std::current_exception();
    }
  }
};

// Threads that wait for jobs as long as the process lives. The caller of a job works on it too, and does not wait for
// helpers that have not come by the time when nothing is left to do. So a job ends with any number of helpers, also when
// several threads have jobs at a time.
class Crew {
 public:
  // The crew of this process. A forked child has none of its parent's threads, and makes a crew of its own.
  static Crew& of_this_process() {
    static std::atomic<Crew*> current{nullptr};
    Crew* crew = current.load();
    while (crew == nullptr || crew->process_ != getpid()) {
      Crew* own = new Crew;  // outlives every thread, as the parent's does
      if (current.compare_exchange_strong(crew, own)) return *own;
      delete own;
    }
    return *crew;
  }

  // Works on the job, with up to `job.wanted` helpers, until it is done.
  void finish(Job& job) {
    const int64_t wanted = job.wanted;
    bool all;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      enlarge(wanted);
      all = wanted >= size_;
      jobs_.push_back(&job);
    }
    if (all) {
      wake_.notify_all();
    } else {
      for (int64_t helper = 0; helper < wanted; helper++) wake_.notify_one();
    }
    job.work();
    std::unique_lock<std::mutex> lock(mutex_);
    jobs_.erase(std::remove(jobs_.begin(), jobs_.end(), &job), jobs_.end());
    job.left.wait(lock, [&job] { return job.working == 0; });
  }

 private:
  void enlarge(int64_t size) {
    Affinity affinity;
    const bool known = size_ < size && affinity.read();
    try {
      for (; size_ < size; size_++) {
        std::thread([this, affinity, known] {
          if (known) affinity.bind_this_thread();
          help();
        }).detach();
      }
    } catch (const std::system_error&) {  // no more threads can be started: those that exist do the work
    }
  }

  void help() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      wake_.wait(lock, [this] { return !jobs_.empty(); });
      Job& job = *jobs_.front();
      if (--job.wanted == 0) jobs_.erase(jobs_.begin());
      job.working++;
      lock.unlock();
      job.work();
      lock.lock();
      if (--job.working == 0) job.left.notify_one();
    }
  }

  const pid_t process_ = getpid();
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Job*> jobs_;
  int64_t size_ = 0;
};

}  // namespace

// Tells this process how many threads to use; FCNLAB_NUM_THREADS may lower the number.
extern "C" void use_threads(int64_t count) { usable = count; }

Threads::Threads() : Threads(std::max<int64_t>(usable, 1)) {
  Affinity affinity;
  if (usable <= 0 && affinity.read()) count_ = affinity.count();
  const char* limit = std::getenv("FCNLAB_NUM_THREADS");
  if (const int64_t wanted = limit ? std::atoll(limit) : 0; wanted > 0) count_ = std::min(count_, wanted);
}

void Threads::run(int64_t tasks, void (*body)(const void*, int64_t), const void* context) const {
  Job job{body, context, tasks, std::min(count_, tasks) - 1};
  if (job.wanted > 0) {
    Crew::of_this_process().finish(job);
  } else {
    job.work();
  }
  if (job.failure) std::rethrow_exception(job.failure);
}

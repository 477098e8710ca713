#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include <linux/futex.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

using Clock = std::chrono::steady_clock;

// How long a thread stays awake for what comes next. Operators of a step follow each other within some tens of
// microseconds, and waking a thread takes about as long.
constexpr std::chrono::microseconds kPatience{100};
// How long a thread that had to give up its processor goes to sleep at once.
constexpr std::chrono::milliseconds kConsideration{20};
constexpr int64_t kMostHelpers = 8191;
constexpr int kMostJobs = 16;  // at a time; further callers work alone
constexpr int64_t kWokenByOne = 4;

std::atomic<int64_t> usable{0};    // the number of threads that this process was told to use, or 0
std::atomic<bool> may_spin{true};  // whether idle threads may take processor time

// The processors that this process may run on. Those of the process count, since a thread may be bound to one.
struct Affinity {
  cpu_set_t parts[8];  // 8192 processors

  bool read() { return sched_getaffinity(getpid(), sizeof(parts), parts) == 0; }
  int64_t count() const { return CPU_COUNT_S(sizeof(parts), parts); }
  void bind_this_thread() const { sched_setaffinity(0, sizeof(parts), parts); }
};

// Sleeps while `word` has this value, or shorter.
void sleep_while(const std::atomic<uint32_t>& word, uint32_t value) {
  static_assert(sizeof(word) == sizeof(value), "the kernel compares the value itself");
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}

// Wakes up to `count` threads that sleep by that word.
void wake_sleepers(const std::atomic<uint32_t>& word, int64_t count) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, static_cast<int>(std::min<int64_t>(count, INT_MAX)), nullptr, nullptr, 0);
}

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Waits, awake, until the condition holds or the time has come. Returns whether the condition holds. A thread that waits
// for this processor has it in between, such as the one that shall fulfil the condition.
template <typename Condition>
bool spin_until(Clock::time_point end, const Condition& condition) {
  do {
    for (int look = 0; look < 32; look++) {
      if (condition()) return true;
      pause();
    }
    sched_yield();
  } while (Clock::now() < end);
  return condition();
}

// Returns whether the threads of this process lately had to give a processor to another thread, as far as the calling
// thread knows. Then there are more threads than processors, and one that stays awake without work keeps others from
// theirs. This sees other processes as well.
bool is_crowded() {
  static std::atomic<Clock::rep> end{0};
  thread_local long seen = 0;
  rusage usage;
  if (getrusage(RUSAGE_THREAD, &usage) != 0) return true;
  const Clock::time_point now = Clock::now();
  if (usage.ru_nivcsw != seen) {
    seen = usage.ru_nivcsw;
    end = (now + kConsideration).time_since_epoch().count();
  }
  return now.time_since_epoch().count() < end;
}

// The tasks of one call of an operator. It is a place of the crew's that one caller has at a time, so that a helper may
// look at it at any time.
class alignas(64) Job {
 public:
  // Makes this place the caller's, if nobody has it.
  bool claim() {
    uint32_t free = 0;
    return state_.load() == free && state_.compare_exchange_strong(free, kClaimed);
  }

  // Lets helpers join.
  void open(void (*body)(const void*, int64_t), const void* context, int64_t tasks, int64_t helpers, bool patient) {
    body_ = body;
    context_ = context;
    tasks_ = tasks;
    patient_ = patient;
    next_ = 0;
    failed_.clear();
    state_ = kClaimed | static_cast<uint32_t>(helpers) * kSeat;
  }

  // Takes a seat, if there is one. What the job consists of may be read from then on.
  bool join() {
    uint32_t state = state_.load();
    while (seats(state) > 0) {
      if (state_.compare_exchange_weak(state, state - kSeat + 1)) return true;
    }
    return false;
  }

  void leave() {
    const uint32_t state = state_.fetch_sub(1);
    // The caller may have left by now: then this wakes nobody, or a thread that goes to sleep again.
    if (workers(state) == 1 && (state & kAsleep)) wake_sleepers(state_, 1);
  }

  void work() {
    try {
      for (int64_t task = next_++; task < tasks_; task = next_++) body_(context_, task);
    } catch (...) {
      next_ = tasks_;
      if (!failed_.test_and_set()) failure_ = std::current_exception();
    }
  }

  // Lets nobody join any more, waits for those who have, and gives the place back. Returns the first exception.
  std::exception_ptr close() {
    uint32_t state = state_.fetch_and(~(kMostSeats * kSeat)) & ~(kMostSeats * kSeat);
    const auto done = [&] { return workers(state = state_.load()) == 0; };
    if (workers(state) > 0 && patient_) spin_until(Clock::now() + kPatience, done);
    while (!done()) {
      if ((state & kAsleep) || state_.compare_exchange_strong(state, state | kAsleep)) {
        sleep_while(state_, state | kAsleep);
      }
    }
    std::exception_ptr failure;
    std::swap(failure, failure_);
    state_ = 0;
    return failure;
  }

  int64_t seats() const { return seats(state_.load()); }
  bool patient() const { return patient_; }

 private:
  // The state is one word: how many helpers are working, how many more may join, whether the caller sleeps until none
  // is working, and whether there is a caller.
  static constexpr uint32_t kSeat = uint32_t{1} << 15, kMostSeats = kSeat - 1;
  static constexpr uint32_t kAsleep = uint32_t{1} << 30, kClaimed = uint32_t{1} << 31;
  static_assert(kMostHelpers <= kMostSeats, "the state has room for all");

  static int64_t workers(uint32_t state) { return state & kMostSeats; }
  static int64_t seats(uint32_t state) { return state / kSeat & kMostSeats; }

  std::atomic<uint32_t> state_{0};
  void (*body_)(const void*, int64_t) = nullptr;
  const void* context_ = nullptr;
  int64_t tasks_ = 0;
  bool patient_ = false;  // whether threads may stay awake for a while
  std::atomic_flag failed_ = ATOMIC_FLAG_INIT;
  std::exception_ptr failure_{};  // the first; the others are of the same kind
  alignas(64) std::atomic<int64_t> next_{0};
};

// Threads that wait for jobs as long as the process lives, awake at first and then asleep. The caller of a job works on
// it too, and does not wait for helpers that have not come by the time when nothing is left to do. So a job ends with
// any number of helpers, also when several threads have jobs at a time.
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

  // Returns a job that is the caller's until it closes it, or null if there are too many at a time.
  Job* claim() {
    Job* const job = std::find_if(jobs_, jobs_ + kMostJobs, [](Job& place) { return place.claim(); });
    return job == jobs_ + kMostJobs ? nullptr : job;
  }

  // Brings helpers to a job that has been opened.
  void announce(int64_t helpers) {
    calls_++;
    wake(helpers);
  }

  // Makes sure that there are as many helpers, if the system allows it.
  void enlarge(int64_t size) {
    if (size_ >= size) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    Affinity affinity;
    const bool known = affinity.read();
    processors_ = known ? affinity.count() : 0;
    try {
      while (size_ < size) {
        idle_++;
        size_++;
        std::thread([this, affinity, known] {
          if (known) affinity.bind_this_thread();
          help();
        }).detach();
      }
    } catch (...) {  // no more threads can be started: those that exist do the work
      idle_--;
      size_--;
    }
  }

  int64_t processors() const { return processors_; }

 private:
  // Wakes as many sleeping helpers as are missing for that number of seats, and not many: each wakes others.
  void wake(int64_t seats) {
    const int64_t count = std::min({seats - idle_, asleep_.load(), kWokenByOne});
    if (count > 0) wake_sleepers(calls_, count);
  }

  Job* join() {
    Job* const job = std::find_if(jobs_, jobs_ + kMostJobs, [](Job& place) { return place.join(); });
    return job == jobs_ + kMostJobs ? nullptr : job;
  }

  void help() {
    Clock::time_point end{};
    bool has_slept = false;
    while (true) {
      const uint32_t seen = calls_;  // before it looks for a job, so that it cannot miss one
      if (Job* const job = join()) {
        idle_--;
        if (std::exchange(has_slept, false)) wake(job->seats());
        job->work();
        const bool patient = job->patient();
        job->leave();
        idle_++;
        end = patient ? Clock::now() + kPatience : Clock::time_point{};
      } else if (Clock::now() >= end || is_crowded() || !spin_until(end, [&] { return calls_ != seen; })) {
        asleep_++;
        idle_--;
        sleep_while(calls_, seen);
        idle_++;
        asleep_--;
        has_slept = true;
      }
    }
  }

  const pid_t process_ = getpid();
  Job jobs_[kMostJobs];
  alignas(64) std::atomic<uint32_t> calls_{0};  // by which helpers sleep
  alignas(64) std::atomic<int64_t> idle_{0};    // how many helpers are awake and look for a job
  std::atomic<int64_t> asleep_{0};              // how many sleep, or are about to
  alignas(64) std::mutex mutex_;                // of the threads' number
  std::atomic<int64_t> size_{0};
  std::atomic<int64_t> processors_{0};
};

}  // namespace

// Tells this process how many threads to use; FCNLAB_NUM_THREADS may lower the number.
extern "C" void use_threads(int64_t count) { usable = count; }

// Tells this process whether threads without work may stay awake for a tenth of a millisecond, as they may by default.
// Where processor time is limited, they would spend it. They never do where there are more threads than processors.
extern "C" void let_threads_spin(int64_t allowed) { may_spin = allowed != 0; }

Threads::Threads() : Threads(std::max<int64_t>(usable, 1)) {
  Affinity affinity;
  if (usable <= 0 && affinity.read()) count_ = affinity.count();
  const char* limit = std::getenv("FCNLAB_NUM_THREADS");
  if (const int64_t wanted = limit ? std::atoll(limit) : 0; wanted > 0) count_ = std::min(count_, wanted);
}

void Threads::run(int64_t tasks, void (*body)(const void*, int64_t), const void* context) const {
  const int64_t helpers = std::min({count_ - 1, tasks - 1, kMostHelpers});
  Crew* const crew = helpers > 0 ? &Crew::of_this_process() : nullptr;
  Job* const job = crew ? crew->claim() : nullptr;
  if (job == nullptr) {
    for (int64_t task = 0; task < tasks; task++) body(context, task);
    return;
  }
  crew->enlarge(helpers);
  job->open(body, context, tasks, helpers, may_spin && count_ <= crew->processors() && !is_crowded());
  crew->announce(helpers);
  job->work();
  if (const std::exception_ptr failure = job->close()) std::rethrow_exception(failure);
}

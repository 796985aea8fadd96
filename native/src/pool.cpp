#include "pool.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

namespace native {
namespace {

int usable_cores() {
#ifdef __linux__
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof(cores), &cores) == 0) return std::max(1, CPU_COUNT(&cores));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

std::atomic<int> wanted{0};

class Pool {
 public:
  explicit Pool(int size) : size_(size) {
    for (int thread = 1; thread < size; thread++) workers_.emplace_back([this, thread] { serve(thread); });
  }

  ~Pool() {
    {
      std::lock_guard lock(mutex_);
      ending_ = true;
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  int size() const { return size_; }

  void run(int tasks, const std::function<void(int, int)>& work) {
    {
      std::lock_guard lock(mutex_);
      work_ = &work;
      tasks_ = tasks;
      next_.store(0);
      // No more are woken than have something to do.
      pending_ = std::min(size_ - 1, tasks - 1);
      invited_ = pending_.load();
      round_++;
    }
    wake_.notify_all();
    take(0, work, tasks);
    {
      std::lock_guard lock(mutex_);
      // Those that have not woken up yet are no longer needed: every task is taken.
      pending_ -= invited_;
      invited_ = 0;
    }
    wait_awake([this] { return pending_ == 0; });
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return pending_ == 0; });
    work_ = nullptr;
  }

 private:
  void take(int thread, const std::function<void(int, int)>& work, int tasks) {
    for (int task = next_.fetch_add(1); task < tasks; task = next_.fetch_add(1)) work(task, thread);
  }

  // Waits awake, for about as long as between two operations of a model: waking a sleeper takes longer, above all where
  // the core is a virtual one. After some microseconds whoever else wants the core gets it first.
  template <class Condition>
  static void wait_awake(Condition holds) {
    for (int i = 0; i < PAUSES; i++) {
      if (holds()) return;
      pause();
    }
    const auto until = std::chrono::steady_clock::now() + AWAKE;
    while (!holds() && std::chrono::steady_clock::now() < until) std::this_thread::yield();
  }

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  void serve(int thread) {
    long seen = 0;
    while (true) {
      wait_awake([&] { return round_ != seen && invited_ > 0; });
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return ending_ || (round_ != seen && invited_ > 0); });
      if (ending_) return;
      seen = round_;
      invited_--;
      const auto* work = work_;
      const int tasks = tasks_;
      lock.unlock();
      take(thread, *work, tasks);
      lock.lock();
      if (--pending_ == 0) done_.notify_one();
    }
  }

  static constexpr int PAUSES = 1000;
  static constexpr std::chrono::milliseconds AWAKE{3};
  const int size_;
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  const std::function<void(int, int)>* work_ = nullptr;
  std::atomic<int> next_{0};
  int tasks_ = 0;
  std::atomic<int> invited_{0}, pending_{0};
  std::atomic<long> round_{0};
  bool ending_ = false;
};

// Never destroyed at exit: threads of MLX may still be at work then.
std::mutex* busy = new std::mutex;
Pool* pool = nullptr;

// A forked child has none of the workers, and the lock may be held by a thread that it does not have.
void forget() {
  busy = new std::mutex;
  pool = nullptr;
}

[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, forget);

}  // namespace

int num_threads() {
  const int asked = wanted.load();
  return asked > 0 ? asked : usable_cores();
}

void set_num_threads(int count) {
  wanted.store(std::max(0, count));
}

void parallel(int tasks, const std::function<void(int, int)>& work) {
  const int size = tasks > 1 ? num_threads() : 1;
  std::unique_lock lock(*busy, std::defer_lock);
  if (size == 1 || !lock.try_lock()) {
    for (int task = 0; task < tasks; task++) work(task, 0);
    return;
  }
  if (pool != nullptr && pool->size() != size) {
    delete pool;
    pool = nullptr;
  }
  if (pool == nullptr) pool = new Pool(size);
  pool->run(tasks, work);
}

}  // namespace native

// The pool under a sanitizer, without MLX and Python, whose own reports would hide ours:
//   g++ -std=c++20 -O1 -g -fsanitize=thread -I native/src native/src/pool.cpp native/tests/pool_test.cpp -o pool_test
//   TSAN_OPTIONS=die_after_fork=0 ./pool_test
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <thread>
#include <vector>

#include "pool.h"

namespace {

// Each task writes its own numbers without a lock; whoever asked reads them after.
bool all_done_once(int tasks) {
  std::vector<int> times(tasks, 0);
  std::atomic<bool> in_range{true};
  native::parallel(tasks, [&](int task, int thread) {
    times[task]++;
    if (thread < 0 || thread >= 8) in_range = false;
  });
  for (int each : times)
    if (each != 1) return false;
  return in_range;
}

bool by_several_callers(int rounds) {
  std::atomic<bool> right{true};
  std::atomic<int> at_work{4};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; caller++)
    callers.emplace_back([&, caller] {
      for (int round = 0; round < rounds; round++)
        if (!all_done_once((caller * 7 + round) % 40)) right = false;
      at_work--;
    });
  for (int count = 0; at_work > 0; count = (count + 1) % 8) {
    native::set_num_threads(count + 1);
    std::this_thread::yield();
  }
  for (auto& caller : callers) caller.join();
  return right;
}

bool in_a_child() {
  native::set_num_threads(3);
  if (!all_done_once(100)) return false;
  const pid_t child = fork();
  if (child == 0) _exit(all_done_once(100) ? 0 : 1);
  int status = 1;
  return waitpid(child, &status, 0) == child && status == 0 && all_done_once(100);
}

}  // namespace

int main() {
  const bool right = by_several_callers(2000) && in_a_child();
  std::puts(right ? "right" : "wrong");
  return right ? 0 : 1;
}

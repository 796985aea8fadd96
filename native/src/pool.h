// One pool of workers for the process: asleep some milliseconds after its last work, and never more at work than cores.
#pragma once

#include <algorithm>
#include <functional>

#define NATIVE_API __attribute__((visibility("default")))

namespace native {

// Cores that this process may use, or fewer if `set_num_threads` said so.
NATIVE_API int num_threads();
NATIVE_API void set_num_threads(int count);

// Calls work(task, thread) for every task of 0 ... tasks - 1, each once, in any order, and returns when all are done.
// `thread` is below num_threads(). A caller that finds the pool at work for another does its tasks itself.
NATIVE_API void parallel(int tasks, const std::function<void(int, int)>& work);

// Calls work(first, last) for ranges of rows of `size` numbers, which do not depend on the number of threads.
template <typename Work>
void over_rows(long rows, long size, const Work& work) {
  constexpr long grain = 32768;
  const long step = std::max(1L, grain / std::max(1L, size));
  parallel(static_cast<int>((rows + step - 1) / step), [&](int task, int) {
    work(task * step, std::min(rows, (task + 1) * step));
  });
}

}  // namespace native

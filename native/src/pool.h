// One pool of workers for the process: asleep when unused, and never more at work than cores.
#pragma once

#include <functional>

#define NATIVE_API __attribute__((visibility("default")))

namespace native {

// Cores that this process may use, or fewer if `set_num_threads` said so.
NATIVE_API int num_threads();
NATIVE_API void set_num_threads(int count);

// Calls work(task, thread) for every task of 0 ... tasks - 1, each once, in any order, and returns when all are done.
// `thread` is below num_threads(). A caller that finds the pool at work for another does its tasks itself.
NATIVE_API void parallel(int tasks, const std::function<void(int, int)>& work);

}  // namespace native

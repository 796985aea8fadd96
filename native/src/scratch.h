// Memory that a thread works in and keeps for the next time.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>

namespace native {

// At least so many floats of the calling thread, on a cache line, with anything in them. Who needs several pieces at a
// time numbers them. A function, since a lambda on another thread would find a variable of its function not made yet.
template <int PIECE = 0>
float* scratch(long floats) {
  thread_local std::unique_ptr<float[], void (*)(float*)> memory{nullptr, [](float* p) { std::free(p); }};
  thread_local long size = 0;
  if (size < floats) {
    size = 0;
    memory.reset(static_cast<float*>(std::aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64)));
    if (memory == nullptr) throw std::bad_alloc();
    size = floats;
  }
  return memory.get();
}

}  // namespace native

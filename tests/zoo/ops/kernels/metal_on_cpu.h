// As much of the Metal Shading Language as our kernels use, for a C++ compiler: a kernel's text runs on the processor,
// thread by thread, with every access to an array checked. It is evidence of what the text computes, not of its speed,
// and not of Apple's compiler.
//
// The threads of a threadgroup are contexts of one thread of the processor. One runs until it comes to a barrier or to
// a function of its SIMD group, then the next one does. What two threads do to one number of threadgroup memory without
// a barrier between is an error, whatever the order that they ran in; so is a read of what nobody wrote.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

using std::exp;
using std::fabs;
using std::log;
inline float max(float first, float second) { return first > second ? first : second; }

struct Place {
  unsigned x, y, z;
};

namespace metal_on_cpu {

constexpr int kLanes = 32;

using real = float;

struct Thread {
  // Where it begins, and where it goes on: a jump asks the system for nothing, which a change of contexts does.
  ucontext_t context;
  jmp_buf place;
  std::vector<char> stack;
  bool begun = false, done = false;
  long barriers = 0;  // passed
  long exchanges = 0; // in its SIMD group
};

inline jmp_buf scheduler;
inline std::vector<Thread>* threads = nullptr;
inline int current = 0;
inline std::string problem;
// Values that lanes give each other: of two exchanges in turn, since none is further ahead than the next.
inline std::vector<float> given[2];

inline void fail(const std::string& what) {
  if (problem.empty()) problem = what;
}

// Apart, because a kernel checks hundreds of accesses and each would be compiled with the making of these texts.
[[gnu::noinline, gnu::cold]] inline void fail_at(const char* name, long index, long size) {
  fail(std::string(name) + "[" + std::to_string(index) + "] is outside of its " + std::to_string(size));
}
[[gnu::noinline, gnu::cold]] inline void fail_because(const char* what) { fail(what); }

inline void yield() {
  if (_setjmp((*threads)[current].place) == 0) _longjmp(scheduler, 1);
}

// Lets the current thread go on until it yields or ends.
inline void resume() {
  Thread& thread = (*threads)[current];
  if (_setjmp(scheduler) != 0) return;
  if (thread.begun) _longjmp(thread.place, 1);
  thread.begun = true;
  setcontext(&thread.context);
}

// Threads that wait for each other: none of them is further ahead than the next meeting. Whoever comes last opens it.
struct Meeting {
  long opened = 0;   // meetings so far
  int arrived = 0;   // at the next one
  int ended = 0;     // threads that come to none any more
};
inline Meeting all_threads;
inline std::vector<Meeting> lanes;  // of each SIMD group

inline void meet(Meeting& meeting, int size, const char* what_if_one_ended) {
  const long mine = meeting.opened + 1;
  if (++meeting.arrived == size) {
    meeting.arrived = 0;
    meeting.opened = mine;
  }
  while (meeting.opened < mine && problem.empty()) {
    if (meeting.ended > 0) fail(what_if_one_ended);
    else yield();
  }
}

inline void barrier() {
  ++(*threads)[current].barriers;
  meet(all_threads, threads->size(), "a thread ended while others wait at a barrier");
}

// The values of all lanes of this SIMD group.
inline const float* exchange(float value) {
  Thread& self = (*threads)[current];
  std::vector<float>& values = given[self.exchanges % 2];
  values[current] = value;
  ++self.exchanges;
  meet(lanes[current / kLanes], kLanes, "a lane ended while its SIMD group waits for it");
  return values.data() + current / kLanes * kLanes;
}

// An array of the device: bounds are checked, and what is written is noted.
template <typename T>
class Buffer {
 public:
  Buffer(T* data, long size, const char* name) : data_(data), size_(size), name_(name) {}

  T& operator[](long index) const {
    if (index < 0 || index >= size_) {
      fail_at(name_, index, size_);
      static T nothing{};
      return nothing;
    }
    return data_[index];
  }

 private:
  T* data_;
  long size_;
  const char* name_;
};

// A number of threadgroup memory, which knows who touched it since the last barrier.
class Cell {
 public:
  operator real() const {
    if (writer_ < 0) fail_because("threadgroup memory is read that nobody wrote");
    const long now = epoch();
    if (written_ == now && writer_ != current) fail_because("a race: a thread reads what another one wrote after the last barrier");
    if (read_ != now) {
      read_ = now;
      reader_ = current;
    } else if (reader_ != current) {
      reader_ = kSeveral;
    }
    return value_;
  }

  Cell& operator=(float value) {
    const long now = epoch();
    const bool read_by_other = read_ == now && reader_ != current;
    const bool written_by_other = written_ == now && writer_ != current;
    if (read_by_other || written_by_other) fail_because("a race: a thread writes what another one used after the last barrier");
    value_ = value;
    writer_ = current;
    written_ = now;
    return *this;
  }

 private:
  static constexpr int kSeveral = -2;
  static long epoch() { return (*threads)[current].barriers; }

  float value_ = 0;
  int writer_ = -1;
  mutable int reader_ = -1;
  long written_ = -1;
  mutable long read_ = -1;
};

// A number of a thread's own, which knows whether it was set.
class Number {
 public:
  Number() = default;
  template <typename T>
  Number(const T& value) : value_(static_cast<real>(value)), is_set_(true) {}

  operator real() const {
    if (!is_set_) fail_because("a variable is read that was never set");
    return value_;
  }
  Number& operator+=(real value) { return *this = *this + value; }
  Number& operator*=(real value) { return *this = *this * value; }

 private:
  real value_ = 0;
  bool is_set_ = false;
};

class Memory {
 public:
  Cell& operator[](long index) {
    if (index < 0 || index >= static_cast<long>(cells_.size())) {
      fail_at("staged", index, cells_.size());
      return cells_[0];
    }
    return cells_[index];
  }
  void reset(long size) { cells_.assign(size, Cell()); }

 private:
  std::vector<Cell> cells_;
};

inline Memory memory;

// Runs a kernel's body for every thread of the grid; returns what went wrong, or nothing.
template <typename Body>
const char* run(int threads_of_group, int groups_x, int groups_y, int groups_z, long memory_size, Body body) {
  static constexpr size_t kStack = 1 << 16;
  static Body* running;
  static Place group;
  problem.clear();
  running = &body;
  std::vector<Thread> all(threads_of_group);
  threads = &all;
  for (std::vector<float>& each : given) each.assign(threads_of_group, 0);
  for (int z = 0; z < groups_z; ++z) {
    for (int y = 0; y < groups_y; ++y) {
      for (int x = 0; x < groups_x; ++x) {
        group = {unsigned(x), unsigned(y), unsigned(z)};
        memory.reset(memory_size);
        all_threads = Meeting();
        lanes.assign(threads_of_group / kLanes, Meeting());
        for (Thread& each : all) {
          each.stack.resize(kStack);
          each.begun = each.done = false;
          each.barriers = each.exchanges = 0;
          getcontext(&each.context);
          each.context.uc_stack.ss_sp = each.stack.data();
          each.context.uc_stack.ss_size = kStack;
          each.context.uc_link = nullptr;
          makecontext(&each.context, [] {
            (*running)(Place{unsigned(current), 0, 0}, current % kLanes, current / kLanes, group);
            (*threads)[current].done = true;
            ++all_threads.ended;
            ++lanes[current / kLanes].ended;
            _longjmp(scheduler, 1);
          }, 0);
        }
        for (bool left = true; left && problem.empty();) {
          left = false;
          for (current = 0; current < threads_of_group && problem.empty(); ++current) {
            if (!all[current].done) {
              left = true;
              resume();
            }
          }
        }
        if (!problem.empty()) return problem.c_str();
      }
    }
  }
  return problem.c_str();
}

}  // namespace metal_on_cpu

enum class mem_flags { mem_threadgroup };
inline void threadgroup_barrier(mem_flags) { metal_on_cpu::barrier(); }

inline float simd_shuffle(float value, int lane) { return metal_on_cpu::exchange(value)[lane]; }
inline float simd_sum(float value) {
  const float* values = metal_on_cpu::exchange(value);
  float sum = 0;
  for (int lane = 0; lane < metal_on_cpu::kLanes; ++lane) sum += values[lane];
  return sum;
}
inline float simd_max(float value) {
  const float* values = metal_on_cpu::exchange(value);
  return *std::max_element(values, values + metal_on_cpu::kLanes);
}

#define float metal_on_cpu::Number
// The kernels declare their one array of threadgroup memory in this form.
#define SHARED(type, name, count)                       \
  metal_on_cpu::Memory& name = metal_on_cpu::memory;    \
  static_assert((count) <= metal_on_cpu_memory_size, "the memory of a threadgroup")

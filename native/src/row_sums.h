// Sums of exponentials along a row, for what is compiled once for each instruction set.
#pragma once

#include "simd.h"

namespace NATIVE_ISA {
namespace {

// Vectors at work side by side, and numbers between two additions to a float64.
constexpr int ABREAST = 4;
constexpr long BLOCK = 1024;

// `lanes` numbers, and in the others what neither raises a maximum nor a sum of exponentials.
NATIVE_INLINE Vec load_or_lowest(const float* from, long lanes) {
  Vec v = splat(-__builtin_inff());
  __builtin_memcpy(&v, from, sizeof(float) * lanes);
  return v;
}

float maximum(const float* row, long V) {
  Vec high[ABREAST];
  for (auto& each : high) each = splat(-__builtin_inff());
  long v = 0;
  for (; v + ABREAST * W <= V; v += ABREAST * W)
    for (int i = 0; i < ABREAST; i++) high[i] = vmax(load(row + v + i * W), high[i]);
  for (; v < V; v += W) high[0] = vmax(load_or_lowest(row + v, least<long>(W, V - v)), high[0]);
  const Vec highest = vmax(vmax(high[0], high[1]), vmax(high[2], high[3]));
  float peak = highest[0];
  for (int i = 1; i < W; i++) peak = highest[i] > peak ? highest[i] : peak;
  return peak;
}

// A sum of exponentials in which those that are 1 are counted, so that one of them can be left out exactly.
struct Sum {
  Vec rest[ABREAST] = {};
  Ints ones[ABREAST] = {};

  void add(int i, Vec weight) {
    const Ints is_one = weight == 1.0f;
    rest[i] += (Vec)((Ints)weight & ~is_one);
    ones[i] -= is_one;
  }

  void finish(double& total, double& count) const {
    const Vec sums = (rest[0] + rest[1]) + (rest[2] + rest[3]);
    const Ints counts = (ones[0] + ones[1]) + (ones[2] + ones[3]);
    for (int i = 0; i < W; i++) {
      total += sums[i];
      count += counts[i];
    }
  }
};

// The sum of exp(row - peak), less one.
double other_weights(const float* row, long V, float peak) {
  double rest = 0, ones = 0;
  for (long start = 0; start < V; start += BLOCK) {
    const long end = least(V, start + BLOCK);
    Sum sum;
    long v = start;
    for (; v + ABREAST * W <= end; v += ABREAST * W)
      for (int i = 0; i < ABREAST; i++) sum.add(i, exp(load(row + v + i * W) - peak));
    for (; v < end; v += W) sum.add(0, exp(load_or_lowest(row + v, least<long>(W, end - v)) - peak));
    sum.finish(rest, ones);
  }
  return rest + (ones - 1);
}

// factor * exp(row - peak); `to` may be the row.
void scale_exponentials(const float* row, float* to, long V, float peak, float factor) {
  long v = 0;
  for (; v + W <= V; v += W) store(to + v, exp(load(row + v) - peak) * factor);
  if (v < V) store_some(to + v, exp(load_or_lowest(row + v, V - v) - peak) * factor, static_cast<int>(V - v));
}

}  // namespace
}  // namespace NATIVE_ISA

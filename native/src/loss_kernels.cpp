// Cross-entropy of rows of logits, compiled once for each instruction set.
//
// A row is read twice forward, for its maximum and for its sum, the second time from the cache. The gradient computes
// the exponentials again: they cost less than to store the softmax and to read it back.

#include "loss.h"
#include "simd.h"

namespace NATIVE_ISA {
namespace {

using native::Normalisers;
using native::Predictions;

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

bool is_token(const Predictions& p, int target) {
  return target >= 0 && target < p.V;
}

void forward(const Predictions& p, const Normalisers& n, float* nats, long first, long last) {
  for (long row = first; row < last; row++) {
    const float* logits = p.logits + row * p.V;
    const float peak = maximum(logits, p.V);
    const double others = other_weights(logits, p.V, peak);
    n.peaks[row] = peak;
    n.others[row] = static_cast<float>(others);
    const int target = p.targets[row];
    const double below = is_token(p, target) ? static_cast<double>(peak) - logits[target] : __builtin_nan("");
    nats[row] = static_cast<float>(__builtin_log1p(others) + below);
  }
}

void scale_exponentials(const float* logits, float* gradient, long V, float peak, float factor) {
  long v = 0;
  for (; v + W <= V; v += W) store(gradient + v, exp(load(logits + v) - peak) * factor);
  if (v < V) store_some(gradient + v, exp(load_or_lowest(logits + v, V - v) - peak) * factor, static_cast<int>(V - v));
}

void backward(
    const Predictions& p, const Normalisers& n, const float* cotangents, float* gradient, long first, long last) {
  for (long row = first; row < last; row++) {
    const float* logits = p.logits + row * p.V;
    float* out = gradient + row * p.V;
    const float peak = n.peaks[row], cotangent = cotangents[row];
    const double others = n.others[row], sum = 1 + others;
    const int target = p.targets[row];
    if (!is_token(p, target)) {
      for (long v = 0; v < p.V; v++) out[v] = __builtin_nanf("");
      continue;
    }
    // Of a token that does not count, as padding: the exponentials are not needed. Infinite or NaN rows are.
    if (cotangent == 0.0f && others - others == 0.0) {
      for (long v = 0; v < p.V; v++) out[v] = 0.0f;
      continue;
    }
    const double weight = exp(splat(logits[target] - peak))[0];
    const double share = weight == 1.0 ? -others / sum : weight / sum - 1;
    scale_exponentials(logits, out, p.V, peak, static_cast<float>(cotangent / sum));
    out[target] = static_cast<float>(share * cotangent);
  }
}

}  // namespace

extern const native::LossKernels loss;
const native::LossKernels loss = {forward, backward};

}  // namespace NATIVE_ISA

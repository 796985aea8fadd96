// Cross-entropy of rows of logits, compiled once for each instruction set.
//
// A row is read twice forward, for its maximum and for its sum, the second time from the cache. The gradient computes
// the exponentials again: they cost less than to store the softmax and to read it back.

#include "loss.h"
#include "row_sums.h"

namespace NATIVE_ISA {
namespace {

using native::Normalisers;
using native::Predictions;

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

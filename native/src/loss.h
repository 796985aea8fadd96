// What the kernels of the losses take. Letters: P predicted positions, V vocabulary.
#pragma once

#include <cstdint>

namespace native {

// Logits [P, V] without gaps, and the target of each row.
struct Predictions {
  const float* logits;
  const int32_t* targets;
  long V;
};

// Of each row: the largest logit, and the sum of exp(logit - peak) but for one logit that is the peak. So 1 + others is
// the whole sum, and a nearly certain row loses no digits.
struct Normalisers {
  float *peaks, *others;
};

struct LossKernels {
  // Nats and normalisers of rows first ... last - 1.
  void (*forward)(const Predictions&, const Normalisers&, float* nats, long first, long last);
  // (softmax - onehot) * cotangent of these rows; `gradient` may be the logits.
  void (*backward)(
      const Predictions&, const Normalisers&, const float* cotangents, float* gradient, long first, long last);
};

const LossKernels& loss_kernels();

}  // namespace native

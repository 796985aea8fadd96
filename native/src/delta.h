// What the kernels of the gated delta rule take, of every instruction set.
//
// Letters: B batch, L length, N heads, H head_dim, T tokens of a chunk, C chunks.
#pragma once

#include "attention.h"

namespace native {

struct Strides3 {
  long batch, head, row;
};

struct Delta {
  int B, N, L, H, T;
  // [B, N, L, H] and [B, N, L], with any strides.
  const float *q, *k, *v, *gamma, *beta;
  Strides4 q_strides, k_strides, v_strides;
  Strides3 gamma_strides, beta_strides;
  // [B, N, H, H], values by keys.
  const float* state;
};

struct DeltaOutputs {
  float* y;
  Strides4 y_strides;
  // [B, N, H, H] after the last token, and [B, N, C, H, padded H], keys by values, before each chunk.
  float *state, *before;
};

struct DeltaGradients {
  const float *before, *dy, *dlast;
  Strides4 dy_strides;
  // dq, dk and dv are [B, L, N, H] in memory; dgamma and dbeta [B, N, L]; dstate [B, N, H, H].
  float *dq, *dk, *dv, *dgamma, *dbeta, *dstate;
};

struct DeltaKernels {
  // Floats of scratch memory that a thread needs, and numbers in a row of `before`.
  long (*scratch_floats)(const Delta&);
  int (*row_floats)(int H);
  // All tokens of a head.
  void (*forward)(const Delta&, const DeltaOutputs&, int b, int n, float* scratch);
  void (*backward)(const Delta&, const DeltaGradients&, int b, int n, float* scratch);
};

const DeltaKernels& delta_kernels();

}  // namespace native

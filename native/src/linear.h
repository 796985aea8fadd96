// What the kernels of linear attention take, of every instruction set.
//
// Letters: B batch, L length, N query heads, K key/value heads, G = N / K queries per key/value head, H head_dim,
// T tokens of a chunk.
#pragma once

#include "attention.h"

namespace native {

enum class Features { elu_plus_one, relu, squared_relu };

// Tokens that are computed together, of one document; `fresh` if they begin one.
struct Chunk {
  int first, count;
  bool fresh;
};

// The chunks of a row of the batch.
struct ChunkList {
  const Chunk* chunks;
  int count;
};

struct Linear {
  int B, N, K, L, H, T;
  Features features;
  float eps;
  // [B, N, L, H] and [B, K, L, H], with any strides.
  const float *q, *k, *v;
  Strides4 q_strides, k_strides, v_strides;
  // [B, K, H, H + 1]: the sums of phi(k) and a value with a 1 behind it before the first token; null for zeros.
  const float* state;
};

struct LinearOutputs {
  float* y;
  Strides4 y_strides;
  // [B, N, L]: the denominators, eps included.
  float* denominators;
  // [B, K, H, H + 1] after the last token.
  float* state;
};

struct LinearGradients {
  const float *y, *denominators, *dy;
  Strides4 y_strides, dy_strides;
  // Of the state after the last token.
  const float* dlast;
  // dq is [B, L, N, H] in memory, dk and dv are [B, L, K, H]; dstate is null where no state was given.
  float *dq, *dk, *dv, *dstate;
};

struct LinearKernels {
  // Floats of scratch memory that a thread needs.
  long (*scratch_floats)(const Linear&);
  // The query heads of a group.
  void (*forward)(const Linear&, const LinearOutputs&, const ChunkList&, int b, int group, float* scratch);
  // dq of a query head.
  void (*of_queries)(const Linear&, const LinearGradients&, const ChunkList&, int b, int n, float* scratch);
  // dk, dv and dstate of a group.
  void (*of_keys)(const Linear&, const LinearGradients&, const ChunkList&, int b, int group, float* scratch);
};

const LinearKernels& linear_kernels();

}  // namespace native

// What the attention kernels of every instruction set take.
//
// Letters: B batch, L query length, S key length, N query heads, K key/value heads, G = N / K queries per key/value
// head, H head_dim, T queries of a tile, U keys of a tile.
#pragma once

#include <cstdint>

namespace native {

struct Strides4 {
  long batch, head, row, column;
};

struct Attention {
  int B, N, K, L, S, H;
  float scale;
  // [B, N, L, H] and [B, K, S, H], with any strides.
  const float *q, *k, *v;
  Strides4 q_strides, k_strides, v_strides;
  // Tiles that hold an allowed pair, row after row: `kinds` is 0 where every pair is allowed, else 1 + the number of a
  // mask in `masks`, uint8 [number of masks, U, T].
  int T, U;
  const int32_t *row_starts, *columns, *kinds;
  const uint8_t* masks;
  // uint8 [1 or B, S, L] instead of masks, or null; and so with all that follows.
  const uint8_t* dense;
  long dense_batch;
  // int32 [B] and [B, L].
  const int32_t *lengths, *segments;
  // float32 [N], with int32 positions [1 or B, L] and [1 or B, S].
  const float* slopes;
  const int32_t *query_positions, *key_positions;
  long query_positions_batch, key_positions_batch;
  // float32 [N]: the logit of a virtual key without a value.
  const float* sinks;
};

// float32; y has any strides, log_sums is [B, N, L], of 2^score.
struct Outputs {
  float* y;
  Strides4 y_strides;
  float* log_sums;
};

// dq is [B, L, N, H] in memory, dk and dv are [B, S, K, H]: as the projections before them take their gradients.
struct Gradients {
  const float *y, *dy, *log_sums;
  Strides4 y_strides, dy_strides;
  float *dq, *dk, *dv;
};

// Where a group of heads adds its dk and dv: [S, H] each, rows `row` apart.
struct GradientSums {
  float *dk, *dv;
  long row;
};

struct AttentionKernels {
  const char* name;
  // Floats of scratch memory that a thread needs.
  long (*scratch_floats)(const Attention&);
  // The queries of one tile, of one head.
  void (*forward)(const Attention&, const Outputs&, int b, int n, int row, float* scratch);
  // One query of each head of a group; L must be 1.
  void (*decode)(const Attention&, const Outputs&, int b, int group, float* scratch);
  // Query tiles first_row ... last_row - 1 of the heads of a group: writes their dq, adds to dk and dv.
  void (*backward)(
      const Attention&, const Gradients&, int b, int group, int first_row, int last_row, const GradientSums&,
      float* scratch);
};

// The fastest that this processor runs; the environment's ATTENTION_ZOO_NATIVE_ISA names another.
const AttentionKernels& attention_kernels();

}  // namespace native

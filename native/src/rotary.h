// What the kernels of rotary positions take, of every instruction set.
//
// Letters: B batch, L length, N heads, H head_dim.
#pragma once

#include <cstdint>

namespace native {

struct Rotary {
  int B, N, L, H;
  bool traditional;
  // 1 forward, -1 to turn back, which is the gradient.
  float direction;
  // [B, N, L, H]; the last stride of y is 1.
  const float* x;
  long x_batch, x_head, x_row, x_column;
  float* y;
  long y_batch, y_head, y_row;
  // float64 [H / 2] and zeros up to a multiple of 16: the angle per position of each pair.
  const double* frequencies;
  // Position of row 0, of each of `num_offsets` rows of the batch: B, or 1 for all.
  const int32_t* offsets;
  int num_offsets;
};

struct RotaryKernels {
  // Floats of scratch memory of a task.
  long (*scratch_floats)(const Rotary&);
  // Positions first ... last - 1 of the rows of the batch that have an offset.
  void (*turn)(const Rotary&, int offset, int first, int last, float* scratch);
};

const RotaryKernels& rotary_kernels();

}  // namespace native

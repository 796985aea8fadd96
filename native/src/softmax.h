// What the kernels of softmax and of log-sum-exp take: rows first ... last - 1 of [R, V] without gaps.
#pragma once

namespace native {

struct SoftmaxKernels {
  // `scales` multiply each row's softmax; null for 1. `y` may be `x`.
  void (*softmax)(const float* x, const float* scales, float* y, long V, long first, long last);
  // dx of y = softmax(x); it may be `y` or `dy`.
  void (*softmax_backward)(const float* y, const float* dy, float* dx, long V, long first, long last);
  void (*log_sum_exp)(const float* x, float* y, long V, long first, long last);
};

const SoftmaxKernels& softmax_kernels();

}  // namespace native

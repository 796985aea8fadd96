// What the kernels of optimizers take.
#pragma once

namespace native {

// Arrays of a parameter, all with the same numbers in the same order but perhaps the gradient, and those that become
// of them, which may be the same.
struct Update {
  const float *parameter, *gradient, *mean, *square;
  float *new_parameter, *new_mean, *new_square;
  // Of the gradient; of the parameter, for weight decay.
  float scale, keep;
  float beta1, rest1, beta2, rest2;
  // The learning rate, for AdamW divided by the first mean's bias; one over the root of the second one's.
  float rate, root;
  float eps;
};

struct UpdateKernels {
  // Numbers first ... last - 1.
  void (*adamw)(const Update&, long first, long last);
  void (*lion)(const Update&, long first, long last);
  // Rows first ... last - 1 of a matrix [R, C] whose gradient is stored as [C, R].
  void (*adamw_transposed)(const Update&, long R, long C, long first, long last);
  void (*lion_transposed)(const Update&, long R, long C, long first, long last);
  double (*sum_of_squares)(const float*, long count);
};

const UpdateKernels& update_kernels();

}  // namespace native

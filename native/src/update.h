// What the kernels of optimizers take.
#pragma once

namespace native {

// Arrays of a parameter, all with the same numbers in the same order but perhaps the gradient, and those that become
// of them, which may be the same. Muon has a direction where others have a new parameter; to follow it is a step too.
struct Update {
  const float *parameter, *gradient, *mean, *square;
  float *new_parameter, *new_mean, *new_square;
  // Of the gradient; of the parameter, for weight decay, and what Muon adds of it to the gradient.
  float scale, keep, decay;
  float beta1, rest1, beta2, rest2;
  // The learning rate, for AdamW divided by the first mean's bias; one over the root of the second one's.
  float rate, root;
  float eps;
};

// Numbers first ... last - 1, and rows first ... last - 1 of a matrix [R, C] whose gradient is stored as [C, R].
struct StepKernels {
  void (*flat)(const Update&, long first, long last);
  void (*transposed)(const Update&, long R, long C, long first, long last);
};

struct UpdateKernels {
  StepKernels adamw, lion, muon, descent;
  double (*sum_of_squares)(const float*, long count);
};

const UpdateKernels& update_kernels();

}  // namespace native

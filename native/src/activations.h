// What the kernels of activations take, of every instruction set.
#pragma once

namespace native {

enum class Activation { gelu, gelu_tanh, silu };

// Arrays of `count` float32; results may take the place of arguments.
struct ActivationKernels {
  void (*forward)(Activation, const float* x, float* y, long count);
  void (*backward)(Activation, const float* x, const float* dy, float* dx, long count);
  void (*swiglu)(const float* gate, const float* up, float* y, long count);
  void (*swiglu_backward)(
      const float* gate, const float* up, const float* dy, float* dgate, float* dup, long count);
};

const ActivationKernels& activation_kernels();

}  // namespace native

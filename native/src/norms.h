// What the kernels of norms take, of every instruction set.
#pragma once

namespace native {

// Rows of `size` float32 without gaps; weight and bias [size], or null.
struct Norm {
  const float *x, *weight, *bias;
  long size;
  float eps;
};

// dx may take the place of x or dy. dweight and dbias [size] are added to, where they are not null.
struct NormGradients {
  const float* dy;
  float *dx, *dweight, *dbias;
};

// Rows first ... last - 1; y may take the place of x.
struct NormKernels {
  void (*rms)(const Norm&, float* y, long first, long last);
  void (*rms_backward)(const Norm&, const NormGradients&, long first, long last);
  void (*layer)(const Norm&, float* y, long first, long last);
  void (*layer_backward)(const Norm&, const NormGradients&, long first, long last);
};

const NormKernels& norm_kernels();

}  // namespace native

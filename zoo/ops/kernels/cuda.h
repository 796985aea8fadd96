// Words for a device's memory and threads, in CUDA.
#define SHARED(type, name, count) __shared__ type name[count]
#define BARRIER __syncthreads()

__device__ inline float simd_shuffle(float value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }

__device__ inline float simd_sum(float value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

__device__ inline float simd_max(float value) {
  for (int offset = 16; offset > 0; offset /= 2) value = max(value, __shfl_xor_sync(0xffffffffu, value, offset));
  return value;
}

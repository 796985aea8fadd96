"""Kernels for GPUs: one text, which `mx.fast.metal_kernel` and `mx.fast.cuda_kernel` compile.

`attention.h` holds the steps that the three kernels of `*.body` files are made of; `metal.h` and `cuda.h` say what the
words for a device's threads and memory are.
"""

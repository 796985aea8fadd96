// The kernels of the chosen instruction set, which the primitives call.

#include "isa.h"
#include "activations.h"
#include "attention.h"
#include "delta.h"
#include "linear.h"
#include "loss.h"
#include "norms.h"
#include "rotary.h"
#include "softmax.h"
#include "update.h"

NATIVE_TABLE(AttentionKernels, attention_kernels, attention)
NATIVE_TABLE(DeltaKernels, delta_kernels, delta)
NATIVE_TABLE(LinearKernels, linear_kernels, linear)
NATIVE_TABLE(LossKernels, loss_kernels, loss)
NATIVE_TABLE(UpdateKernels, update_kernels, update)
NATIVE_TABLE(ActivationKernels, activation_kernels, activations)
NATIVE_TABLE(NormKernels, norm_kernels, norms)
NATIVE_TABLE(RotaryKernels, rotary_kernels, rotary)
NATIVE_TABLE(SoftmaxKernels, softmax_kernels, softmax_rows)

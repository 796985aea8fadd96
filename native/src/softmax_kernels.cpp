// Softmax and log-sum-exp of rows, compiled once for each instruction set.

#include "row_sums.h"
#include "softmax.h"

namespace NATIVE_ISA {
namespace {

void softmax(const float* x, const float* scales, float* y, long V, long first, long last) {
  for (long row = first; row < last; row++) {
    const float* from = x + row * V;
    const float peak = maximum(from, V);
    const double sum = 1 + other_weights(from, V, peak);
    const double scale = scales == nullptr ? 1.0 : scales[row];
    scale_exponentials(from, y + row * V, V, peak, static_cast<float>(scale / sum));
  }
}

double dot(const float* a, const float* b, long V) {
  double total = 0;
  for (long start = 0; start < V; start += BLOCK) {
    const long end = least(V, start + BLOCK);
    Vec sums[ABREAST] = {};
    long v = start;
    for (; v + ABREAST * W <= end; v += ABREAST * W)
      for (int i = 0; i < ABREAST; i++) sums[i] += load(a + v + i * W) * load(b + v + i * W);
    for (; v + W <= end; v += W) sums[0] += load(a + v) * load(b + v);
    if (v < end) {
      const int lanes = static_cast<int>(end - v);
      sums[1] += load_some(a + v, lanes) * load_some(b + v, lanes);
    }
    total += sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  }
  return total;
}

void softmax_backward(const float* y, const float* dy, float* dx, long V, long first, long last) {
  for (long row = first; row < last; row++) {
    const float *weights = y + row * V, *slopes = dy + row * V;
    float* to = dx + row * V;
    const Vec mean = splat(static_cast<float>(dot(weights, slopes, V)));
    long v = 0;
    for (; v + W <= V; v += W) store(to + v, load(weights + v) * (load(slopes + v) - mean));
    if (v == V) continue;
    const int lanes = static_cast<int>(V - v);
    store_some(to + v, load_some(weights + v, lanes) * (load_some(slopes + v, lanes) - mean), lanes);
  }
}

void log_sum_exp(const float* x, float* y, long V, long first, long last) {
  for (long row = first; row < last; row++) {
    const float* from = x + row * V;
    const float peak = maximum(from, V);
    // Of nothing but -infinity, or of infinity; with NaN in the row the sum below is NaN.
    const bool is_infinite = peak - peak != 0.0f && peak == peak;
    const double others = other_weights(from, V, is_infinite ? 0.0f : peak);
    y[row] = is_infinite && others == others ? peak : static_cast<float>(peak + __builtin_log1p(others));
  }
}

}  // namespace

extern const native::SoftmaxKernels softmax_rows;
const native::SoftmaxKernels softmax_rows = {softmax, softmax_backward, log_sum_exp};

}  // namespace NATIVE_ISA

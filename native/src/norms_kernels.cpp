// RMSNorm and LayerNorm with their gradients, compiled once for each instruction set.
//
//     rms:    n = 1 / sqrt(mean(x^2) + eps)                 h = x n
//     layer:  n = 1 / sqrt(mean((x - mean x)^2) + eps)      h = (x - mean x) n
//     y = h w + b      with g = dy w:   dx = n (g - [mean g] - h mean(g h))      dw = sum dy h      db = sum dy
//
// the mean of g in brackets for the layer's alone. Statistics are computed anew backward; nothing is kept. A row whose
// sums could leave float32, or become denormal, is computed in float64 instead, number by number.

#include "norms.h"
#include "simd.h"

namespace NATIVE_ISA {
namespace {

using native::Norm;
using native::NormGradients;

// Numbers that are summed in float32 before the sum is added to one in float64.
constexpr long BLOCK = 1024;

// Of mean squares and mean products; n, n^2 and their products with anything like x and dy stay in float32.
constexpr double SMALLEST = 1e-12, LARGEST = 1e12;

bool ordinary(double mean_square) {
  return mean_square > SMALLEST && mean_square < LARGEST;
}

bool ordinary_or_zero(double mean_product) {
  const double size = __builtin_fabs(mean_product);
  return size == 0 || (size > 1e-20 && size < 1e20);
}

template <int K>
struct Terms {
  Vec of[K];
};

// Sums over a row of the K terms that terms(i, lanes) gives for the numbers i ... i + lanes - 1; 0 beyond.
template <int K, typename F>
NATIVE_INLINE void add_up(long size, double (&totals)[K], F terms) {
  constexpr int CHAINS = K == 1 ? 4 : 2;
  for (int k = 0; k < K; k++) totals[k] = 0;
  for (long first = 0; first < size; first += BLOCK) {
    const long end = first + BLOCK < size ? first + BLOCK : size;
    Vec sums[CHAINS][K] = {};
    long i = first;
    for (; i + CHAINS * W <= end; i += CHAINS * W)
      for (int chain = 0; chain < CHAINS; chain++) {
        const Terms<K> t = terms(i + chain * W, W);
        for (int k = 0; k < K; k++) sums[chain][k] += t.of[k];
      }
    for (; i < end; i += W) {
      const Terms<K> t = terms(i, end - i < W ? end - i : W);
      for (int k = 0; k < K; k++) sums[0][k] += t.of[k];
    }
    for (int k = 0; k < K; k++)
      for (int chain = 0; chain < CHAINS; chain++) totals[k] += sum(sums[chain][k]);
  }
}

// Calls work(i, lanes) for a row, in vectors.
template <typename F>
NATIVE_INLINE void through(long size, F work) {
  long i = 0;
  for (; i + W <= size; i += W) work(i, W);
  if (i < size) work(i, size - i);
}

NATIVE_INLINE Vec weight_at(const Norm& a, long i, int lanes) {
  return a.weight == nullptr ? splat(1.0f) : load_some(a.weight + i, lanes);
}

double slow_weight(const Norm& a, long i) {
  return a.weight == nullptr ? 1.0 : a.weight[i];
}

// Mean, which is 0 for RMSNorm, and n of a row, in float64.
struct Statistics {
  double mean, n;
};

Statistics slow_statistics(const Norm& a, const float* x, bool centred) {
  double mean = 0, square = 0;
  if (centred)
    for (long i = 0; i < a.size; i++) mean += x[i];
  mean /= a.size;
  for (long i = 0; i < a.size; i++) square += (x[i] - mean) * (x[i] - mean);
  return {mean, 1 / __builtin_sqrt(square / a.size + a.eps)};
}

void slow_row(const Norm& a, const float* x, float* y, bool centred) {
  const Statistics s = slow_statistics(a, x, centred);
  for (long i = 0; i < a.size; i++) {
    const double bias = a.bias == nullptr ? 0.0 : a.bias[i];
    y[i] = static_cast<float>((x[i] - s.mean) * s.n * slow_weight(a, i) + bias);
  }
}

void slow_row_backward(const Norm& a, const NormGradients& g, const float* x, const float* dy, float* dx, bool centred) {
  const Statistics s = slow_statistics(a, x, centred);
  double mean = 0, product = 0;
  for (long i = 0; i < a.size; i++) {
    const double scaled = dy[i] * slow_weight(a, i);
    if (centred) mean += scaled;
    product += scaled * ((x[i] - s.mean) * s.n);
  }
  mean /= a.size;
  product /= a.size;
  for (long i = 0; i < a.size; i++) {
    const double h = (x[i] - s.mean) * s.n, scaled = dy[i] * slow_weight(a, i);
    if (g.dweight != nullptr) g.dweight[i] += static_cast<float>(dy[i] * h);
    if (g.dbias != nullptr) g.dbias[i] += dy[i];
    dx[i] = static_cast<float>(s.n * (scaled - mean - h * product));
  }
}

void rms(const Norm& a, float* y, long first, long last) {
  for (long row = first; row < last; row++) {
    const float* x = a.x + row * a.size;
    float* out = y + row * a.size;
    double square[1];
    add_up(a.size, square, [&](long i, int lanes) {
      const Vec v = load_some(x + i, lanes);
      return Terms<1>{{v * v}};
    });
    square[0] /= a.size;
    if (!ordinary(square[0])) {
      slow_row(a, x, out, false);
      continue;
    }
    const float n = static_cast<float>(1 / __builtin_sqrt(square[0] + a.eps));
    through(a.size, [&](long i, int lanes) {
      store_some(out + i, load_some(x + i, lanes) * n * weight_at(a, i, lanes), lanes);
    });
  }
}

void rms_backward(const Norm& a, const NormGradients& g, long first, long last) {
  for (long row = first; row < last; row++) {
    const float *x = a.x + row * a.size, *dy = g.dy + row * a.size;
    float* dx = g.dx + row * a.size;
    double means[2];
    add_up(a.size, means, [&](long i, int lanes) {
      const Vec v = load_some(x + i, lanes);
      return Terms<2>{{v * v, load_some(dy + i, lanes) * weight_at(a, i, lanes) * v}};
    });
    means[0] /= a.size;
    means[1] /= a.size;
    if (!ordinary(means[0]) || !ordinary_or_zero(means[1])) {
      slow_row_backward(a, g, x, dy, dx, false);
      continue;
    }
    const double exact = 1 / __builtin_sqrt(means[0] + a.eps);
    const float n = static_cast<float>(exact), shared = static_cast<float>(means[1] * exact * exact);
    through(a.size, [&](long i, int lanes) {
      const Vec v = load_some(x + i, lanes), d = load_some(dy + i, lanes);
      if (g.dweight != nullptr) store_some(g.dweight + i, load_some(g.dweight + i, lanes) + d * (v * n), lanes);
      store_some(dx + i, n * (d * weight_at(a, i, lanes) - v * shared), lanes);
    });
  }
}

// A first estimate of the mean, which float32 holds, and what is missing. Differences from the first are nearly free
// of rounding errors, whatever the mean.
struct Centre {
  float first, rest;
};

NATIVE_INLINE Vec centred(const float* x, Centre centre, int lanes) {
  return (load_some(x, lanes) - centre.first) - centre.rest;
}

float first_mean(const float* x, long size) {
  double total[1];
  add_up(size, total, [&](long i, int lanes) { return Terms<1>{{load_some(x + i, lanes)}}; });
  return static_cast<float>(total[0] / size);
}

// x - first in the lanes that there are, 0 in the others.
NATIVE_INLINE Vec difference(const float* x, float first, int lanes) {
  const Vec d = load_some(x, lanes) - first;
  if (lanes == W) return d;
  float kept[W] = {};
  store_some(kept, d, lanes);
  return load(kept);
}

void layer(const Norm& a, float* y, long first, long last) {
  for (long row = first; row < last; row++) {
    const float* x = a.x + row * a.size;
    float* out = y + row * a.size;
    const float estimate = first_mean(x, a.size);
    double means[2];
    add_up(a.size, means, [&](long i, int lanes) {
      const Vec d = difference(x + i, estimate, lanes);
      return Terms<2>{{d, d * d}};
    });
    means[0] /= a.size;
    const double variance = means[1] / a.size - means[0] * means[0];
    if (!ordinary(variance)) {
      slow_row(a, x, out, true);
      continue;
    }
    const Centre centre = {estimate, static_cast<float>(means[0])};
    const float n = static_cast<float>(1 / __builtin_sqrt(variance + a.eps));
    through(a.size, [&](long i, int lanes) {
      const Vec h = centred(x + i, centre, lanes) * n * weight_at(a, i, lanes);
      store_some(out + i, a.bias == nullptr ? h : h + load_some(a.bias + i, lanes), lanes);
    });
  }
}

void layer_backward(const Norm& a, const NormGradients& g, long first, long last) {
  for (long row = first; row < last; row++) {
    const float *x = a.x + row * a.size, *dy = g.dy + row * a.size;
    float* dx = g.dx + row * a.size;
    const float estimate = first_mean(x, a.size);
    double means[4];
    add_up(a.size, means, [&](long i, int lanes) {
      const Vec d = difference(x + i, estimate, lanes), scaled = load_some(dy + i, lanes) * weight_at(a, i, lanes);
      return Terms<4>{{d, d * d, scaled, scaled * d}};
    });
    for (double& mean : means) mean /= a.size;
    const double variance = means[1] - means[0] * means[0], product = means[3] - means[0] * means[2];
    if (!ordinary(variance) || !ordinary_or_zero(means[2]) || !ordinary_or_zero(product)) {
      slow_row_backward(a, g, x, dy, dx, true);
      continue;
    }
    const Centre centre = {estimate, static_cast<float>(means[0])};
    const double exact = 1 / __builtin_sqrt(variance + a.eps);
    const float n = static_cast<float>(exact), shared = static_cast<float>(product * exact * exact);
    const float mean = static_cast<float>(means[2]);
    through(a.size, [&](long i, int lanes) {
      const Vec d = load_some(dy + i, lanes), c = centred(x + i, centre, lanes);
      if (g.dweight != nullptr) store_some(g.dweight + i, load_some(g.dweight + i, lanes) + d * (c * n), lanes);
      if (g.dbias != nullptr) store_some(g.dbias + i, load_some(g.dbias + i, lanes) + d, lanes);
      store_some(dx + i, n * ((d * weight_at(a, i, lanes) - mean) - c * shared), lanes);
    });
  }
}

}  // namespace

extern const native::NormKernels norms;
const native::NormKernels norms = {rms, rms_backward, layer, layer_backward};

}  // namespace NATIVE_ISA

// Activations and their gradients, compiled once for each instruction set. zoo/ops/activations.py has the formulas.
//
// What is left over after whole vectors goes through the same vector functions, so that a number's result does not
// depend on its place.

#include "activations.h"
#include "simd.h"

namespace NATIVE_ISA {
namespace {

using native::Activation;

// 2 sqrt(2 / pi), and times 0.044715: gelu_tanh(x) = x sigmoid(x (SCALE + CUBIC x^2)).
constexpr float SCALE = 1.5957691216057308f;
constexpr float CUBIC = 0.07135481282052585f;

struct Gelu {
  NATIVE_INLINE Vec value(Vec x) { return x * normal(x).below; }
  NATIVE_INLINE Vec slope(Vec x) {
    const Normal n = normal(x);
    return n.below + x * n.density;
  }
};

struct GeluTanh {
  // Beyond 20 the sigmoid is 0 or 1 in float32, and a square there could be infinite.
  NATIVE_INLINE Vec inside(Vec x) { return vmin(vmax(x, splat(-20.0f)), splat(20.0f)); }
  NATIVE_INLINE Sigmoid share(Vec c) { return sigmoid(c * (SCALE + CUBIC * (c * c))); }
  NATIVE_INLINE Vec value(Vec x) { return x * share(inside(x)).value; }
  NATIVE_INLINE Vec slope(Vec x) {
    const Vec c = inside(x);
    const Sigmoid s = share(c);
    return s.value + x * (s.value * s.rest) * (SCALE + 3.0f * CUBIC * (c * c));
  }
};

struct Silu {
  NATIVE_INLINE Vec value(Vec x) { return x * sigmoid(x).value; }
  NATIVE_INLINE Vec slope(Vec x) {
    const Sigmoid s = sigmoid(x);
    return s.value + x * (s.value * s.rest);
  }
};

template <typename F>
void values(const float* x, float* y, long count) {
  long i = 0;
  for (; i + W <= count; i += W) store(y + i, F::value(load(x + i)));
  if (i < count) store_some(y + i, F::value(load_some(x + i, count - i)), count - i);
}

template <typename F>
void slopes(const float* x, const float* dy, float* dx, long count) {
  long i = 0;
  for (; i + W <= count; i += W) store(dx + i, load(dy + i) * F::slope(load(x + i)));
  const int rest = count - i;
  if (rest > 0) store_some(dx + i, load_some(dy + i, rest) * F::slope(load_some(x + i, rest)), rest);
}

void forward(Activation which, const float* x, float* y, long count) {
  switch (which) {
    case Activation::gelu: values<Gelu>(x, y, count); break;
    case Activation::gelu_tanh: values<GeluTanh>(x, y, count); break;
    case Activation::silu: values<Silu>(x, y, count); break;
  }
}

void backward(Activation which, const float* x, const float* dy, float* dx, long count) {
  switch (which) {
    case Activation::gelu: slopes<Gelu>(x, dy, dx, count); break;
    case Activation::gelu_tanh: slopes<GeluTanh>(x, dy, dx, count); break;
    case Activation::silu: slopes<Silu>(x, dy, dx, count); break;
  }
}

void swiglu(const float* gate, const float* up, float* y, long count) {
  long i = 0;
  for (; i + W <= count; i += W) store(y + i, Silu::value(load(gate + i)) * load(up + i));
  const int rest = count - i;
  if (rest > 0) store_some(y + i, Silu::value(load_some(gate + i, rest)) * load_some(up + i, rest), rest);
}

struct Both {
  Vec dgate, dup;
};

NATIVE_INLINE Both swiglu_gradients(Vec gate, Vec up, Vec dy) {
  const Sigmoid s = sigmoid(gate);
  const Vec activated = gate * s.value;
  return {dy * up * (s.value + activated * s.rest), dy * activated};
}

void swiglu_backward(const float* gate, const float* up, const float* dy, float* dgate, float* dup, long count) {
  long i = 0;
  for (; i + W <= count; i += W) {
    const Both both = swiglu_gradients(load(gate + i), load(up + i), load(dy + i));
    store(dgate + i, both.dgate);
    store(dup + i, both.dup);
  }
  const int rest = count - i;
  if (rest <= 0) return;
  const Both both = swiglu_gradients(load_some(gate + i, rest), load_some(up + i, rest), load_some(dy + i, rest));
  store_some(dgate + i, both.dgate, rest);
  store_some(dup + i, both.dup, rest);
}

}  // namespace

extern const native::ActivationKernels activations;
const native::ActivationKernels activations = {forward, backward, swiglu, swiglu_backward};

}  // namespace NATIVE_ISA

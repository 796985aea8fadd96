// The gated delta rule token by token, forward and backward, compiled once for each instruction set.
//
//     D = gamma S     e = v - D k     u = beta e     S' = D + u kᵀ     y = S' q
//
// S is kept as keys by values, so that the sums over keys, D k and S' q, need no work across lanes. Backward a chunk's
// states are computed again from the one before it, and then, with G the gradient of the state after a token,
//
//     G += dy qᵀ     dq = S'ᵀ dy     du = G k     de = beta du     dbeta = du·e     dv = de
//     dk = Gᵀ u - Dᵀ de     G' = G - de kᵀ     dgamma = <G', S>     and gamma G' is the gradient of the state before.

#include "delta.h"
#include "simd.h"

namespace NATIVE_ISA {
namespace {

using native::Delta;
using native::DeltaGradients;
using native::DeltaOutputs;
using native::Strides3;
using native::Strides4;

int row_floats(int H) {
  return padded(H);
}

// Of H keys.
long state_floats(const Delta& a) {
  return static_cast<long>(padded(a.H)) * padded(a.H);
}

long scratch_floats(const Delta& a) {
  // A state more than there are tokens, G; a token's rows; errors; and a vector for each key, twice.
  const long width = padded(a.H);
  return (a.T + 2) * state_floats(a) + (a.T + 12) * width + 2 * width * W;
}

// [padded H] of a token; zeros beyond.
void read_row(float* to, const float* x, const Strides4& s, int b, int n, int row, int H) {
  const float* from = x + b * s.batch + n * s.head + row * s.row;
  const int width = padded(H);
  for (int h = 0; h < width; h++) to[h] = h < H ? from[h * s.column] : 0.0f;
}

float number_of(const float* x, const Strides3& s, int b, int n, int row) {
  return x[b * s.batch + n * s.head + row * s.row];
}

// From values by keys [H, H] to keys by values [padded H, padded H], and back.
void read_state(float* to, const float* state, int H) {
  const int width = padded(H);
  clear(to, static_cast<long>(width) * width);
  for (int value = 0; value < H; value++)
    for (int key = 0; key < H; key++) to[key * width + value] = state[value * H + key];
}

void write_state(float* state, const float* from, int H) {
  const int width = padded(H);
  for (int value = 0; value < H; value++)
    for (int key = 0; key < H; key++) state[value * H + key] = from[key * width + value];
}

struct Token {
  float *q, *k, *v, *y, *u;
  float gamma, beta;
};

void read_token(const Delta& a, Token& token, int b, int n, int row) {
  read_row(token.q, a.q, a.q_strides, b, n, row, a.H);
  read_row(token.k, a.k, a.k_strides, b, n, row, a.H);
  read_row(token.v, a.v, a.v_strides, b, n, row, a.H);
  token.gamma = number_of(a.gamma, a.gamma_strides, b, n, row);
  token.beta = number_of(a.beta, a.beta_strides, b, n, row);
}

// Values that are worked on together: their sums stay in registers.
constexpr int PANEL = 4;

// The state after a token, which may take the place of the one before; what it got wrong goes to `error`, and y.
template <int P>
NATIVE_INLINE void advance_panel(
    const float* before, float* after, const Token& t, float* error, int first, int H, int width) {
  Vec recalled[P] = {}, stored[P], y[P] = {};
  const Vec gamma = splat(t.gamma);
  for (int key = 0; key < H; key++) {
    const Vec x = splat(t.k[key]);
    for (int p = 0; p < P; p++) recalled[p] += x * load(before + key * width + first + p * W);
  }
  for (int p = 0; p < P; p++) {
    const Vec wrong = load(t.v + first + p * W) - gamma * recalled[p];
    store(error + first + p * W, wrong);
    stored[p] = t.beta * wrong;
  }
  for (int key = 0; key < H; key++) {
    const Vec k = splat(t.k[key]), q = splat(t.q[key]);
    for (int p = 0; p < P; p++) {
      const long at = key * width + first + p * W;
      const Vec state = gamma * load(before + at) + stored[p] * k;
      store(after + at, state);
      y[p] += q * state;
    }
  }
  for (int p = 0; p < P; p++) store(t.y + first + p * W, y[p]);
}

void advance(const float* before, float* after, const Token& t, float* error, int H) {
  const int width = padded(H);
  int first = 0;
  for (; first + PANEL * W <= width; first += PANEL * W) advance_panel<PANEL>(before, after, t, error, first, H, width);
  for (; first < width; first += W) advance_panel<1>(before, after, t, error, first, H, width);
}

Token take_token(float*& memory, int width) {
  float* at = memory;
  memory += 5 * width;
  return {at, at + width, at + 2 * width, at + 3 * width, at + 4 * width, 0, 0};
}

void forward(const Delta& a, const DeltaOutputs& out, int b, int n, float* scratch) {
  const int width = padded(a.H), chunks = (a.L + a.T - 1) / a.T;
  float* state = scratch;
  scratch += state_floats(a);
  Token token = take_token(scratch, width);
  float* error = scratch;
  const long head = static_cast<long>(b) * a.N + n;
  read_state(state, a.state + head * a.H * a.H, a.H);
  for (int row = 0; row < a.L; row++) {
    if (row % a.T == 0) {
      float* before = out.before + (head * chunks + row / a.T) * a.H * width;
      for (long i = 0; i < static_cast<long>(a.H) * width; i++) before[i] = state[i];
    }
    read_token(a, token, b, n, row);
    advance(state, state, token, error, a.H);
    const Strides4& s = out.y_strides;
    float* y = out.y + b * s.batch + n * s.head + row * s.row;
    for (int h = 0; h < a.H; h++) y[h] = token.y[h];
  }
  write_state(out.state + head * a.H * a.H, state, a.H);
}

// to[i] = factor * the sum of the lanes of vector i, of whole blocks of vectors.
void add_lanes(float* to, const float* vectors, int count) {
  for (int first = 0; first < count; first += W) {
    Vec block[W];
    for (int i = 0; i < W; i++) block[i] = load(vectors + (first + i) * W);
    transpose_block(block);
    Vec total = block[0];
    for (int i = 1; i < W; i++) total += block[i];
    store(to + first, total);
  }
}

void backward(const Delta& a, const DeltaGradients& g, int b, int n, float* scratch) {
  const int H = a.H, width = padded(H), chunks = (a.L + a.T - 1) / a.T;
  const long size = state_floats(a), head = static_cast<long>(b) * a.N + n;
  float* states = scratch;
  scratch += (a.T + 1) * size;
  float* of_state = scratch;
  scratch += size;
  Token token = take_token(scratch, width);
  float *errors = scratch, *dy = errors + a.T * width, *du = dy + width, *de = du + width, *dk = de + width,
        *dq = dk + width, *of_q = dq + width, *of_k = of_q + width * W;
  clear(of_q, static_cast<long>(width) * W);
  clear(of_k, static_cast<long>(width) * W);
  read_state(of_state, g.dlast + head * H * H, H);
  for (int chunk = chunks - 1; chunk >= 0; chunk--) {
    const int first = chunk * a.T, count = a.T < a.L - first ? a.T : a.L - first;
    const float* before = g.before + (head * chunks + chunk) * H * width;
    for (long i = 0; i < static_cast<long>(H) * width; i++) states[i] = before[i];
    for (int t = 0; t < count; t++) {
      read_token(a, token, b, n, first + t);
      advance(states + t * size, states + (t + 1) * size, token, errors + t * width, H);
    }
    for (int t = count - 1; t >= 0; t--) {
      const int row = first + t;
      const float *earlier = states + t * size, *later = earlier + size, *error = errors + t * width;
      read_token(a, token, b, n, row);
      read_row(dy, g.dy, g.dy_strides, b, n, row, H);
      for (int h = 0; h < width; h += W) {
        store(token.u + h, token.beta * load(error + h));
        store(du + h, Vec{});
      }
      for (int key = 0; key < H; key++) {
        const Vec q = splat(token.q[key]), k = splat(token.k[key]);
        Vec to_q{}, to_k{};
        for (int h = 0; h < width; h += W) {
          const Vec of_y = load(dy + h), gradient = load(of_state + key * width + h) + q * of_y;
          store(of_state + key * width + h, gradient);
          to_q += load(later + key * width + h) * of_y;
          to_k += gradient * load(token.u + h);
          store(du + h, load(du + h) + k * gradient);
        }
        store(of_q + key * W, to_q);
        store(of_k + key * W, to_k);
      }
      add_lanes(dq, of_q, width);
      add_lanes(dk, of_k, width);
      Vec to_beta{}, to_gamma{};
      for (int h = 0; h < width; h += W) {
        to_beta += load(du + h) * load(error + h);
        store(de + h, token.beta * load(du + h));
      }
      for (int key = 0; key < H; key++) {
        const Vec k = splat(token.k[key]);
        Vec to_k{};
        for (int h = 0; h < width; h += W) {
          const Vec of_error = load(de + h), state = load(earlier + key * width + h);
          const Vec gradient = load(of_state + key * width + h) - k * of_error;
          to_k += state * of_error;
          to_gamma += gradient * state;
          store(of_state + key * width + h, token.gamma * gradient);
        }
        store(of_k + key * W, to_k);
      }
      add_lanes(token.u, of_k, width);
      const long start = ((static_cast<long>(b) * a.L + row) * a.N + n) * H, at = head * a.L + row;
      for (int h = 0; h < H; h++) {
        g.dq[start + h] = dq[h];
        g.dk[start + h] = dk[h] - token.gamma * token.u[h];
        g.dv[start + h] = de[h];
      }
      g.dgamma[at] = sum(to_gamma);
      g.dbeta[at] = sum(to_beta);
    }
  }
  write_state(g.dstate + head * H * H, of_state, H);
}

}  // namespace

extern const native::DeltaKernels delta;
const native::DeltaKernels delta = {scratch_floats, row_floats, forward, backward};

}  // namespace NATIVE_ISA

// Causal linear attention by chunks, forward and backward, compiled once for each instruction set.
//
//     y_i = n_i / d_i     n_i = sum_j w_ij v_j     d_i = sum_j w_ij + eps     w_ij = phi(q_i)·phi(k_j)     j <= i
//
// Inside a chunk by its weights, of earlier tokens by S = sum_j v_j phi(k_j)ᵀ and z = sum_j phi(k_j), as in
// zoo/ops/causal_sums.py. Backward with n' = dy / d and d' = -(dy·y) / d, and with p_ij = n'_i·v_j + d'_i:
//
//     dphi(q_i) = sum_{j <= i} p_ij phi(k_j)     dphi(k_j) = sum_{i >= j} p_ij phi(q_i)     dv_j = sum_{i >= j} w_ij n'_i
//
// the first from the left with S and z, the others from the right with R = sum_i n'_i phi(q_i)ᵀ and r = sum_i d'_i phi(q_i).

#include "gemm.h"
#include "linear.h"
#include "simd.h"

namespace NATIVE_ISA {
namespace {

using native::Chunk;
using native::ChunkList;
using native::Features;
using native::Linear;
using native::LinearGradients;
using native::LinearOutputs;
using native::Strides4;

NATIVE_INLINE Vec phi(Features which, Vec x) {
  const Vec positive = vmax(x, Vec{});
  if (which == Features::elu_plus_one) return exp_of_sum(vmin(x, Vec{}), Vec{}) + positive;
  return which == Features::relu ? positive : positive * positive;
}

// phi'(x), of phi(x) and x.
NATIVE_INLINE Vec slope(Features which, Vec phi_of_x, Vec x) {
  if (which == Features::elu_plus_one) return vmin(phi_of_x, splat(1.0f));
  const Vec positive = vmax(x, Vec{});
  return which == Features::relu ? (positive > 0.0f ? splat(1.0f) : Vec{}) : positive + positive;
}

// Scratch memory is handed out in whole vectors.
struct Memory {
  float* at;

  float* take(long floats) {
    float* taken = at;
    at += padded(static_cast<int>(floats));
    return taken;
  }
};

const float* row_of(const float* x, const Strides4& s, int b, int head, int row) {
  return x + b * s.batch + head * s.head + row * s.row;
}

// [rows, padded H] of rows [rows, H]; zeros beyond.
void pack(float* to, int H, const float* from, const Strides4& s, int rows) {
  const int width = padded(H);
  for (int r = 0; r < rows; r++, to += width, from += s.row) {
    if (s.column == 1) {
      for (int h = 0; h < H; h += W) store(to + h, load_up_to(from + h, H - h));
    } else {
      for (int h = 0; h < width; h++) to[h] = h < H ? from[h * s.column] : 0.0f;
    }
  }
}

// The same of phi; 0 where there is no number.
void pack_features(const Linear& a, float* to, const float* from, const Strides4& s, int rows) {
  pack(to, a.H, from, s, rows);
  const int width = padded(a.H);
  for (int r = 0; r < rows; r++, to += width) {
    for (int h = 0; h < width; h += W) store(to + h, phi(a.features, load(to + h)));
    for (int h = a.H; h < width; h++) to[h] = 0.0f;
  }
}

// Rows of a triangle that are computed together, up to its last column.
constexpr int STEP = 4 * ROWS;

// to[i, j] = x[i]·y[j] for j <= i, and 0 for other j; `y_turned` is [H, rows].
void triangle(float* to, int to_row, const float* x, int x_row, const float* y_turned, int rows, int H) {
  for (int first = 0; first < rows; first += STEP) {
    const int count = least(STEP, rows - first), columns = first + count;
    multiply<false>({x + first * x_row, x_row, 1, y_turned, to_row, to + first * to_row, to_row}, count, columns, H);
    for (int i = first; i < columns; i++)
      for (int j = i + 1; j < padded(columns); j++) to[i * to_row + j] = 0.0f;
  }
}

// to[i] = sum_{j <= i} triangle[i, j] y[j].
void from_the_left(float* to, int width, const float* triangle, int row, const float* y, int rows) {
  for (int first = 0; first < rows; first += STEP) {
    const int count = least(STEP, rows - first);
    multiply<false>(
        {triangle + first * row, row, 1, y, width, to + first * width, width}, count, width, first + count);
  }
}

// to[j] += sum_{i >= j} triangle[i, j] y[i].
void from_the_right(float* to, int width, const float* triangle, int row, const float* y, int rows) {
  for (int first = 0; first < rows; first += STEP) {
    const int count = least(STEP, rows - first);
    multiply<true>(
        {triangle + first * row + first, 1, row, y + first * width, width, to + first * width, width}, count, width,
        rows - first);
  }
}

NATIVE_INLINE float dot(const float* x, const float* y, int width) {
  Vec total{};
  for (int h = 0; h < width; h += W) total += load(x + h) * load(y + h);
  return sum(total);
}

// to += factor * x.
NATIVE_INLINE void add(float* to, float factor, const float* x, int width) {
  for (int h = 0; h < width; h += W) store(to + h, load(to + h) + factor * load(x + h));
}

// S [padded H, padded H] and z [padded H] of a chunk are added.
struct Sums {
  float *outer, *plain;
  int width;

  void clear_all() const {
    clear(outer, static_cast<long>(width) * width);
    clear(plain, width);
  }

  // outer += left[i]ᵀ right[i]
  void add_products(const float* left, const float* right, int rows, int H) const {
    multiply<true>({left, 1, width, right, width, outer, width}, H, width, rows);
  }
};

// As a state is kept: [H, H + 1], keys by values; here values by keys.
void read_state(const Sums& sums, const float* state, int H) {
  sums.clear_all();
  for (int key = 0; key < H; key++, state += H + 1) {
    for (int value = 0; value < H; value++) sums.outer[value * sums.width + key] = state[value];
    sums.plain[key] = state[H];
  }
}

void write_state(const Sums& sums, float* state, int H) {
  for (int key = 0; key < H; key++, state += H + 1) {
    for (int value = 0; value < H; value++) state[value] = sums.outer[value * sums.width + key];
    state[H] = sums.plain[key];
  }
}

long state_start(const Linear& a, int b, int group) {
  return (static_cast<long>(b) * a.K + group) * a.H * (a.H + 1);
}

// A chunk's keys, and its values; of the buffers that are taken once.
struct Rows {
  float *q, *k, *v, *turned, *weights, *products;
  int width, row;
};

Rows take_rows(const Linear& a, Memory& memory) {
  const int width = padded(a.H), row = padded(a.T);
  const auto take = [&](long count, long size) { return memory.take(count * size); };
  return {take(a.T, width), take(a.T, width), take(a.T, width), take(width, row), take(a.T, row), take(a.T, width),
          width, row};
}

Sums take_sums(const Linear& a, Memory& memory) {
  const int width = padded(a.H);
  return {memory.take(static_cast<long>(width) * width), memory.take(width), width};
}

long scratch_floats(const Linear& a) {
  const long width = padded(a.H), row = padded(a.T);
  return 8 * a.T * width + 2 * width * row + 2 * a.T * row + 3 * width * width + 6 * width + 2 * row;
}

// phi of a chunk's keys, and its values.
void pack_keys(const Linear& a, const Rows& rows, const Chunk& chunk, int b, int group) {
  pack_features(a, rows.k, row_of(a.k, a.k_strides, b, group, chunk.first), a.k_strides, chunk.count);
  pack(rows.v, a.H, row_of(a.v, a.v_strides, b, group, chunk.first), a.v_strides, chunk.count);
}

void forward(
    const Linear& a, const LinearOutputs& out, const ChunkList& list, int b, int group, float* scratch) {
  Memory memory{scratch};
  const Rows rows = take_rows(a, memory);
  const int width = rows.width, G = a.N / a.K;
  // Here keys by values, as the state is kept.
  const Sums sums = take_sums(a, memory);
  sums.clear_all();
  float* state = out.state + state_start(a, b, group);
  if (a.state != nullptr) {
    const float* before = a.state + state_start(a, b, group);
    for (int key = 0; key < a.H; key++, before += a.H + 1) {
      for (int value = 0; value < a.H; value++) sums.outer[key * width + value] = before[value];
      sums.plain[key] = before[a.H];
    }
  }
  for (int c = 0; c < list.count; c++) {
    const Chunk chunk = list.chunks[c];
    if (chunk.fresh) sums.clear_all();
    pack_keys(a, rows, chunk, b, group);
    transpose(rows.turned, rows.row, rows.k, width, 1, chunk.count, a.H, 1.0f);
    for (int n = group * G; n < (group + 1) * G; n++) {
      pack_features(a, rows.q, row_of(a.q, a.q_strides, b, n, chunk.first), a.q_strides, chunk.count);
      triangle(rows.weights, rows.row, rows.q, width, rows.turned, chunk.count, a.H);
      from_the_left(rows.products, width, rows.weights, rows.row, rows.v, chunk.count);
      multiply<true>({rows.q, width, 1, sums.outer, width, rows.products, width}, chunk.count, width, a.H);
      for (int i = 0; i < chunk.count; i++) {
        Vec inside{};
        for (int j = 0; j <= i; j += W) inside += load(rows.weights + i * rows.row + j);
        const float denominator = sum(inside) + dot(rows.q + i * width, sums.plain, width) + a.eps;
        out.denominators[(static_cast<long>(b) * a.N + n) * a.L + chunk.first + i] = denominator;
        const Strides4& s = out.y_strides;
        float* y = out.y + b * s.batch + n * s.head + (chunk.first + i) * s.row;
        for (int h = 0; h < a.H; h += W) {
          const Vec result = load(rows.products + i * width + h) / denominator;
          store_up_to(y + h, result, a.H - h);
        }
      }
    }
    sums.add_products(rows.k, rows.v, chunk.count, a.H);
    for (int j = 0; j < chunk.count; j++) add(sums.plain, 1.0f, rows.k + j * width, width);
  }
  for (int key = 0; key < a.H; key++, state += a.H + 1) {
    for (int value = 0; value < a.H; value++) state[value] = sums.outer[key * width + value];
    state[a.H] = sums.plain[key];
  }
}

// n' [rows, padded H] and d' [rows] of a chunk of a query head.
void pack_cotangents(
    const Linear& a, const LinearGradients& g, const Chunk& chunk, int b, int n, float* numerators, float* denominators) {
  const int width = padded(a.H);
  pack(numerators, a.H, row_of(g.dy, g.dy_strides, b, n, chunk.first), g.dy_strides, chunk.count);
  const float* of = g.denominators + (static_cast<long>(b) * a.N + n) * a.L + chunk.first;
  for (int i = 0; i < chunk.count; i++, numerators += width) {
    const float* y = row_of(g.y, g.y_strides, b, n, chunk.first + i);
    Vec total{};
    for (int h = 0; h < a.H; h += W) total += load(numerators + h) * load_up_to(y + h, a.H - h);
    denominators[i] = -sum(total) / of[i];
    for (int h = 0; h < width; h += W) store(numerators + h, load(numerators + h) / of[i]);
  }
}

// p: the triangle of n' and the values, with d' in each row.
void add_to_rows(float* products, int row, const float* numbers, int rows) {
  for (int i = 0; i < rows; i++)
    for (int j = 0; j <= i; j++) products[i * row + j] += numbers[i];
}

// [H] of dphi times phi'; x is the query or the key.
void write_row(const Linear& a, float* to, const float* dphi, const float* phi_of_x, const float* x, long column) {
  for (int h = 0; h < a.H; h += W) {
    const int lanes = least(W, a.H - h);
    Vec from{};
    if (column == 1) {
      from = load_up_to(x + h, lanes);
    } else {
      for (int i = 0; i < lanes; i++) from[i] = x[(h + i) * column];
    }
    store_up_to(to + h, load(dphi + h) * slope(a.features, load(phi_of_x + h), from), lanes);
  }
}

void of_queries(
    const Linear& a, const LinearGradients& g, const ChunkList& list, int b, int n, float* scratch) {
  Memory memory{scratch};
  const Rows rows = take_rows(a, memory);
  const int width = rows.width, group = n / (a.N / a.K);
  float *numerators = memory.take(static_cast<long>(a.T) * width), *denominators = memory.take(a.T);
  const Sums sums = take_sums(a, memory);
  sums.clear_all();
  if (a.state != nullptr) read_state(sums, a.state + state_start(a, b, group), a.H);
  for (int c = 0; c < list.count; c++) {
    const Chunk chunk = list.chunks[c];
    if (chunk.fresh) sums.clear_all();
    pack_keys(a, rows, chunk, b, group);
    transpose(rows.turned, rows.row, rows.v, width, 1, chunk.count, a.H, 1.0f);
    pack_cotangents(a, g, chunk, b, n, numerators, denominators);
    triangle(rows.weights, rows.row, numerators, width, rows.turned, chunk.count, a.H);
    add_to_rows(rows.weights, rows.row, denominators, chunk.count);
    from_the_left(rows.products, width, rows.weights, rows.row, rows.k, chunk.count);
    multiply<true>({numerators, width, 1, sums.outer, width, rows.products, width}, chunk.count, width, a.H);
    pack_features(a, rows.q, row_of(a.q, a.q_strides, b, n, chunk.first), a.q_strides, chunk.count);
    for (int i = 0; i < chunk.count; i++) {
      add(rows.products + i * width, denominators[i], sums.plain, width);
      const int row = chunk.first + i;
      float* to = g.dq + ((static_cast<long>(b) * a.L + row) * a.N + n) * a.H;
      const float* x = row_of(a.q, a.q_strides, b, n, row);
      write_row(a, to, rows.products + i * width, rows.q + i * width, x, a.q_strides.column);
    }
    sums.add_products(rows.v, rows.k, chunk.count, a.H);
    for (int j = 0; j < chunk.count; j++) add(sums.plain, 1.0f, rows.k + j * width, width);
  }
}

void of_keys(
    const Linear& a, const LinearGradients& g, const ChunkList& list, int b, int group, float* scratch) {
  Memory memory{scratch};
  const Rows rows = take_rows(a, memory);
  const int width = rows.width, G = a.N / a.K;
  float *numerators = memory.take(static_cast<long>(a.T) * width), *denominators = memory.take(a.T);
  float *dkeys = memory.take(static_cast<long>(a.T) * width), *turned_values = memory.take(static_cast<long>(width) * rows.row);
  float* products = memory.take(static_cast<long>(a.T) * rows.row);
  // R, and turned round.
  const Sums sums = take_sums(a, memory);
  float* turned_sums = memory.take(static_cast<long>(width) * width);
  read_state(sums, g.dlast + state_start(a, b, group), a.H);
  for (int c = list.count - 1; c >= 0; c--) {
    const Chunk chunk = list.chunks[c];
    pack_keys(a, rows, chunk, b, group);
    transpose(rows.turned, rows.row, rows.k, width, 1, chunk.count, a.H, 1.0f);
    transpose(turned_values, rows.row, rows.v, width, 1, chunk.count, a.H, 1.0f);
    // Of later chunks first: R holds them.
    transpose(turned_sums, width, sums.outer, width, 1, width, width, 1.0f);
    multiply<false>({rows.v, width, 1, sums.outer, width, dkeys, width}, chunk.count, width, a.H);
    for (int j = 0; j < chunk.count; j++) add(dkeys + j * width, 1.0f, sums.plain, width);
    multiply<false>({rows.k, width, 1, turned_sums, width, rows.products, width}, chunk.count, width, a.H);
    for (int n = group * G; n < (group + 1) * G; n++) {
      pack_features(a, rows.q, row_of(a.q, a.q_strides, b, n, chunk.first), a.q_strides, chunk.count);
      pack_cotangents(a, g, chunk, b, n, numerators, denominators);
      triangle(rows.weights, rows.row, rows.q, width, rows.turned, chunk.count, a.H);
      triangle(products, rows.row, numerators, width, turned_values, chunk.count, a.H);
      add_to_rows(products, rows.row, denominators, chunk.count);
      from_the_right(dkeys, width, products, rows.row, rows.q, chunk.count);
      from_the_right(rows.products, width, rows.weights, rows.row, numerators, chunk.count);
      sums.add_products(numerators, rows.q, chunk.count, a.H);
      for (int i = 0; i < chunk.count; i++) add(sums.plain, denominators[i], rows.q + i * width, width);
    }
    for (int j = 0; j < chunk.count; j++) {
      const int row = chunk.first + j;
      const long start = ((static_cast<long>(b) * a.L + row) * a.K + group) * a.H;
      const float* x = row_of(a.k, a.k_strides, b, group, row);
      write_row(a, g.dk + start, dkeys + j * width, rows.k + j * width, x, a.k_strides.column);
      for (int h = 0; h < a.H; h += W)
        store_up_to(g.dv + start + h, load(rows.products + j * width + h), a.H - h);
    }
    // An earlier document has no part in what comes later.
    if (chunk.fresh) sums.clear_all();
  }
  if (g.dstate != nullptr) write_state(sums, g.dstate + state_start(a, b, group), a.H);
}

}  // namespace

extern const native::LinearKernels linear;
const native::LinearKernels linear = {scratch_floats, forward, of_queries, of_keys};

}  // namespace NATIVE_ISA

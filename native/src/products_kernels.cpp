// Tiles of a matrix product. Compiled for AVX-512 alone, whose 32 registers hold 14 rows of two vectors and what they are
// summed from.

#include "products.h"
#include "simd.h"

namespace NATIVE_ISA {
namespace {

constexpr int ROWS = 14, VECTORS = 2, COLUMNS = VECTORS * W;

// Lines that lie side by side in memory: each step is one piece, which all panels share.
template <int SIZE>
void pack_pieces(float* to, const float* from, long step, int count, int K) {
  for (int k = 0; k < K; k++, to += SIZE, from += step) {
    float* panel = to;
    int i = 0;
    for (; i + SIZE <= count; i += SIZE, panel += static_cast<long>(SIZE) * K)
      __builtin_memcpy(panel, from + i, SIZE * sizeof(float));
    for (int rest = i; rest < count; rest++) panel[rest - i] = from[rest];
  }
}

// Up to W lines, each of which lies in one piece: W by W numbers are transposed at a time. Where a panel has fewer than W
// lines, what is stored beyond them belongs to the next step and is overwritten by it, but for the last.
template <int SIZE>
void pack_lines(float* to, const float* from, long line, int count, int K) {
  int k = 0;
  for (; k + W < K; k += W) {
    Vec block[W];
    for (int i = 0; i < W; i++) block[i] = i < count ? load(from + i * line + k) : Vec{};
    transpose_block(block);
    for (int j = 0; j < W; j++) store(to + static_cast<long>(k + j) * SIZE, block[j]);
  }
  for (; k < K; k++)
    for (int i = 0; i < count; i++) to[static_cast<long>(k) * SIZE + i] = from[i * line + k];
}

template <int SIZE>
void pack(float* to, const float* from, long line, long step, int count, int K) {
  if (line == 1) return pack_pieces<SIZE>(to, from, step, count, K);
  for (int first = 0; first < count; first += SIZE, to += static_cast<long>(SIZE) * K, from += SIZE * line) {
    const int lines = least(SIZE, count - first);
    if (step == 1) {
      for (int i = 0; i < lines; i += W) pack_lines<SIZE>(to + i, from + i * line, line, least(W, lines - i), K);
    } else {
      for (int k = 0; k < K; k++)
        for (int i = 0; i < lines; i++) to[static_cast<long>(k) * SIZE + i] = from[i * line + k * step];
    }
  }
}

// M rows and N vectors, the last of them of `last` numbers.
template <int M, int N>
void tile_of(const float* a, const float* b, int K, float* c, long c_row, float alpha, float beta, int last) {
  Vec sums[M][N];
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 2
    for (int n = 0; n < N; n++) {
      sums[m][n] = Vec{};
      __builtin_prefetch(c + m * c_row + n * W, 1);
    }
  for (int k = 0; k < K; k++) {
    Vec row[N];
#pragma GCC unroll 2
    for (int n = 0; n < N; n++) row[n] = load(b + n * W);
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) {
      const Vec x = splat(a[m]);
#pragma GCC unroll 2
      for (int n = 0; n < N; n++) sums[m][n] += x * row[n];
    }
    a += ROWS;
    b += COLUMNS;
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 2
    for (int n = 0; n < N; n++) {
      float* to = c + m * c_row + n * W;
      const bool whole = n < N - 1 || last == W;
      Vec result = alpha * sums[m][n];
      if (beta != 0) result += beta * (whole ? load(to) : load_some(to, last));
      whole ? store(to, result) : store_some(to, result, last);
    }
}

template <int M>
void tile_of_rows(
    const float* a, const float* b, int K, float* c, long c_row, float alpha, float beta, int rows, int columns) {
  if constexpr (M > 1) {
    if (rows < M) return tile_of_rows<M - 1>(a, b, K, c, c_row, alpha, beta, rows, columns);
  }
  columns > W ? tile_of<M, 2>(a, b, K, c, c_row, alpha, beta, columns - W)
              : tile_of<M, 1>(a, b, K, c, c_row, alpha, beta, columns);
}

}  // namespace

extern const native::ProductKernels products = {ROWS, COLUMNS, pack<ROWS>, pack<COLUMNS>, tile_of_rows<ROWS>};

}  // namespace NATIVE_ISA

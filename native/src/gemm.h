// C[m, n] (+)= sum_k A(m, k) * B[k, n]: the product that everything in a tile is. A is read one number at a time with
// any strides, so neither it nor its transpose is ever copied; B and C are rows of vectors.
#pragma once

#include "simd.h"

namespace NATIVE_ISA {

struct Product {
  const float* a;
  long a_row, a_k;
  const float* b;
  long b_row;
  float* c;
  long c_row;
};

// One block of at most 6 rows and two vectors, which fills the registers of AVX2.
constexpr int ROWS = 6;
constexpr int COLUMNS = 2;

template <int M, int N, bool ADD>
NATIVE_INLINE void block(const Product& p, int K, int lanes) {
  Vec sums[M][N];
  for (int m = 0; m < M; m++)
    for (int n = 0; n < N; n++) sums[m][n] = Vec{};
  const float* a = p.a;
  const float* b = p.b;
  for (int k = 0; k < K; k++) {
    Vec row[N];
    for (int n = 0; n < N; n++) row[n] = load(b + n * W);
    for (int m = 0; m < M; m++) {
      const Vec x = splat(a[m * p.a_row]);
      for (int n = 0; n < N; n++) sums[m][n] += x * row[n];
    }
    a += p.a_k;
    b += p.b_row;
  }
  for (int m = 0; m < M; m++)
    for (int n = 0; n < N; n++) {
      float* c = p.c + m * p.c_row + n * W;
      if (lanes == W || n < N - 1) {
        store(c, ADD ? load(c) + sums[m][n] : sums[m][n]);
      } else {
        store_some(c, ADD ? load_some(c, lanes) + sums[m][n] : sums[m][n], lanes);
      }
    }
}

template <int N, bool ADD>
NATIVE_INLINE void column_of_blocks(Product p, int M, int K, int lanes) {
  for (; M >= ROWS; M -= ROWS) {
    block<ROWS, N, ADD>(p, K, lanes);
    p.a += ROWS * p.a_row;
    p.c += ROWS * p.c_row;
  }
  switch (M) {
    case 5: block<5, N, ADD>(p, K, lanes); break;
    case 4: block<4, N, ADD>(p, K, lanes); break;
    case 3: block<3, N, ADD>(p, K, lanes); break;
    case 2: block<2, N, ADD>(p, K, lanes); break;
    case 1: block<1, N, ADD>(p, K, lanes); break;
    default: break;
  }
}

// Rows of B must be readable up to the next whole vector; rows of C are written up to N only.
template <bool ADD>
static void multiply(Product p, int M, int N, int K) {
  for (; N >= COLUMNS * W; N -= COLUMNS * W) {
    column_of_blocks<COLUMNS, ADD>(p, M, K, W);
    p.b += COLUMNS * W;
    p.c += COLUMNS * W;
  }
  if (N > W) {
    column_of_blocks<2, ADD>(p, M, K, N - W);
  } else if (N > 0) {
    column_of_blocks<1, ADD>(p, M, K, N);
  }
}

// to[c, r] = factor * from[r, c], for rows whose numbers are `from_column` apart; without reading or writing beyond.
static inline void transpose(
    float* to, long to_row, const float* from, long from_row, long from_column, int rows, int columns, float factor) {
  int first = 0;
  if (from_column == 1) {
    for (; first + W <= rows; first += W)
      for (int c = 0; c < columns; c += W) {
        const int count = least(W, columns - c);
        Vec block[W];
        for (int i = 0; i < W; i++) {
          const float* at = from + (first + i) * from_row + c;
          block[i] = (count == W ? load(at) : load_some(at, count)) * factor;
        }
        transpose_block(block);
        for (int i = 0; i < count; i++) store(to + (c + i) * to_row + first, block[i]);
      }
  }
  for (int c = 0; c < columns; c++)
    for (int r = first; r < rows; r++) to[c * to_row + r] = factor * from[r * from_row + c * from_column];
}

}  // namespace NATIVE_ISA

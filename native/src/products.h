// Parts of a float32 matrix product, for instruction sets on which they beat the BLAS's own.
#pragma once

namespace native {

// Both matrices are packed first: what a tile reads then lies in one piece, whichever way the matrix was stored. A packed
// matrix is cut into panels of as many lines (rows of the left one, columns of the right one) as a tile has; a panel has
// its lines side by side for each step of the sum.
struct ProductKernels {
  // Rows and columns of a tile, whose sums fill the registers.
  int rows, columns;
  // to[(i / rows * K + k) * rows + i % rows] = from[i * line + k * step] for i < count, k < K; what lies beyond the last
  // line in its panel stays as it is.
  void (*pack_rows)(float* to, const float* from, long line, long step, int count, int K);
  // The same with `columns` for `rows`.
  void (*pack_columns)(float* to, const float* from, long line, long step, int count, int K);
  // c[i, j] = alpha sum_k a[k, i] b[k, j] + beta c[i, j] for i < row_count, j < column_count. With a beta of 0 what was
  // there counts for nothing, a NaN included.
  void (*tile)(
      const float* a, const float* b, int K, float* c, long c_row, float alpha, float beta, int row_count,
      int column_count);
};

}  // namespace native

// float32 matrix products on the pool: a cblas_sgemm that MLX finds in the place of the BLAS's own.
//
// OpenBLAS's threads wait for each other by spinning. Two processes that share the cores then make a sixth of what one
// makes alone, for a thread spins while the one that it waits for has no core. Here the product is cut into parts of rows
// or columns, each is one call of the BLAS on one thread, and who waits sleeps. What has one row or one column, as in
// decoding, is a matrix times a vector, which reads the matrix once: OpenBLAS's product would copy it first.

#include <algorithm>
#include <atomic>

#include "pool.h"

namespace {

enum Order { ROW_MAJOR = 101, COLUMN_MAJOR = 102 };
enum Transpose { NO_TRANSPOSE = 111, TRANSPOSE = 112 };

using Sgemm = void (*)(
    int order, int transpose_a, int transpose_b, int M, int N, int K, float alpha, const float* a, int a_row,
    const float* b, int b_row, float beta, float* c, int c_row);
using Sgemv = void (*)(
    int order, int transpose, int rows, int columns, float alpha, const float* a, int a_row, const float* x, int x_step,
    float beta, float* y, int y_step);

std::atomic<Sgemm> single_threaded{nullptr};
std::atomic<Sgemv> single_threaded_vector{nullptr};

// Multiplications of a part below which waking a thread costs more than it saves. Of a vector each reads a number from
// memory, and takes as long as eight of a matrix.
constexpr double LEAST_WORK = 500e3, LEAST_VECTOR_WORK = 60e3;
// Parts are multiples of what the BLAS computes at a time.
constexpr int GRAIN = 16;
// More parts than threads: one that has lost its core for a while does fewer of them.
constexpr int PARTS_PER_THREAD = 2;

struct Parts {
  int size, count;
};

Parts parts_of(int length, double work, double least_work) {
  const int by_work = static_cast<int>(std::min(work / least_work, 1e6));
  const int most = std::min({native::num_threads() * PARTS_PER_THREAD, by_work, length / GRAIN});
  if (most < 2 || native::num_threads() == 1) return {length, 1};
  const int size = ((length + most - 1) / most + GRAIN - 1) / GRAIN * GRAIN;
  return {size, (length + size - 1) / size};
}

// y [length] = alpha op(a) x + beta y, where op(a) is [length, K], in rows as it is stored or, transposed, in columns.
void by_vector(
    Sgemv sgemv, int transpose, int length, int K, float alpha, const float* a, int a_row, const float* x, int x_step,
    float beta, float* y, int y_step) {
  const bool stored = transpose == NO_TRANSPOSE;
  const Parts parts = parts_of(length, static_cast<double>(length) * K, LEAST_VECTOR_WORK);
  native::parallel(parts.count, [&](int part, int) {
    const int first = part * parts.size, count = std::min(parts.size, length - first);
    float* to = y + static_cast<long>(first) * y_step;
    // What was there counts for nothing, a NaN included.
    if (beta == 0)
      for (int i = 0; i < count; i++) to[static_cast<long>(i) * y_step] = 0;
    const float* from = a + static_cast<long>(first) * (stored ? a_row : 1);
    sgemv(ROW_MAJOR, transpose, stored ? count : K, stored ? K : count, alpha, from, a_row, x, x_step, beta, to, y_step);
  });
}

}  // namespace

extern "C" {

NATIVE_API void attention_zoo_use_products(void* sgemm, void* sgemv) {
  single_threaded.store(reinterpret_cast<Sgemm>(sgemm));
  single_threaded_vector.store(reinterpret_cast<Sgemv>(sgemv));
}

NATIVE_API void attention_zoo_set_num_threads(int count) {
  native::set_num_threads(count);
}

NATIVE_API void cblas_sgemm(
    int order, int transpose_a, int transpose_b, int M, int N, int K, float alpha, const float* a, int a_row,
    const float* b, int b_row, float beta, float* c, int c_row) {
  if (order == COLUMN_MAJOR) {
    cblas_sgemm(ROW_MAJOR, transpose_b, transpose_a, N, M, K, alpha, b, b_row, a, a_row, beta, c, c_row);
    return;
  }
  if (K > 0 && M == 1) {
    const int transpose = transpose_b == NO_TRANSPOSE ? TRANSPOSE : NO_TRANSPOSE;
    by_vector(
        single_threaded_vector, transpose, N, K, alpha, b, b_row, a, transpose_a == NO_TRANSPOSE ? 1 : a_row, beta, c, 1);
    return;
  }
  if (K > 0 && N == 1) {
    by_vector(
        single_threaded_vector, transpose_a, M, K, alpha, a, a_row, b, transpose_b == NO_TRANSPOSE ? b_row : 1, beta, c,
        c_row);
    return;
  }
  const Sgemm sgemm = single_threaded;
  const bool by_rows = M >= N;
  const Parts parts = parts_of(by_rows ? M : N, static_cast<double>(M) * N * K, LEAST_WORK);
  native::parallel(parts.count, [&](int part, int) {
    const int first = part * parts.size, count = std::min(parts.size, (by_rows ? M : N) - first);
    const long rows = static_cast<long>(first);
    if (by_rows) {
      const float* a_part = a + rows * (transpose_a == NO_TRANSPOSE ? a_row : 1);
      sgemm(ROW_MAJOR, transpose_a, transpose_b, count, N, K, alpha, a_part, a_row, b, b_row, beta, c + rows * c_row, c_row);
    } else {
      const float* b_part = b + rows * (transpose_b == NO_TRANSPOSE ? 1 : b_row);
      sgemm(ROW_MAJOR, transpose_a, transpose_b, M, count, K, alpha, a, a_row, b_part, b_row, beta, c + first, c_row);
    }
  });
}
}

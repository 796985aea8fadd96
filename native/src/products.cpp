// float32 matrix products on the pool: a cblas_sgemm that MLX finds in the place of the BLAS's own.
//
// OpenBLAS's threads wait for each other by spinning. Two processes that share the cores then make a sixth of what one
// makes alone, for a thread spins while the one that it waits for has no core. Here the product is cut into parts of rows
// or columns, each is one call of the BLAS on one thread, and who waits sleeps.

#include <algorithm>
#include <atomic>

#include "pool.h"

namespace {

enum Order { ROW_MAJOR = 101, COLUMN_MAJOR = 102 };
enum Transpose { NO_TRANSPOSE = 111 };

using Sgemm = void (*)(
    int order, int transpose_a, int transpose_b, int M, int N, int K, float alpha, const float* a, int a_row,
    const float* b, int b_row, float beta, float* c, int c_row);

std::atomic<Sgemm> single_threaded{nullptr};

// Multiplications of a part below which waking a thread costs more than it saves.
constexpr double LEAST_WORK = 500e3;
// Parts are multiples of what the BLAS computes at a time.
constexpr int GRAIN = 48;
// More parts than threads: one that has lost its core for a while does fewer of them.
constexpr int PARTS_PER_THREAD = 2;

}  // namespace

extern "C" {

NATIVE_API void attention_zoo_use_sgemm(void* function) {
  single_threaded.store(reinterpret_cast<Sgemm>(function));
}

NATIVE_API void attention_zoo_set_num_threads(int count) {
  native::set_num_threads(count);
}

NATIVE_API void cblas_sgemm(
    int order, int transpose_a, int transpose_b, int M, int N, int K, float alpha, const float* a, int a_row,
    const float* b, int b_row, float beta, float* c, int c_row) {
  const Sgemm sgemm = single_threaded.load();
  const double work = static_cast<double>(M) * N * K;
  const int by_work = static_cast<int>(std::min(work / LEAST_WORK, 1e6));
  const bool by_rows = M >= N;
  const int length = by_rows ? M : N;
  const int most = std::min({native::num_threads() * PARTS_PER_THREAD, by_work, length / GRAIN});
  if (most < 2 || native::num_threads() == 1) {
    sgemm(order, transpose_a, transpose_b, M, N, K, alpha, a, a_row, b, b_row, beta, c, c_row);
    return;
  }
  const int size = ((length + most - 1) / most + GRAIN - 1) / GRAIN * GRAIN;
  const int parts = (length + size - 1) / size;
  // What a step along rows or columns of C skips in each matrix.
  const bool row_major = order == ROW_MAJOR;
  const auto skip = [&](bool along_rows, int row, int count) {
    return along_rows == row_major ? static_cast<long>(count) * row : static_cast<long>(count);
  };
  native::parallel(parts, [&](int part, int) {
    const int first = part * size, count = std::min(size, length - first);
    if (by_rows) {
      const float* a_part = a + skip(transpose_a == NO_TRANSPOSE, a_row, first);
      sgemm(order, transpose_a, transpose_b, count, N, K, alpha, a_part, a_row, b, b_row, beta,
            c + skip(true, c_row, first), c_row);
    } else {
      const float* b_part = b + skip(transpose_b != NO_TRANSPOSE, b_row, first);
      sgemm(order, transpose_a, transpose_b, M, count, K, alpha, a, a_row, b_part, b_row, beta,
            c + skip(false, c_row, first), c_row);
    }
  });
}
}

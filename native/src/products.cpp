// float32 matrix products on the pool: a cblas_sgemm that MLX finds in the place of the BLAS's own.
//
// OpenBLAS's threads wait for each other by spinning. Two processes that share the cores then make a sixth of what one
// makes alone, for a thread spins while the one that it waits for has no core. Here the product is cut into parts of rows
// or columns, each is one call of the BLAS on one thread or, where there are tiles of our own, some of those, and who
// waits for long sleeps. What has one row or one column, as in decoding, is a matrix times a vector, which reads the
// matrix once: OpenBLAS's product would copy it first.

#include "products.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>

#include "isa.h"
#include "pool.h"
#include "scratch.h"

#ifdef NATIVE_X86
namespace avx512 {
extern const native::ProductKernels products;
}
#endif

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
// Rows and columns below which packing costs more than it saves.
constexpr int LEAST_LINES = 16;
// Parts are multiples of what the BLAS computes at a time.
constexpr int GRAIN = 16;
// More parts than threads of what no part copies: a thread that has lost its core for a while does fewer of them.
constexpr int VECTOR_PARTS_PER_THREAD = 2;

struct Parts {
  int size, count;
};

Parts parts_of(int length, double work, double least_work, int per_thread) {
  const int by_work = static_cast<int>(std::min(work / least_work, 1e6));
  const int most = std::min({native::num_threads() * per_thread, by_work, length / GRAIN});
  if (most < 2 || native::num_threads() == 1) return {length, 1};
  const int size = ((length + most - 1) / most + GRAIN - 1) / GRAIN * GRAIN;
  return {size, (length + size - 1) / size};
}

// y [length] = alpha op(a) x + beta y, where op(a) is [length, K], in rows as it is stored or, transposed, in columns.
void by_vector(
    Sgemv sgemv, int transpose, int length, int K, float alpha, const float* a, int a_row, const float* x, int x_step,
    float beta, float* y, int y_step) {
  const bool stored = transpose == NO_TRANSPOSE;
  const Parts parts = parts_of(length, static_cast<double>(length) * K, LEAST_VECTOR_WORK, VECTOR_PARTS_PER_THREAD);
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

// Tiles of our own, or none where the BLAS's products are as fast. A wrong name of an instruction set is told by what
// loads the kernels.
const native::ProductKernels* product_kernels() {
#ifdef NATIVE_X86
  static const native::ProductKernels* const chosen = []() -> const native::ProductKernels* {
    try {
      return native::isa() == native::Isa::avx512 ? &avx512::products : nullptr;
    } catch (const std::invalid_argument&) {
      return nullptr;
    }
  }();
  return chosen;
#else
  return nullptr;
#endif
}

// A matrix as its lines (the rows of the left one, the columns of the right one) and the steps of the sum.
struct Operand {
  const float* at;
  long line, step;
  int lines;
  // Lines of a tile, and what packs them.
  int tile;
  void (*pack)(float* to, const float* from, long line, long step, int count, int K);

  // Packs panels `first` to `last` of steps `k` to k + K, one behind the other.
  void pack_panels(float* to, int first, int last, int k, int K) const {
    const long from = static_cast<long>(first) * tile, until = std::min<long>(static_cast<long>(last) * tile, lines);
    pack(to, at + from * line + k * step, line, step, static_cast<int>(until - from), K);
  }

  int panels() const { return (lines - 1) / tile + 1; }
};

// Where part `part` of so many begins among `count` panels, all parts as long as each other.
int beginning(int part, int parts, int count) {
  return static_cast<int>(static_cast<long>(part) * count / parts);
}

int at_most(int most, long number) {
  return static_cast<int>(std::min<long>(most, number));
}

// Steps of the sum for which packed panels stay in the caches, lines of the shared matrix that are packed at a time, and
// lines of the other that one part packs.
constexpr int STEPS = 384, SHARED_LINES = 2048, PART_LINES = 112;
// Pieces of memory: of the thread that asks for a product, and of each that computes a part.
constexpr int SHARED = 0, OWN = 1;

// c = alpha a b + beta c. The matrix with fewer lines is packed once, by all threads; each part packs its own lines of
// the other, and computes their tiles.
void by_tiles(
    const native::ProductKernels& kernels, const Operand& a, const Operand& b, int K, float alpha, float beta, float* c,
    long c_row) {
  const bool shares_b = a.lines >= b.lines;
  const Operand& shared = shares_b ? b : a;
  const Operand& other = shares_b ? a : b;
  const int rounds = (K + STEPS - 1) / STEPS, steps = (K + rounds - 1) / rounds;
  const int most = SHARED_LINES / shared.tile, most_of_part = std::max(1, PART_LINES / other.tile);
  // Some parts for each thread, and as many for one as for the other: a thread that has lost its core for a while does
  // fewer of them.
  const int least = (other.panels() + most_of_part - 1) / most_of_part, several = 2 * native::num_threads();
  const int parts = std::min(other.panels(), (least + several - 1) / several * several);
  for (int shared_first = 0; shared_first < shared.panels(); shared_first += most) {
    const int shared_last = std::min(shared.panels(), shared_first + most), count = shared_last - shared_first;
    for (int k = 0; k < K; k += steps) {
      const int length = std::min(steps, K - k);
      const float kept = k == 0 ? beta : 1.0f;
      float* packed = native::scratch<SHARED>(static_cast<long>(count) * shared.tile * length);
      const int slices = std::min(count, several);
      native::parallel(slices, [&](int slice, int) {
        const int first = beginning(slice, slices, count), last = beginning(slice + 1, slices, count);
        shared.pack_panels(
            packed + static_cast<long>(first) * shared.tile * length, shared_first + first, shared_first + last, k, length);
      });
      native::parallel(parts, [&](int part, int) {
        const int first = beginning(part, parts, other.panels()), last = beginning(part + 1, parts, other.panels());
        float* own = native::scratch<OWN>(static_cast<long>(last - first) * other.tile * length);
        other.pack_panels(own, first, last, k, length);
        // Panels of b in the outer loop: one stays in the nearest cache while the smaller ones of a pass by.
        const float* a_packed = shares_b ? own : packed;
        const float* b_packed = shares_b ? packed : own;
        const int a_first = shares_b ? first : shared_first, a_last = shares_b ? last : shared_last;
        const int b_first = shares_b ? shared_first : first, b_last = shares_b ? shared_last : last;
        for (int j = b_first; j < b_last; j++)
          for (int i = a_first; i < a_last; i++) {
            const long row = static_cast<long>(i) * a.tile, column = static_cast<long>(j) * b.tile;
            kernels.tile(
                a_packed + static_cast<long>(i - a_first) * a.tile * length,
                b_packed + static_cast<long>(j - b_first) * b.tile * length, length, c + row * c_row + column, c_row, alpha,
                kept, at_most(a.tile, a.lines - row), at_most(b.tile, b.lines - column));
          }
      });
    }
  }
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
  const double work = static_cast<double>(M) * N * K;
  const native::ProductKernels* kernels = product_kernels();
  if (kernels != nullptr && work >= LEAST_WORK && std::min(M, N) >= LEAST_LINES && alpha != 0) {
    const bool a_stored = transpose_a == NO_TRANSPOSE, b_stored = transpose_b == NO_TRANSPOSE;
    const Operand left{a, a_stored ? a_row : 1, a_stored ? 1 : a_row, M, kernels->rows, kernels->pack_rows};
    const Operand right{b, b_stored ? 1 : b_row, b_stored ? b_row : 1, N, kernels->columns, kernels->pack_columns};
    by_tiles(*kernels, left, right, K, alpha, beta, c, c_row);
    return;
  }
  const Sgemm sgemm = single_threaded;
  const bool by_rows = M >= N;
  const Parts parts = parts_of(by_rows ? M : N, work, LEAST_WORK, 1);
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

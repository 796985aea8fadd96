// Steps of AdamW, Lion and Muon and the sum of squares, compiled once for each instruction set.
//
// A step reads each number once and writes it once: memory is what it costs. The gradient of a matrix that multiplies
// from the right comes transposed from the product that made it, and is turned in blocks that stay in the cache.

#include "simd.h"
#include "update.h"

namespace NATIVE_ISA {
namespace {

using native::Update;

// A block of a transposed gradient.
constexpr int ROWS = 32, COLUMNS = 128;

typedef float Half __attribute__((vector_size(2 * W)));
typedef double Doubles __attribute__((vector_size(4 * W)));

struct Numbers {
  Vec parameter, mean, square;
};

// Loshchilov and Hutter, https://arxiv.org/abs/1711.05101.
struct AdamW {
  static constexpr bool has_mean = true, has_square = true;

  NATIVE_INLINE Numbers step(const Update& u, Vec gradient, const Numbers& old) {
    const Vec g = gradient * u.scale;
    const Vec mean = old.mean * u.beta1 + g * u.rest1;
    const Vec square = old.square * u.beta2 + g * g * u.rest2;
    return {old.parameter * u.keep - mean * u.rate / (vsqrt(square) * u.root + u.eps), mean, square};
  }
};

// Chen et al., https://arxiv.org/abs/2302.06675.
struct Lion {
  static constexpr bool has_mean = true, has_square = false;

  NATIVE_INLINE Numbers step(const Update& u, Vec gradient, const Numbers& old) {
    const Vec g = gradient * u.scale;
    const Vec towards = old.mean * u.beta1 + g * u.rest1;
    // Of 0 it is 0, of NaN NaN.
    const Vec one = splat(1.0f);
    const Vec sign = towards > 0.0f ? one : towards < 0.0f ? -one : towards;
    return {old.parameter * u.keep - sign * u.rate, old.mean * u.beta2 + g * u.rest2, Vec{}};
  }
};

// Jordan, https://kellerjordan.github.io/posts/muon/, before the direction is made orthogonal.
struct Muon {
  static constexpr bool has_mean = true, has_square = false;

  NATIVE_INLINE Numbers step(const Update& u, Vec gradient, const Numbers& old) {
    const Vec g = gradient * u.scale + old.parameter * u.decay;
    const Vec mean = old.mean * u.beta1 + g * u.rest1;
    return {g * u.rest2 + mean * u.beta2, mean, Vec{}};
  }
};

// Along a direction.
struct Descent {
  static constexpr bool has_mean = false, has_square = false;

  NATIVE_INLINE Numbers step(const Update& u, Vec gradient, const Numbers& old) {
    return {old.parameter - gradient * u.scale * u.rate, Vec{}, Vec{}};
  }
};

// Steps of `count` numbers from `at` on, with the gradient of the first of them at `gradient`.
template <typename Rule>
NATIVE_INLINE void run(const Update& u, const float* gradient, long at, long count) {
  long i = 0;
  for (; i + W <= count; i += W) {
    Numbers old = {load(u.parameter + at + i), Vec{}, Vec{}};
    if (Rule::has_mean) old.mean = load(u.mean + at + i);
    if (Rule::has_square) old.square = load(u.square + at + i);
    const Numbers now = Rule::step(u, load(gradient + i), old);
    store(u.new_parameter + at + i, now.parameter);
    if (Rule::has_mean) store(u.new_mean + at + i, now.mean);
    if (Rule::has_square) store(u.new_square + at + i, now.square);
  }
  if (i == count) return;
  const int lanes = static_cast<int>(count - i);
  Numbers old = {load_some(u.parameter + at + i, lanes), Vec{}, Vec{}};
  if (Rule::has_mean) old.mean = load_some(u.mean + at + i, lanes);
  if (Rule::has_square) old.square = load_some(u.square + at + i, lanes);
  const Numbers now = Rule::step(u, load_some(gradient + i, lanes), old);
  store_some(u.new_parameter + at + i, now.parameter, lanes);
  if (Rule::has_mean) store_some(u.new_mean + at + i, now.mean, lanes);
  if (Rule::has_square) store_some(u.new_square + at + i, now.square, lanes);
}

template <typename Rule>
void flat(const Update& given, long first, long last) {
  // A copy, which what is stored cannot change, stays in registers.
  const Update u = given;
  run<Rule>(u, u.gradient + first, first, last - first);
}

// to[row, column] = from[column, row] of `rows` and `columns`; rows of `to` have COLUMNS numbers. A few columns at a time,
// all their rows: lines of columns that lie a power of two apart drive each other out of the cache.
void turn(float* to, const float* from, long from_row, int rows, int columns) {
  int column = 0;
  for (; column + W <= columns; column += W) {
    int row = 0;
    for (; row + W <= rows; row += W) {
      Vec block[W];
      for (int i = 0; i < W; i++) block[i] = load(from + (column + i) * from_row + row);
      transpose_block(block);
      for (int i = 0; i < W; i++) store(to + (row + i) * COLUMNS + column, block[i]);
    }
    for (; row < rows; row++)
      for (int i = 0; i < W; i++) to[row * COLUMNS + column + i] = from[(column + i) * from_row + row];
  }
  for (; column < columns; column++)
    for (int row = 0; row < rows; row++) to[row * COLUMNS + column] = from[column * from_row + row];
}

template <typename Rule>
void transposed(const Update& given, long R, long C, long first, long last) {
  const Update u = given;
  float block[ROWS * COLUMNS];
  for (long row = first; row < last; row += ROWS) {
    const int rows = static_cast<int>(least<long>(ROWS, last - row));
    for (long column = 0; column < C; column += COLUMNS) {
      const int columns = static_cast<int>(least<long>(COLUMNS, C - column));
      turn(block, u.gradient + column * R + row, R, rows, columns);
      for (int i = 0; i < rows; i++) run<Rule>(u, block + i * COLUMNS, (row + i) * C + column, columns);
    }
  }
}

// In float64, where no square of a float32 overflows or vanishes.
double sum_of_squares(const float* from, long count) {
  constexpr int abreast = 4, lanes = W / 2;
  Doubles sums[abreast] = {};
  long i = 0;
  for (; i + abreast * lanes <= count; i += abreast * lanes)
    for (int j = 0; j < abreast; j++) {
      Half half;
      __builtin_memcpy(&half, from + i + j * lanes, sizeof(half));
      const Doubles x = __builtin_convertvector(half, Doubles);
      sums[j] += x * x;
    }
  const Doubles all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  double total = 0;
  for (int j = 0; j < lanes; j++) total += all[j];
  for (; i < count; i++) total += static_cast<double>(from[i]) * from[i];
  return total;
}

}  // namespace

extern const native::UpdateKernels update;
const native::UpdateKernels update = {{flat<AdamW>, transposed<AdamW>},
                                      {flat<Lion>, transposed<Lion>},
                                      {flat<Muon>, transposed<Muon>},
                                      {flat<Descent>, transposed<Descent>},
                                      sum_of_squares};

}  // namespace NATIVE_ISA

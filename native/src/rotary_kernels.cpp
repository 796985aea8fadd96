// Rotary positions, compiled once for each instruction set: pair i of a head turns by the angle position * frequency_i.
//
//     y = x cos + partner(x) sin
//
// with partner(x) = (-second, first) for (first, second), the halves of a head or adjacent numbers. Angles are float64,
// since a float32 angle at position 1000 is off by 6e-5; their sines are computed once a position, for all heads.

#include "rotary.h"
#include "simd.h"

namespace NATIVE_ISA {
namespace {

using native::Rotary;

// As many lanes as a vector of float32.
typedef double Doubles __attribute__((vector_size(8 * W)));
typedef int64_t Longs __attribute__((vector_size(8 * W)));

// Sine and cosine, for angles up to 2^50. A quarter turn is reduced in two parts; Taylor's series on [-pi/4, pi/4] err by
// less than 1e-11.
NATIVE_INLINE void sine_and_cosine(Doubles angle, Vec& sine, Vec& cosine) {
  // Adding it rounds to a whole number and leaves that in the lowest bits.
  constexpr double SHIFT = 6755399441055744.0;
  const Doubles shifted = angle * 0.63661977236758134308 + SHIFT;
  const Doubles turns = shifted - SHIFT;
  const Doubles r = (angle - turns * 1.57079632679489655800) - turns * 6.12323399573676603587e-17;
  const Doubles z = r * r;
  Doubles s = z * (-1.0 / 39916800) + 1.0 / 362880;
  s = s * z - 1.0 / 5040;
  s = s * z + 1.0 / 120;
  s = s * z - 1.0 / 6;
  s = r + r * (z * s);
  Doubles c = z * (1.0 / 479001600) - 1.0 / 3628800;
  c = c * z + 1.0 / 40320;
  c = c * z - 1.0 / 720;
  c = c * z + 1.0 / 24;
  c = c * z - 0.5;
  c = c * z + 1.0;
  const Longs quarter = (Longs)shifted;
  const Doubles a = (quarter & 1) != 0 ? c : s, b = (quarter & 1) != 0 ? s : c;
  sine = __builtin_convertvector((quarter & 2) != 0 ? -a : a, Vec);
  cosine = __builtin_convertvector(((quarter + 1) & 2) != 0 ? -b : b, Vec);
}

#if NATIVE_WIDTH == 4
#define NATIVE_SWAPPED 1, 0, 3, 2
#elif NATIVE_WIDTH == 8
#define NATIVE_SWAPPED 1, 0, 3, 2, 5, 4, 7, 6
#else
#define NATIVE_SWAPPED 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14
#endif

NATIVE_INLINE Vec with_neighbours_swapped(Vec v) {
  return __builtin_shufflevector(v, v, NATIVE_SWAPPED);
}

// Adjacent pairs; cosines and sines are [H], the sines of the first of a pair negated.
NATIVE_INLINE void turn_pairs(const float* x, float* y, int H, const float* cosines, const float* sines) {
  for (int i = 0; i < H; i += W) {
    const int lanes = H - i < W ? H - i : W;
    const Vec v = lanes == W ? load(x + i) : load_some(x + i, lanes);
    const Vec turned = v * load(cosines + i) + with_neighbours_swapped(v) * load(sines + i);
    if (lanes == W) {
      store(y + i, turned);
    } else {
      store_some(y + i, turned, lanes);
    }
  }
}

// The two halves; cosines and sines are [H / 2].
NATIVE_INLINE void turn_halves(const float* x, float* y, int half, const float* cosines, const float* sines) {
  for (int i = 0; i < half; i += W) {
    const int lanes = half - i < W ? half - i : W;
    const Vec c = load(cosines + i), s = load(sines + i);
    if (lanes == W) {
      const Vec first = load(x + i), second = load(x + half + i);
      store(y + i, first * c - second * s);
      store(y + half + i, second * c + first * s);
    } else {
      const Vec first = load_some(x + i, lanes), second = load_some(x + half + i, lanes);
      store_some(y + i, first * c - second * s, lanes);
      store_some(y + half + i, second * c + first * s, lanes);
    }
  }
}

// Cosines, sines, and a row whose numbers lie apart.
long scratch_floats(const Rotary& a) {
  return 3L * (padded(a.H) + W);
}

// Cosines and sines of a position, each [H / 2] rounded up, or [H] for adjacent pairs.
void fill(const Rotary& a, double position, float* cosines, float* sines) {
  const int half = a.H / 2;
  for (int i = 0; i < half; i += W) {
    Doubles frequencies;
    __builtin_memcpy(&frequencies, a.frequencies + i, sizeof(frequencies));
    Vec sine, cosine;
    sine_and_cosine(frequencies * position, sine, cosine);
    store(cosines + i, cosine);
    store(sines + i, sine * a.direction);
  }
  if (!a.traditional) return;
  // From the last, so that nothing is overwritten before it is read.
  for (int i = half - 1; i >= 0; i--) {
    const float cosine = cosines[i], sine = sines[i];
    cosines[2 * i] = cosines[2 * i + 1] = cosine;
    sines[2 * i] = -sine;
    sines[2 * i + 1] = sine;
  }
}

void turn(const Rotary& a, int offset, int first, int last, float* scratch) {
  const int room = padded(a.H) + W;
  float *cosines = scratch, *sines = scratch + room, *gathered = sines + room;
  const int first_batch = a.num_offsets == 1 ? 0 : offset, last_batch = a.num_offsets == 1 ? a.B : offset + 1;
  for (int l = first; l < last; l++) {
    fill(a, static_cast<double>(a.offsets[offset]) + l, cosines, sines);
    for (int b = first_batch; b < last_batch; b++)
      for (int n = 0; n < a.N; n++) {
        const float* x = a.x + b * a.x_batch + n * a.x_head + l * a.x_row;
        if (a.x_column != 1) {
          for (int h = 0; h < a.H; h++) gathered[h] = x[h * a.x_column];
          x = gathered;
        }
        float* y = a.y + b * a.y_batch + n * a.y_head + l * a.y_row;
        if (a.traditional) {
          turn_pairs(x, y, a.H, cosines, sines);
        } else {
          turn_halves(x, y, a.H / 2, cosines, sines);
        }
      }
  }
}

}  // namespace

extern const native::RotaryKernels rotary;
const native::RotaryKernels rotary = {scratch_floats, turn};

}  // namespace NATIVE_ISA

// What the primitives of one pass over their arrays share.
#pragma once

#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

#include "mlx/allocator.h"
#include "mlx/array.h"
#include "mlx/backend/common/utils.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/ops.h"
#include "mlx/primitives.h"

#include "attention.h"
#include "scratch.h"

namespace native {

namespace mx = mlx::core;

// A primitive of the CPU alone.
class CpuPrimitive : public mx::Primitive {
 public:
  using mx::Primitive::Primitive;

  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) override {
    throw std::runtime_error(std::string(name()) + " runs on the CPU");
  }
};

inline void require(bool holds, const char* message) {
  if (!holds) throw std::invalid_argument(message);
}

// The array in rows without gaps.
inline mx::array whole(const mx::array& x, mx::Stream stream) {
  return mx::contiguous(x, false, stream);
}

// Memory of an output: that of the first of the donors, of one shape with it, that nobody else needs, else new.
inline void allocate(mx::array& x, std::initializer_list<const mx::array*> donors = {}) {
  for (const mx::array* donor : donors) {
    if (!mx::is_donatable(*donor, x)) continue;
    x.copy_shared_buffer(*donor);
    return;
  }
  x.set_data(mx::allocator::malloc(x.nbytes()));
}

// Memory of [B, N, L, H] that is [B, L, N, H] there, so that joining the heads copies nothing.
inline void allocate_joined(mx::array& x) {
  const mx::ShapeElem N = x.shape(1), L = x.shape(2), H = x.shape(3);
  const mx::Strides strides = {int64_t(L) * N * H, H, int64_t(N) * H, 1};
  const bool same = N == 1 || L == 1;
  x.set_data(mx::allocator::malloc(x.nbytes()), x.size(), strides, {true, same, x.size() == 1});
}

inline Strides4 strides_of(const mx::array& x) {
  const auto& s = x.strides();
  return {s[0], s[1], s[2], s[3]};
}

// As MLX's own primitives hold what they compute on: it keeps inputs and outputs alive until the work is done.
inline mx::array held(const mx::array& x) {
  return mx::array::unsafe_weak_copy(x);
}

inline std::vector<mx::array> held(const std::vector<mx::array>& arrays) {
  std::vector<mx::array> all;
  for (const auto& each : arrays) all.push_back(held(each));
  return all;
}

}  // namespace native

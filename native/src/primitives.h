// The arrays' side of the kernels.
#pragma once

#include <optional>

#include "mlx/array.h"
#include "mlx/utils.h"

namespace native {

namespace mx = mlx::core;

// Which pairs of a query and a key a pattern allows, in tiles; the arrays are as `Attention` has them.
struct TileMap {
  int query_tile, key_tile;
  mx::array row_starts, columns, kinds, masks;
};

// Softmax attention under a pattern. q [B, N, L, H], k and v [B, K, S, H], float32; returns [B, N, L, H].
mx::array attention(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    float scale,
    const TileMap& tiles,
    const std::optional<mx::array>& dense,
    const std::optional<mx::array>& lengths,
    const std::optional<mx::array>& segments,
    const std::optional<mx::array>& slopes,
    const std::optional<mx::array>& query_positions,
    const std::optional<mx::array>& key_positions,
    const std::optional<mx::array>& sinks);

// Cross-entropy in nats, float32 [P], of float32 logits [P, V] and int32 targets [P].
mx::array cross_entropy(const mx::array& logits, const mx::array& targets);

}  // namespace native

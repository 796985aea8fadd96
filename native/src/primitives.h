// The arrays' side of the kernels.
#pragma once

#include <optional>
#include <vector>

#include "mlx/array.h"
#include "mlx/utils.h"

#include "activations.h"
#include "linear.h"

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

// Causal linear attention. q [B, N, L, H], k and v [B, K, L, H], float32; `segments` int32 [B, L] or `state` float32
// [B, K, H, H + 1], the sums before the first token, or neither. Returns y and the sums after the last token.
std::vector<mx::array> linear_attention(
    const mx::array& q, const mx::array& k, const mx::array& v, Features features, float eps, int chunk_size,
    const std::optional<mx::array>& segments, const std::optional<mx::array>& state);

// The gated delta rule. q, k and v [B, N, L, H], gamma and beta [B, N, L], the state before the first token [B, N, H, H],
// values by keys, all float32. Returns y and the state after the last token.
std::vector<mx::array> gated_delta(
    const mx::array& q, const mx::array& k, const mx::array& v, const mx::array& gamma, const mx::array& beta,
    const mx::array& state);

// Cross-entropy in nats, float32 [P], of float32 logits [P, V] and int32 targets [P].
mx::array cross_entropy(const mx::array& logits, const mx::array& targets);

// Along the last axis, of any shape, float32; log-sum-exp keeps that axis, with one number. All numbers of a row
// -infinity: the softmax is NaN, as MLX and PyTorch have it, and the logarithm -infinity.
mx::array softmax(const mx::array& x);
mx::array log_sum_exp(const mx::array& x);

// The same array, once others are computed: what is made of it then takes the memory that they no longer need. MLX's
// `depends` only orders; the CPU back end allocates ahead all the same.
mx::array after(const mx::array& x, const std::vector<mx::array>& others);

// The settings of AdamW and of Lion, which has no eps.
struct Rates {
  double beta1, beta2, eps, weight_decay;

  bool operator==(const Rates&) const = default;
};

// The parameter after a step of AdamW, with bias correction, and its two means. All float32 of one shape; `rate` and
// `scale`, which the gradient is multiplied by, float32 scalars, `step` the number of this step from 1 on.
std::vector<mx::array> adamw(
    const mx::array& parameter,
    const mx::array& gradient,
    const mx::array& mean,
    const mx::array& square,
    const mx::array& rate,
    const mx::array& step,
    const mx::array& scale,
    const Rates& rates);

// The same of Lion, which has one mean.
std::vector<mx::array> lion(
    const mx::array& parameter,
    const mx::array& gradient,
    const mx::array& mean,
    const mx::array& rate,
    const mx::array& scale,
    const Rates& rates);

// The direction of a step of Muon, before it is made orthogonal, and its mean. Weight decay is added to the gradient.
std::vector<mx::array> muon(
    const mx::array& parameter,
    const mx::array& gradient,
    const mx::array& mean,
    const mx::array& scale,
    double momentum,
    bool nesterov,
    double weight_decay);

// parameter - rate * direction, of one shape, float32; `rate` a float32 scalar.
mx::array descent(const mx::array& parameter, const mx::array& direction, const mx::array& rate);

// The root of the sum of all squares, a float32 scalar, of float32 arrays; summed in float64.
mx::array global_norm(const std::vector<mx::array>& arrays);

// An activation of any shape, float32.
mx::array activation(Activation which, const mx::array& x);

// silu(gate) * up, of one shape, float32; the gradient computes it anew from both.
mx::array swiglu(const mx::array& gate, const mx::array& up);

// x / sqrt(mean(x^2) + eps) * weight along the last axis; weight [D] or none.
mx::array rms_norm(const mx::array& x, const std::optional<mx::array>& weight, float eps);

// (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias along the last axis; weight and bias [D], or none of either.
mx::array layer_norm(
    const mx::array& x, const std::optional<mx::array>& weight, const std::optional<mx::array>& bias, float eps);

// Rotary positions of x [B, N, L, H], float32: pair i turns by the angle (offset + row) scale / wavelength_i, where
// wavelengths, float32 [H / 2], may be base^(2i / H) instead. Pairs are the two halves, or if `traditional` adjacent
// numbers. `offsets`: int32, one or B.
mx::array rotate(
    const mx::array& x, const mx::array& offsets, const std::optional<double>& base,
    const std::optional<mx::array>& wavelengths, double scale, bool traditional);

}  // namespace native

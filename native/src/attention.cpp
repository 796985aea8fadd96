// The MLX primitive of attention and that of its gradient.

#include "attention.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "arrays.h"
#include "pool.h"
#include "primitives.h"

namespace native {
namespace {

// Inputs after q, k and v, in this order; those of `flags` alone are there.
enum Input { DENSE, LENGTHS, SEGMENTS, SLOPES, QUERY_POSITIONS, KEY_POSITIONS, SINKS, NUM_INPUTS };
// Before them: row_starts, columns, kinds and masks.
constexpr int NUM_FIXED = 7;

struct Settings {
  float scale;
  int query_tile, key_tile;
  unsigned flags;

  bool has(Input input) const { return flags >> input & 1; }
  bool operator==(const Settings&) const = default;
};

long batch_stride(const mx::array& x) {
  return x.shape(0) == 1 ? 0 : x.strides(0);
}

Attention described(const Settings& settings, const std::vector<mx::array>& in) {
  Attention a{};
  const auto &q = in[0], &k = in[1], &v = in[2];
  a.B = q.shape(0), a.N = q.shape(1), a.L = q.shape(2), a.H = q.shape(3), a.K = k.shape(1), a.S = k.shape(2);
  a.scale = settings.scale, a.T = settings.query_tile, a.U = settings.key_tile;
  a.q = q.data<float>(), a.k = k.data<float>(), a.v = v.data<float>();
  a.q_strides = strides_of(q), a.k_strides = strides_of(k), a.v_strides = strides_of(v);
  a.row_starts = in[3].data<int32_t>(), a.columns = in[4].data<int32_t>(), a.kinds = in[5].data<int32_t>();
  a.masks = in[6].data<uint8_t>();
  int next = NUM_FIXED;
  auto input = [&](Input which) { return settings.has(which) ? &in[next++] : nullptr; };
  if (auto x = input(DENSE)) a.dense = x->data<uint8_t>(), a.dense_batch = batch_stride(*x);
  if (auto x = input(LENGTHS)) a.lengths = x->data<int32_t>();
  if (auto x = input(SEGMENTS)) a.segments = x->data<int32_t>();
  if (auto x = input(SLOPES)) a.slopes = x->data<float>();
  if (auto x = input(QUERY_POSITIONS)) a.query_positions = x->data<int32_t>(), a.query_positions_batch = batch_stride(*x);
  if (auto x = input(KEY_POSITIONS)) a.key_positions = x->data<int32_t>(), a.key_positions_batch = batch_stride(*x);
  if (auto x = input(SINKS)) a.sinks = x->data<float>();
  return a;
}

// Query tiles are shared out to this many parts where there are too few heads for every core.
int parts_of(int groups, int rows) {
  const int threads = num_threads();
  return groups >= 2 * threads || groups % threads == 0 ? 1 : std::clamp(rows, 1, threads);
}

void attend(const Attention& a, const Outputs& out) {
  const auto& kernels = attention_kernels();
  const long floats = kernels.scratch_floats(a);
  if (a.L == 1) {
    parallel(a.B * a.K, [&](int task, int) { kernels.decode(a, out, task / a.K, task % a.K, scratch(floats)); });
    return;
  }
  const int rows = (a.L + a.T - 1) / a.T;
  // Late tiles of a causal pattern have most to do, and come first.
  parallel(a.B * a.N * rows, [&](int task, int) {
    const int head = task % (a.B * a.N), row = rows - 1 - task / (a.B * a.N);
    kernels.forward(a, out, head / a.N, head % a.N, row, scratch(floats));
  });
}

void differentiate(const Attention& a, const Gradients& g) {
  const auto& kernels = attention_kernels();
  const long floats = kernels.scratch_floats(a), size = static_cast<long>(a.S) * a.H;
  const int rows = (a.L + a.T - 1) / a.T, groups = a.B * a.K, parts = parts_of(groups, rows);
  // Part 0 of a group adds to the gradient itself, the others to sums of their own, which are added in order.
  std::vector<float> sums(2 * size * groups * (parts - 1));
  // Parts of equal work: tiles that hold a pair.
  std::vector<int> bounds(parts + 1, rows);
  for (int part = 0, row = 0; part < parts; part++) {
    bounds[part] = row;
    const long until = static_cast<long>(a.row_starts[rows]) * (part + 1) / parts;
    while (row < rows && a.row_starts[row + 1] <= until) row++;
  }
  const auto own = [&](int group) {
    const long start = ((static_cast<long>(group / a.K) * a.S) * a.K + group % a.K) * a.H;
    return GradientSums{g.dk + start, g.dv + start, static_cast<long>(a.K) * a.H};
  };
  const auto further = [&](int group, int part) {
    float* dk = sums.data() + 2 * (group * (parts - 1L) + part - 1) * size;
    return GradientSums{dk, dk + size, a.H};
  };
  parallel(groups * parts, [&](int task, int) {
    const int group = task / parts, part = task % parts;
    const GradientSums to = part == 0 ? own(group) : further(group, part);
    for (int s = 0; s < a.S; s++) {
      std::fill_n(to.dk + s * to.row, a.H, 0.0f);
      std::fill_n(to.dv + s * to.row, a.H, 0.0f);
    }
    kernels.backward(a, g, group / a.K, group % a.K, bounds[part], bounds[part + 1], to, scratch(floats));
  });
  if (parts == 1) return;
  parallel(groups, [&](int group, int) {
    const GradientSums to = own(group);
    for (int part = 1; part < parts; part++) {
      const GradientSums from = further(group, part);
      for (int s = 0; s < a.S; s++)
        for (int h = 0; h < a.H; h++) {
          to.dk[s * to.row + h] += from.dk[static_cast<long>(s) * a.H + h];
          to.dv[s * to.row + h] += from.dv[static_cast<long>(s) * a.H + h];
        }
    }
  });
}

class AttentionGradient : public CpuPrimitive {
 public:
  AttentionGradient(mx::Stream stream, Settings settings) : CpuPrimitive(stream), settings_(settings) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    for (auto& output : outputs) allocate_joined(output);
    // y, its log-sum-exp and dy come last.
    const size_t n = inputs.size();
    const auto &y = inputs[n - 3], &log_sums = inputs[n - 2], &dy = inputs[n - 1];
    auto& encoder = mx::cpu::get_command_encoder(stream());
    encoder.dispatch([settings = settings_, in = inputs, y, log_sums, dy, dq = outputs[0], dk = outputs[1],
                      dv = outputs[2]]() mutable {
      const Gradients g = {y.data<float>(), dy.data<float>(), log_sums.data<float>(), strides_of(y), strides_of(dy),
                           dq.data<float>(), dk.data<float>(), dv.data<float>()};
      differentiate(described(settings, in), g);
    });
  }

  const char* name() const override { return "NativeAttentionGradient"; }

  bool is_equivalent(const Primitive& other) const override {
    return settings_ == static_cast<const AttentionGradient&>(other).settings_;
  }

 private:
  Settings settings_;
};

class AttentionForward : public CpuPrimitive {
 public:
  AttentionForward(mx::Stream stream, Settings settings) : CpuPrimitive(stream), settings_(settings) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    allocate_joined(outputs[0]);
    allocate(outputs[1]);
    auto& encoder = mx::cpu::get_command_encoder(stream());
    encoder.dispatch([settings = settings_, in = inputs, y = outputs[0], log_sums = outputs[1]]() mutable {
      attend(described(settings, in), {y.data<float>(), strides_of(y), log_sums.data<float>()});
    });
  }

  std::vector<mx::array> vjp(
      const std::vector<mx::array>& primals,
      const std::vector<mx::array>& cotangents,
      const std::vector<int>& argnums,
      const std::vector<mx::array>& outputs) override {
    std::vector<mx::array> inputs = primals;
    inputs.insert(inputs.end(), {outputs[0], outputs[1], cotangents[0]});
    const std::vector<mx::Shape> shapes = {primals[0].shape(), primals[1].shape(), primals[2].shape()};
    const auto gradients = mx::array::make_arrays(
        shapes, {mx::float32, mx::float32, mx::float32}, std::make_shared<AttentionGradient>(stream(), settings_), inputs);
    std::vector<mx::array> result;
    for (int argnum : argnums) {
      if (argnum < 3) {
        result.push_back(gradients[argnum]);
      } else if (settings_.has(SINKS) && argnum == static_cast<int>(primals.size()) - 1) {
        result.push_back(sinks_gradient(primals[argnum], cotangents[0], outputs));
      } else {
        // ALiBi's slopes are constants, the rest are indices.
        result.push_back(mx::zeros_like(primals[argnum], stream()));
      }
    }
    return result;
  }

  const char* name() const override { return "NativeAttention"; }

  bool is_equivalent(const Primitive& other) const override {
    return settings_ == static_cast<const AttentionForward&>(other).settings_;
  }

 private:
  // The virtual key's weight times dy·v - sum(dy·y), with no value v.
  mx::array sinks_gradient(const mx::array& sinks, const mx::array& dy, const std::vector<mx::array>& outputs) {
    const auto s = stream();
    const auto logits = mx::multiply(mx::maximum(sinks, mx::array(-1e30f), s), mx::array(1.44269504088896341f), s);
    const auto powers = mx::subtract(mx::reshape(logits, {-1, 1}, s), outputs[1], s);
    const auto weights = mx::power(mx::array(2.0f), powers, s);
    const auto shared = mx::sum(mx::multiply(dy, outputs[0], s), -1, false, s);
    return mx::negative(mx::sum(mx::multiply(weights, shared, s), std::vector<int>{0, 2}, false, s), s);
  }

  Settings settings_;
};

}  // namespace

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
    const std::optional<mx::array>& sinks) {
  require(q.ndim() == 4 && k.ndim() == 4 && v.shape() == k.shape(), "q, k and v must be [B, N, L, H], [B, K, S, H] twice");
  require(q.shape(0) == k.shape(0) && q.shape(3) == k.shape(3), "q, k and v must agree in batch and head_dim");
  require(k.shape(1) > 0 && q.shape(1) % k.shape(1) == 0, "key/value heads must divide the query heads");
  require(q.dtype() == mx::float32 && k.dtype() == mx::float32 && v.dtype() == mx::float32, "q, k and v must be float32");
  require(tiles.query_tile % 16 == 0 && tiles.query_tile > 0 && tiles.key_tile > 0, "query_tile must be a multiple of 16");
  const int rows = (q.shape(2) + tiles.query_tile - 1) / tiles.query_tile;
  require(tiles.row_starts.size() == static_cast<size_t>(rows) + 1, "row_starts must have one number more than query tiles");
  require(slopes.has_value() == (query_positions.has_value() && key_positions.has_value()), "slopes need positions");
  const auto stream = mx::default_stream(mx::Device::cpu);
  Settings settings = {scale, tiles.query_tile, tiles.key_tile, 0};
  auto whole = [&](const mx::array& x, mx::Dtype dtype) { return mx::contiguous(mx::astype(x, dtype, stream), false, stream); };
  std::vector<mx::array> inputs = {
      q, k, v, whole(tiles.row_starts, mx::int32), whole(tiles.columns, mx::int32), whole(tiles.kinds, mx::int32),
      whole(tiles.masks, mx::uint8)};
  auto add = [&](Input which, const std::optional<mx::array>& x, mx::Dtype dtype) {
    if (!x.has_value()) return;
    settings.flags |= 1u << which;
    inputs.push_back(whole(*x, dtype));
  };
  add(DENSE, dense, mx::uint8);
  add(LENGTHS, lengths, mx::int32);
  add(SEGMENTS, segments, mx::int32);
  add(SLOPES, slopes, mx::float32);
  add(QUERY_POSITIONS, query_positions, mx::int32);
  add(KEY_POSITIONS, key_positions, mx::int32);
  add(SINKS, sinks, mx::float32);
  const mx::Shape log_sums = {q.shape(0), q.shape(1), q.shape(2)};
  return mx::array::make_arrays(
      {q.shape(), log_sums}, {mx::float32, mx::float32}, std::make_shared<AttentionForward>(stream, settings), inputs)[0];
}

}  // namespace native

// The MLX primitive of causal linear attention and that of its gradient.

#include "linear.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "arrays.h"
#include "pool.h"
#include "primitives.h"

namespace native {
namespace {

struct Settings {
  Features features;
  float eps;
  int chunk_size;
  // Whether segments, and a state, follow q, k and v.
  bool packed, goes_on;

  bool operator==(const Settings&) const = default;
};

// Of every row of the batch.
class Chunks {
 public:
  Chunks(const Settings& settings, const std::vector<mx::array>& in) : lists_(in[0].shape(0)) {
    const int L = in[0].shape(2);
    const int32_t* segments = settings.packed ? in[3].data<int32_t>() : nullptr;
    for (auto& list : lists_) {
      for (int first = 0; first < L;) {
        int last = std::min(L, first + settings.chunk_size);
        const bool fresh = segments != nullptr && first > 0 && segments[first] != segments[first - 1];
        for (int i = first + 1; segments != nullptr && i < last; i++)
          if (segments[i] != segments[i - 1]) last = i;
        list.push_back({first, last - first, fresh});
        first = last;
      }
      if (segments != nullptr) segments += L;
    }
  }

  ChunkList operator[](int row) const { return {lists_[row].data(), static_cast<int>(lists_[row].size())}; }

 private:
  std::vector<std::vector<Chunk>> lists_;
};

Linear described(const Settings& settings, const std::vector<mx::array>& in) {
  const auto &q = in[0], &k = in[1], &v = in[2];
  return {q.shape(0), q.shape(1), k.shape(1), q.shape(2), q.shape(3), std::min(settings.chunk_size, q.shape(2)),
          settings.features, settings.eps, q.data<float>(), k.data<float>(), v.data<float>(), strides_of(q), strides_of(k),
          strides_of(v), settings.goes_on ? in[3 + settings.packed].data<float>() : nullptr};
}

size_t num_given(const Settings& settings) {
  return 3 + settings.packed + settings.goes_on;
}

// Outputs: dq, dk, dv, and where a state was given its gradient. Inputs: those forward, then y, the denominators, dy and
// the gradient of the last state.
class LinearGradient : public CpuPrimitive {
 public:
  LinearGradient(mx::Stream stream, Settings settings) : CpuPrimitive(stream), settings_(settings) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    for (int i = 0; i < 3; i++) allocate_joined(outputs[i]);
    if (settings_.goes_on) allocate(outputs[3]);
    mx::cpu::get_command_encoder(stream()).dispatch([settings = settings_, in = held(inputs), out = held(outputs)]() mutable { run(settings, in, out); });
  }

  const char* name() const override { return "NativeLinearAttentionGradient"; }

  bool is_equivalent(const Primitive& other) const override {
    return settings_ == static_cast<const LinearGradient&>(other).settings_;
  }

 private:
  static void run(const Settings& settings, const std::vector<mx::array>& in, std::vector<mx::array>& out) {
    const Linear a = described(settings, in);
    const size_t next = num_given(settings);
    const auto &y = in[next], &denominators = in[next + 1], &dy = in[next + 2], &dlast = in[next + 3];
    const LinearGradients g = {y.data<float>(), denominators.data<float>(), dy.data<float>(), strides_of(y),
                               strides_of(dy), dlast.data<float>(), out[0].data<float>(), out[1].data<float>(),
                               out[2].data<float>(), settings.goes_on ? out[3].data<float>() : nullptr};
    const Chunks chunks(settings, in);
    const auto& kernels = linear_kernels();
    const long floats = kernels.scratch_floats(a);
    // Those of keys take longer, and come first.
    parallel(a.B * (a.K + a.N), [&](int task, int) {
      if (task < a.B * a.K) {
        kernels.of_keys(a, g, chunks[task / a.K], task / a.K, task % a.K, scratch(floats));
      } else {
        const int head = task - a.B * a.K;
        kernels.of_queries(a, g, chunks[head / a.N], head / a.N, head % a.N, scratch(floats));
      }
    });
  }

  Settings settings_;
};

// Outputs: y, the denominators and the last state.
class LinearForward : public CpuPrimitive {
 public:
  LinearForward(mx::Stream stream, Settings settings) : CpuPrimitive(stream), settings_(settings) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    allocate_joined(outputs[0]);
    allocate(outputs[1]);
    allocate(outputs[2]);
    mx::cpu::get_command_encoder(stream()).dispatch([settings = settings_, in = held(inputs), out = held(outputs)]() mutable {
      const Linear a = described(settings, in);
      const LinearOutputs to = {
          out[0].data<float>(), strides_of(out[0]), out[1].data<float>(), out[2].data<float>()};
      const Chunks chunks(settings, in);
      const auto& kernels = linear_kernels();
      const long floats = kernels.scratch_floats(a);
      parallel(a.B * a.K, [&](int task, int) {
        kernels.forward(a, to, chunks[task / a.K], task / a.K, task % a.K, scratch(floats));
      });
    });
  }

  std::vector<mx::array> vjp(
      const std::vector<mx::array>& primals,
      const std::vector<mx::array>& cotangents,
      const std::vector<int>& argnums,
      const std::vector<mx::array>& outputs) override {
    std::vector<mx::array> inputs = primals;
    inputs.insert(inputs.end(), {outputs[0], outputs[1], cotangents[0], whole(cotangents[2], stream())});
    std::vector<mx::Shape> shapes = {primals[0].shape(), primals[1].shape(), primals[2].shape()};
    if (settings_.goes_on) shapes.push_back(primals.back().shape());
    const auto gradients = mx::array::make_arrays(
        shapes, std::vector<mx::Dtype>(shapes.size(), mx::float32), std::make_shared<LinearGradient>(stream(), settings_),
        inputs);
    std::vector<mx::array> result;
    for (int argnum : argnums) {
      const bool of_state = settings_.goes_on && argnum == static_cast<int>(primals.size()) - 1;
      // Segments are numbers of documents.
      result.push_back(
          argnum < 3 ? gradients[argnum] : of_state ? gradients[3] : mx::zeros_like(primals[argnum], stream()));
    }
    return result;
  }

  const char* name() const override { return "NativeLinearAttention"; }

  bool is_equivalent(const Primitive& other) const override {
    return settings_ == static_cast<const LinearForward&>(other).settings_;
  }

 private:
  Settings settings_;
};

}  // namespace

std::vector<mx::array> linear_attention(
    const mx::array& q, const mx::array& k, const mx::array& v, Features features, float eps, int chunk_size,
    const std::optional<mx::array>& segments, const std::optional<mx::array>& state) {
  require(q.ndim() == 4 && k.ndim() == 4 && v.shape() == k.shape(), "q, k and v must be [B, N, L, H], [B, K, L, H] twice");
  require(q.shape(0) == k.shape(0) && q.shape(3) == k.shape(3), "q, k and v must agree in batch and head_dim");
  require(q.shape(2) == k.shape(2) && q.shape(2) > 0, "q, k and v must be of one length, of a token at least");
  require(k.shape(1) > 0 && q.shape(1) % k.shape(1) == 0, "key/value heads must divide the query heads");
  require(q.dtype() == mx::float32 && k.dtype() == mx::float32 && v.dtype() == mx::float32, "q, k and v must be float32");
  require(chunk_size > 0, "chunk_size must be at least 1");
  const auto stream = mx::default_stream(mx::Device::cpu);
  const mx::Shape of_state = {k.shape(0), k.shape(1), k.shape(3), k.shape(3) + 1};
  std::vector<mx::array> inputs = {q, k, v};
  if (segments.has_value()) {
    require(segments->shape() == mx::Shape({q.shape(0), q.shape(2)}), "segments must be [B, L]");
    inputs.push_back(mx::contiguous(mx::astype(*segments, mx::int32, stream), false, stream));
  }
  if (state.has_value()) {
    require(!segments.has_value(), "a state cannot go on in packed documents");
    require(state->shape() == of_state && state->dtype() == mx::float32, "the state must be float32 [B, K, H, H + 1]");
    inputs.push_back(whole(*state, stream));
  }
  const Settings settings = {features, eps, std::min(chunk_size, 256), segments.has_value(), state.has_value()};
  const auto found = mx::array::make_arrays(
      {q.shape(), {q.shape(0), q.shape(1), q.shape(2)}, of_state}, {mx::float32, mx::float32, mx::float32},
      std::make_shared<LinearForward>(stream, settings), inputs);
  return {found[0], found[2]};
}

}  // namespace native

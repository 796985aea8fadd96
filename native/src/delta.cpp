// The MLX primitive of the gated delta rule and that of its gradient.

#include "delta.h"

#include <memory>
#include <vector>

#include "arrays.h"
#include "pool.h"
#include "primitives.h"

namespace native {
namespace {

// Tokens between two states that are kept; the states of so many fit into a core's cache.
constexpr int CHUNK = 16;

Strides3 strides_of_rows(const mx::array& x) {
  const auto& s = x.strides();
  return {s[0], s[1], s[2]};
}

Delta described(const std::vector<mx::array>& in) {
  const auto& q = in[0];
  return {q.shape(0), q.shape(1), q.shape(2), q.shape(3), CHUNK,
          q.data<float>(), in[1].data<float>(), in[2].data<float>(), in[3].data<float>(), in[4].data<float>(),
          strides_of(q), strides_of(in[1]), strides_of(in[2]), strides_of_rows(in[3]), strides_of_rows(in[4]),
          in[5].data<float>()};
}

// Inputs: those forward, the states before each chunk, dy and the gradient of the last state. Outputs: of all forward.
class DeltaGradient : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    for (int i = 0; i < 6; i++) i < 3 ? allocate_joined(outputs[i]) : allocate(outputs[i]);
    mx::cpu::get_command_encoder(stream()).dispatch([in = held(inputs), out = held(outputs)]() mutable {
      const Delta a = described(in);
      const DeltaGradients g = {in[6].data<float>(), in[7].data<float>(), in[8].data<float>(), strides_of(in[7]),
                                out[0].data<float>(), out[1].data<float>(), out[2].data<float>(), out[3].data<float>(),
                                out[4].data<float>(), out[5].data<float>()};
      const auto& kernels = delta_kernels();
      const long floats = kernels.scratch_floats(a);
      parallel(a.B * a.N, [&](int head, int) { kernels.backward(a, g, head / a.N, head % a.N, scratch(floats)); });
    });
  }

  const char* name() const override { return "NativeGatedDeltaGradient"; }

  bool is_equivalent(const Primitive&) const override { return true; }
};

// Outputs: y, the last state, and the states before each chunk.
class DeltaForward : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    allocate_joined(outputs[0]);
    allocate(outputs[1]);
    allocate(outputs[2]);
    mx::cpu::get_command_encoder(stream()).dispatch([in = held(inputs), out = held(outputs)]() mutable {
      const Delta a = described(in);
      const DeltaOutputs to = {out[0].data<float>(), strides_of(out[0]), out[1].data<float>(), out[2].data<float>()};
      const auto& kernels = delta_kernels();
      const long floats = kernels.scratch_floats(a);
      parallel(a.B * a.N, [&](int head, int) { kernels.forward(a, to, head / a.N, head % a.N, scratch(floats)); });
    });
  }

  std::vector<mx::array> vjp(
      const std::vector<mx::array>& primals,
      const std::vector<mx::array>& cotangents,
      const std::vector<int>& argnums,
      const std::vector<mx::array>& outputs) override {
    std::vector<mx::array> inputs = primals;
    inputs.insert(inputs.end(), {outputs[2], cotangents[0], whole(cotangents[1], stream())});
    std::vector<mx::Shape> shapes;
    for (const auto& each : primals) shapes.push_back(each.shape());
    const auto gradients = mx::array::make_arrays(
        shapes, std::vector<mx::Dtype>(shapes.size(), mx::float32), std::make_shared<DeltaGradient>(stream()), inputs);
    std::vector<mx::array> result;
    for (int argnum : argnums) result.push_back(gradients[argnum]);
    return result;
  }

  const char* name() const override { return "NativeGatedDelta"; }

  bool is_equivalent(const Primitive&) const override { return true; }
};

}  // namespace

std::vector<mx::array> gated_delta(
    const mx::array& q, const mx::array& k, const mx::array& v, const mx::array& gamma, const mx::array& beta,
    const mx::array& state) {
  require(q.ndim() == 4 && k.shape() == q.shape() && v.shape() == q.shape(), "q, k and v must be [B, N, L, H]");
  const int B = q.shape(0), N = q.shape(1), L = q.shape(2), H = q.shape(3);
  require(L > 0, "there must be a token at least");
  require(gamma.shape() == mx::Shape({B, N, L}) && beta.shape() == gamma.shape(), "gamma and beta must be [B, N, L]");
  require(state.shape() == mx::Shape({B, N, H, H}), "the state must be [B, N, H, H]");
  const auto stream = mx::default_stream(mx::Device::cpu);
  std::vector<mx::array> inputs = {q, k, v, gamma, beta, whole(state, stream)};
  for (const auto& each : inputs) require(each.dtype() == mx::float32, "all arrays must be float32");
  const int chunks = (L + CHUNK - 1) / CHUNK;
  const mx::Shape before = {B, N, chunks, H, delta_kernels().row_floats(H)};
  const auto found = mx::array::make_arrays(
      {q.shape(), {B, N, H, H}, before}, {mx::float32, mx::float32, mx::float32}, std::make_shared<DeltaForward>(stream),
      inputs);
  return {found[0], found[1]};
}

}  // namespace native

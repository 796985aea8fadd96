// The MLX primitives of activations and of their gradients.

#include "activations.h"

#include <algorithm>
#include <memory>

#include "arrays.h"
#include "pool.h"
#include "primitives.h"

namespace native {
namespace {

// Numbers that a task takes: enough to be worth waking a thread for, and few enough for a core's own memory.
constexpr long CHUNK = 1 << 14;

// Calls work(first, count) for all numbers.
template <typename Work>
void in_chunks(long size, Work work) {
  const int chunks = static_cast<int>((size + CHUNK - 1) / CHUNK);
  parallel(chunks, [&](int chunk, int) {
    const long first = chunk * CHUNK;
    work(first, std::min(CHUNK, size - first));
  });
}

class ActivationGradient : public CpuPrimitive {
 public:
  ActivationGradient(mx::Stream stream, Activation which) : CpuPrimitive(stream), which_(which) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    const auto &x = inputs[0], &dy = inputs[1];
    auto& dx = outputs[0];
    allocate(dx, {&dy, &x});
    mx::cpu::get_command_encoder(stream()).dispatch(
        [which = which_, x = held(x), dy = held(dy), dx = held(dx)]() mutable {
          const float *from = x.data<float>(), *scale = dy.data<float>();
          float* to = dx.data<float>();
          in_chunks(x.size(), [&](long i, long count) {
            activation_kernels().backward(which, from + i, scale + i, to + i, count);
          });
        });
  }

  const char* name() const override { return "NativeActivationGradient"; }

  bool is_equivalent(const Primitive& other) const override {
    return which_ == static_cast<const ActivationGradient&>(other).which_;
  }

 private:
  Activation which_;
};

class ActivationForward : public CpuPrimitive {
 public:
  ActivationForward(mx::Stream stream, Activation which) : CpuPrimitive(stream), which_(which) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    const auto& x = inputs[0];
    auto& y = outputs[0];
    allocate(y, {&x});
    mx::cpu::get_command_encoder(stream()).dispatch([which = which_, x = held(x), y = held(y)]() mutable {
      const float* from = x.data<float>();
      float* to = y.data<float>();
      in_chunks(x.size(), [&](long i, long count) { activation_kernels().forward(which, from + i, to + i, count); });
    });
  }

  std::vector<mx::array> vjp(
      const std::vector<mx::array>& primals,
      const std::vector<mx::array>& cotangents,
      const std::vector<int>&,
      const std::vector<mx::array>&) override {
    return {mx::array(
        primals[0].shape(), mx::float32, std::make_shared<ActivationGradient>(stream(), which_),
        {primals[0], whole(cotangents[0], stream())})};
  }

  const char* name() const override { return "NativeActivation"; }

  bool is_equivalent(const Primitive& other) const override {
    return which_ == static_cast<const ActivationForward&>(other).which_;
  }

 private:
  Activation which_;
};

class SwigluGradient : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    const auto &gate = inputs[0], &up = inputs[1], &dy = inputs[2];
    auto &dgate = outputs[0], &dup = outputs[1];
    // Never one donor for both: once given away, an array is no longer alone with its memory.
    allocate(dgate, {&gate, &dy});
    allocate(dup, {&up, &dy});
    mx::cpu::get_command_encoder(stream()).dispatch(
        [gate = held(gate), up = held(up), dy = held(dy), dgate = held(dgate), dup = held(dup)]() mutable {
          const float *g = gate.data<float>(), *u = up.data<float>(), *d = dy.data<float>();
          float *to_gate = dgate.data<float>(), *to_up = dup.data<float>();
          in_chunks(gate.size(), [&](long i, long count) {
            activation_kernels().swiglu_backward(g + i, u + i, d + i, to_gate + i, to_up + i, count);
          });
        });
  }

  const char* name() const override { return "NativeSwigluGradient"; }

  bool is_equivalent(const Primitive&) const override { return true; }
};

class SwigluForward : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    const auto &gate = inputs[0], &up = inputs[1];
    auto& y = outputs[0];
    allocate(y, {&gate, &up});
    mx::cpu::get_command_encoder(stream()).dispatch([gate = held(gate), up = held(up), y = held(y)]() mutable {
      const float *g = gate.data<float>(), *u = up.data<float>();
      float* to = y.data<float>();
      in_chunks(gate.size(), [&](long i, long count) { activation_kernels().swiglu(g + i, u + i, to + i, count); });
    });
  }

  std::vector<mx::array> vjp(
      const std::vector<mx::array>& primals,
      const std::vector<mx::array>& cotangents,
      const std::vector<int>& argnums,
      const std::vector<mx::array>&) override {
    const auto& shape = primals[0].shape();
    const auto gradients = mx::array::make_arrays(
        {shape, shape}, {mx::float32, mx::float32}, std::make_shared<SwigluGradient>(stream()),
        {primals[0], primals[1], whole(cotangents[0], stream())});
    std::vector<mx::array> result;
    for (int argnum : argnums) result.push_back(gradients[argnum]);
    return result;
  }

  const char* name() const override { return "NativeSwiglu"; }

  bool is_equivalent(const Primitive&) const override { return true; }
};

}  // namespace

mx::array activation(Activation which, const mx::array& x) {
  require(x.dtype() == mx::float32, "x must be float32");
  const auto stream = mx::default_stream(mx::Device::cpu);
  return mx::array(
      x.shape(), mx::float32, std::make_shared<ActivationForward>(stream, which), {whole(x, stream)});
}

mx::array swiglu(const mx::array& gate, const mx::array& up) {
  require(gate.dtype() == mx::float32 && up.dtype() == mx::float32, "gate and up must be float32");
  require(gate.shape() == up.shape(), "gate and up must have one shape");
  const auto stream = mx::default_stream(mx::Device::cpu);
  return mx::array(
      gate.shape(), mx::float32, std::make_shared<SwigluForward>(stream), {whole(gate, stream), whole(up, stream)});
}

}  // namespace native

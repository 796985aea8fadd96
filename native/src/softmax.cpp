// The MLX primitives of softmax and log-sum-exp along the last axis, and of their gradients.

#include "softmax.h"

#include <memory>
#include <vector>

#include "arrays.h"
#include "pool.h"
#include "primitives.h"

namespace native {
namespace {

// Calls work(V, first, last) for ranges of the rows of `x`, whose last axis is not empty.
template <typename Work>
void in_rows(const mx::array& x, const Work& work) {
  const long V = x.shape(-1);
  over_rows(static_cast<long>(x.size()) / V, V, [&](long first, long last) { work(V, first, last); });
}

class SoftmaxGradient : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    allocate(outputs[0], {&inputs[1], &inputs[0]});
    mx::cpu::get_command_encoder(stream()).dispatch(
        [y = held(inputs[0]), dy = held(inputs[1]), dx = held(outputs[0])]() mutable {
          const float *weights = y.data<float>(), *slopes = dy.data<float>();
          float* to = dx.data<float>();
          in_rows(y, [&](long V, long first, long last) {
            softmax_kernels().softmax_backward(weights, slopes, to, V, first, last);
          });
        });
  }

  const char* name() const override { return "NativeSoftmaxGradient"; }
  bool is_equivalent(const Primitive&) const override { return true; }
};

// The softmax of the first input, its rows multiplied by the second if there is one.
class Softmax : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    allocate(outputs[0], {&inputs[0]});
    mx::cpu::get_command_encoder(stream()).dispatch([in = held(inputs), y = held(outputs[0])]() mutable {
      const float *from = in[0].data<float>(), *scales = in.size() > 1 ? in[1].data<float>() : nullptr;
      float* to = y.data<float>();
      in_rows(in[0], [&](long V, long first, long last) {
        softmax_kernels().softmax(from, scales, to, V, first, last);
      });
    });
  }

  std::vector<mx::array> vjp(
      const std::vector<mx::array>& primals,
      const std::vector<mx::array>& cotangents,
      const std::vector<int>&,
      const std::vector<mx::array>& outputs) override {
    if (primals.size() > 1) throw std::runtime_error("log-sum-exp has no gradient of its gradient");
    return {mx::array(
        primals[0].shape(), mx::float32, std::make_shared<SoftmaxGradient>(stream()),
        {outputs[0], whole(cotangents[0], stream())})};
  }

  const char* name() const override { return "NativeSoftmax"; }
  bool is_equivalent(const Primitive&) const override { return true; }
};

class LogSumExp : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    allocate(outputs[0]);
    mx::cpu::get_command_encoder(stream()).dispatch([x = held(inputs[0]), y = held(outputs[0])]() mutable {
      const float* from = x.data<float>();
      float* to = y.data<float>();
      in_rows(x, [&](long V, long first, long last) { softmax_kernels().log_sum_exp(from, to, V, first, last); });
    });
  }

  std::vector<mx::array> vjp(
      const std::vector<mx::array>& primals,
      const std::vector<mx::array>& cotangents,
      const std::vector<int>&,
      const std::vector<mx::array>&) override {
    return {mx::array(
        primals[0].shape(), mx::float32, std::make_shared<Softmax>(stream()),
        {primals[0], whole(cotangents[0], stream())})};
  }

  const char* name() const override { return "NativeLogSumExp"; }
  bool is_equivalent(const Primitive&) const override { return true; }
};

mx::array rows_of(const mx::array& x, mx::Stream stream) {
  require(x.dtype() == mx::float32, "x must be float32");
  require(x.ndim() > 0 && x.shape(-1) > 0, "x must have a last axis with something in it");
  return whole(x, stream);
}

}  // namespace

mx::array softmax(const mx::array& x) {
  const auto stream = mx::default_stream(mx::Device::cpu);
  return mx::array(x.shape(), mx::float32, std::make_shared<Softmax>(stream), {rows_of(x, stream)});
}

mx::array log_sum_exp(const mx::array& x) {
  const auto stream = mx::default_stream(mx::Device::cpu);
  const auto rows = rows_of(x, stream);
  mx::Shape shape = x.shape();
  shape.back() = 1;
  return mx::array(shape, mx::float32, std::make_shared<LogSumExp>(stream), {rows});
}

}  // namespace native

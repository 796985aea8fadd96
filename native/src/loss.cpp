// The MLX primitive of cross-entropy and that of its gradient.

#include "loss.h"

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <vector>

#include "arrays.h"
#include "mlx/stream.h"
#include "pool.h"
#include "primitives.h"

namespace native {
namespace {

// Bytes of logits from which to empty the queue of a stream costs less than to write elsewhere.
constexpr size_t WORTH_WAITING = 1 << 20;

Predictions predictions(const mx::array& logits, const mx::array& targets) {
  return {logits.data<float>(), targets.data<int32_t>(), logits.shape(1)};
}

class CrossEntropyGradient : public CpuPrimitive {
 public:
  explicit CrossEntropyGradient(mx::Stream stream) : CpuPrimitive(stream) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    auto& gradient = outputs[0];
    const auto& logits = inputs[0];
    // In the logits' own memory where nothing else needs them, so that no second array of their size exists. What has
    // been asked of the stream holds them until it is done.
    if (!logits.is_donatable() && logits.nbytes() >= WORTH_WAITING) mx::synchronize(stream());
    const bool in_place = logits.is_donatable() && logits.data_size() == logits.size();
    if (in_place) {
      gradient.copy_shared_buffer(logits);
    } else {
      allocate(gradient);
    }
    auto& encoder = mx::cpu::get_command_encoder(stream());
    encoder.dispatch([logits = in_place ? gradient : logits, targets = inputs[1], peaks = inputs[2], others = inputs[3],
                      cotangents = inputs[4], gradient]() mutable {
      const Predictions p = predictions(logits, targets);
      const Normalisers n = {peaks.data<float>(), others.data<float>()};
      const auto* scales = cotangents.data<float>();
      auto* out = gradient.data<float>();
      over_rows(gradient.shape(0), p.V, [&](long first, long last) {
        loss_kernels().backward(p, n, scales, out, first, last);
      });
    });
  }

  const char* name() const override { return "NativeCrossEntropyGradient"; }
  bool is_equivalent(const Primitive&) const override { return true; }
};

// Nats, and the normalisers that the gradient takes.
class CrossEntropy : public CpuPrimitive {
 public:
  explicit CrossEntropy(mx::Stream stream) : CpuPrimitive(stream) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    for (auto& output : outputs) allocate(output);
    auto& encoder = mx::cpu::get_command_encoder(stream());
    encoder.dispatch([logits = inputs[0], targets = inputs[1], nats = outputs[0], peaks = outputs[1],
                      others = outputs[2]]() mutable {
      const Predictions p = predictions(logits, targets);
      const Normalisers n = {peaks.data<float>(), others.data<float>()};
      auto* out = nats.data<float>();
      over_rows(nats.shape(0), p.V, [&](long first, long last) { loss_kernels().forward(p, n, out, first, last); });
    });
  }

  std::vector<mx::array> vjp(
      const std::vector<mx::array>& primals,
      const std::vector<mx::array>& cotangents,
      const std::vector<int>& argnums,
      const std::vector<mx::array>& outputs) override {
    std::vector<mx::array> result;
    for (int argnum : argnums) {
      if (argnum == 1) {
        result.push_back(mx::zeros_like(primals[1], stream()));
        continue;
      }
      const auto scales = mx::contiguous(cotangents[0], false, stream());
      result.emplace_back(
          primals[0].shape(), mx::float32, std::make_shared<CrossEntropyGradient>(stream()),
          std::vector<mx::array>{primals[0], primals[1], outputs[1], outputs[2], scales});
    }
    return result;
  }

  const char* name() const override { return "NativeCrossEntropy"; }
  bool is_equivalent(const Primitive&) const override { return true; }
};

// An array that is there only when the stream has computed others, and let go of what they were made of.
class After : public CpuPrimitive {
 public:
  explicit After(mx::Stream stream) : CpuPrimitive(stream) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    mx::synchronize(stream());
    outputs[0].copy_shared_buffer(inputs[0]);
  }

  const char* name() const override { return "NativeAfter"; }
  bool is_equivalent(const Primitive&) const override { return true; }
};

}  // namespace

mx::array after(const mx::array& x, const std::vector<mx::array>& others) {
  std::vector<mx::array> inputs = {x};
  inputs.insert(inputs.end(), others.begin(), others.end());
  return mx::array(
      x.shape(), x.dtype(), std::make_shared<After>(mx::default_stream(mx::Device::cpu)), std::move(inputs));
}

mx::array cross_entropy(const mx::array& logits, const mx::array& targets) {
  if (logits.ndim() != 2 || targets.shape() != mx::Shape{logits.shape(0)})
    throw std::invalid_argument("logits must be [P, V] and targets [P]");
  if (logits.dtype() != mx::float32) throw std::invalid_argument("logits must be float32");
  const auto stream = mx::default_stream(mx::Device::cpu);
  const std::vector<mx::array> inputs = {
      mx::contiguous(logits, false, stream), mx::contiguous(mx::astype(targets, mx::int32, stream), false, stream)};
  const mx::Shape rows = targets.shape();
  return mx::array::make_arrays(
      {rows, rows, rows}, {mx::float32, mx::float32, mx::float32}, std::make_shared<CrossEntropy>(stream), inputs)[0];
}

}  // namespace native

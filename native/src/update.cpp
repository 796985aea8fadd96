// The MLX primitives of an optimizer's step and of a global norm.

#include "update.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <vector>

#include "arrays.h"
#include "mlx/stream.h"
#include "pool.h"
#include "primitives.h"

namespace native {
namespace {

// Numbers of one task, and rows of a matrix with a transposed gradient: whole blocks of the kernel.
constexpr long GRAIN = 32768;
constexpr long ROWS = 64;
// Bytes of a parameter from which to empty the queue of a stream costs less than to write elsewhere.
constexpr size_t WORTH_WAITING = 1 << 20;

enum class Rule { adamw, lion, muon, descent };

// Where the arrays stand among the inputs. Only AdamW has a mean of squares and a step, and a descent has no mean.
struct Places {
  int parameter = 0, gradient = 1, rate = 2, scale = 3, mean = 4, square = 5, step = 6;
};
constexpr Places PLACE;

const StepKernels& kernels_of(Rule rule) {
  const auto& kernels = update_kernels();
  switch (rule) {
    case Rule::adamw: return kernels.adamw;
    case Rule::lion: return kernels.lion;
    case Rule::muon: return kernels.muon;
    case Rule::descent: break;
  }
  return kernels.descent;
}

bool is_transposed(const mx::array& gradient) {
  return !gradient.flags().row_contiguous && gradient.ndim() == 2;
}

class Step : public CpuPrimitive {
 public:
  Step(mx::Stream stream, Rule rule, Rates rates) : CpuPrimitive(stream), rule_(rule), rates_(rates) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    // In the memory of what the step replaces, where nothing else needs it. What has been asked of the stream holds a
    // parameter and its gradient until it is done.
    release_siblings(inputs, outputs);
    const auto &parameter = inputs[PLACE.parameter], &gradient = inputs[PLACE.gradient];
    if (rule_ == Rule::muon) {
      // The parameter stays, until the direction is orthogonal.
      is_transposed(gradient) ? allocate(outputs[0]) : allocate(outputs[0], {&gradient});
    } else {
      if (!parameter.is_donatable() && parameter.nbytes() >= WORTH_WAITING) mx::synchronize(stream());
      allocate(outputs[0], {&parameter});
    }
    for (size_t i = 1; i < outputs.size(); i++) allocate(outputs[i], {&inputs[PLACE.mean + i - 1]});
    auto& encoder = mx::cpu::get_command_encoder(stream());
    encoder.dispatch([rule = rule_, rates = rates_, in = inputs, out = outputs]() mutable { run(rule, rates, in, out); });
  }

  const char* name() const override { return "NativeOptimizerStep"; }

  bool is_equivalent(const Primitive& other) const override {
    const auto& step = static_cast<const Step&>(other);
    return rule_ == step.rule_ && rates_ == step.rates_;
  }

 private:
  // Each output holds the inputs, and MLX lets go of all of them after this; the one whose inputs these are keeps them.
  static void release_siblings(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) {
    for (auto& output : outputs)
      if (&output.inputs() != &inputs && !output.is_tracer()) output.inputs().clear();
  }

  static Update described(Rule rule, const Rates& rates, std::vector<mx::array>& in, std::vector<mx::array>& out) {
    Update u{};
    u.parameter = in[PLACE.parameter].data<float>(), u.gradient = in[PLACE.gradient].data<float>();
    u.new_parameter = out[0].data<float>();
    u.scale = *in[PLACE.scale].data<float>();
    const double rate = *in[PLACE.rate].data<float>();
    u.rate = static_cast<float>(rate);
    if (rule == Rule::descent) return u;
    u.mean = in[PLACE.mean].data<float>(), u.new_mean = out[1].data<float>();
    u.keep = static_cast<float>(1 - rate * rates.weight_decay), u.decay = static_cast<float>(rates.weight_decay);
    u.beta1 = static_cast<float>(rates.beta1), u.rest1 = static_cast<float>(1 - rates.beta1);
    u.beta2 = static_cast<float>(rates.beta2), u.rest2 = static_cast<float>(1 - rates.beta2);
    if (rule != Rule::adamw) return u;
    u.square = in[PLACE.square].data<float>(), u.new_square = out[2].data<float>();
    const auto step = static_cast<double>(*in[PLACE.step].data<uint64_t>());
    u.rate = static_cast<float>(rate / (1 - std::pow(rates.beta1, step)));
    u.root = static_cast<float>(1 / std::sqrt(1 - std::pow(rates.beta2, step)));
    u.eps = static_cast<float>(rates.eps);
    return u;
  }

  static void run(Rule rule, const Rates& rates, std::vector<mx::array>& in, std::vector<mx::array>& out) {
    const Update u = described(rule, rates, in, out);
    const auto& kernels = kernels_of(rule);
    const auto& gradient = in[PLACE.gradient];
    if (is_transposed(gradient)) {
      const long R = gradient.shape(0), C = gradient.shape(1);
      parallel(static_cast<int>((R + ROWS - 1) / ROWS), [&](int task, int) {
        kernels.transposed(u, R, C, task * ROWS, std::min(R, (task + 1) * ROWS));
      });
      return;
    }
    const long count = gradient.size();
    parallel(static_cast<int>((count + GRAIN - 1) / GRAIN), [&](int task, int) {
      kernels.flat(u, task * GRAIN, std::min(count, (task + 1) * GRAIN));
    });
  }

  Rule rule_;
  Rates rates_;
};

class GlobalNorm : public CpuPrimitive {
 public:
  explicit GlobalNorm(mx::Stream stream) : CpuPrimitive(stream) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    allocate(outputs[0]);
    auto& encoder = mx::cpu::get_command_encoder(stream());
    encoder.dispatch([in = inputs, norm = outputs[0]]() mutable {
      struct Piece {
        const float* from;
        long count;
      };
      std::vector<Piece> pieces;
      for (const auto& array : in)
        for (long first = 0, size = array.size(); first < size; first += GRAIN)
          pieces.push_back({array.data<float>() + first, std::min(GRAIN, size - first)});
      std::vector<double> sums(pieces.size());
      parallel(static_cast<int>(pieces.size()), [&](int task, int) {
        sums[task] = update_kernels().sum_of_squares(pieces[task].from, pieces[task].count);
      });
      double total = 0;
      for (double sum : sums) total += sum;
      *norm.data<float>() = static_cast<float>(std::sqrt(total));
    });
  }

  const char* name() const override { return "NativeGlobalNorm"; }
  bool is_equivalent(const Primitive&) const override { return true; }
};

// `arrays` are the parameter, its gradient and what there is of means.
std::vector<mx::array> step(
    Rule rule, const Rates& rates, const std::vector<mx::array>& arrays, const mx::array& rate, const mx::array& scale,
    const std::optional<mx::array>& number = std::nullopt) {
  const auto stream = mx::default_stream(mx::Device::cpu);
  const mx::Shape shape = arrays[0].shape();
  for (const auto& array : arrays)
    require(array.shape() == shape && array.dtype() == mx::float32, "a step's arrays must be float32 of one shape");
  require(rate.size() == 1 && scale.size() == 1, "rate and scale must be one number each");
  std::vector<mx::array> inputs = {
      whole(arrays[PLACE.parameter], stream), mx::contiguous(arrays[PLACE.gradient], shape.size() == 2, stream),
      mx::astype(rate, mx::float32, stream), mx::astype(scale, mx::float32, stream)};
  for (size_t i = 2; i < arrays.size(); i++) inputs.push_back(whole(arrays[i], stream));
  if (number) inputs.push_back(mx::astype(*number, mx::uint64, stream));
  const size_t count = arrays.size() - 1;
  return mx::array::make_arrays(
      std::vector<mx::Shape>(count, shape), std::vector<mx::Dtype>(count, mx::float32),
      std::make_shared<Step>(stream, rule, rates), inputs);
}

}  // namespace

std::vector<mx::array> adamw(
    const mx::array& parameter,
    const mx::array& gradient,
    const mx::array& mean,
    const mx::array& square,
    const mx::array& rate,
    const mx::array& number,
    const mx::array& scale,
    const Rates& rates) {
  require(number.size() == 1, "step must be one number");
  return step(Rule::adamw, rates, {parameter, gradient, mean, square}, rate, scale, number);
}

std::vector<mx::array> lion(
    const mx::array& parameter,
    const mx::array& gradient,
    const mx::array& mean,
    const mx::array& rate,
    const mx::array& scale,
    const Rates& rates) {
  return step(Rule::lion, rates, {parameter, gradient, mean}, rate, scale);
}

std::vector<mx::array> muon(
    const mx::array& parameter,
    const mx::array& gradient,
    const mx::array& mean,
    const mx::array& scale,
    double momentum,
    bool nesterov,
    double weight_decay) {
  const Rates rates = {momentum, nesterov ? momentum : 1.0, 0, weight_decay};
  return step(Rule::muon, rates, {parameter, gradient, mean}, mx::array(0.0f), scale);
}

mx::array descent(const mx::array& parameter, const mx::array& direction, const mx::array& rate) {
  return step(Rule::descent, {}, {parameter, direction}, rate, mx::array(1.0f))[0];
}

mx::array global_norm(const std::vector<mx::array>& arrays) {
  const auto stream = mx::default_stream(mx::Device::cpu);
  std::vector<mx::array> inputs;
  for (const auto& array : arrays) {
    require(array.dtype() == mx::float32, "arrays must be float32");
    inputs.push_back(mx::contiguous(array, true, stream));
  }
  return mx::array(mx::Shape{}, mx::float32, std::make_shared<GlobalNorm>(stream), inputs);
}

}  // namespace native

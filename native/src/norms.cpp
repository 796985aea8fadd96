// The MLX primitives of RMSNorm and LayerNorm and of their gradients.

#include "norms.h"

#include <algorithm>
#include <memory>

#include "arrays.h"
#include "pool.h"
#include "primitives.h"

namespace native {
namespace {

// Numbers of a task, as long as there are no more tasks than weight gradients may be kept of.
constexpr long CHUNK = 1 << 14, MOST_CHUNKS = 64;

struct Settings {
  bool centred, has_weight, has_bias;
  float eps;

  bool operator==(const Settings&) const = default;
};

// Rows of a chunk. It depends on the shape alone, so that sums are added in the same order by any number of threads.
struct Chunks {
  long rows, size;

  long rows_of_one() const {
    return std::max({1L, CHUNK / size, (rows + MOST_CHUNKS - 1) / MOST_CHUNKS});
  }

  int count() const { return static_cast<int>((rows + rows_of_one() - 1) / rows_of_one()); }

  // Calls work(chunk, first row, last row).
  template <typename Work>
  void run(Work work) const {
    const long step = rows_of_one();
    parallel(count(), [&](int chunk, int) { work(chunk, chunk * step, std::min(rows, (chunk + 1) * step)); });
  }
};

Norm described(const Settings& settings, const std::vector<mx::array>& in) {
  Norm a{in[0].data<float>(), nullptr, nullptr, in[0].shape(-1), settings.eps};
  if (settings.has_weight) a.weight = in[1].data<float>();
  if (settings.has_bias) a.bias = in[1 + settings.has_weight].data<float>();
  return a;
}

// Adds one chunk's sums [size] to those before it, in order.
void add_in_order(const std::vector<float>& sums, long size, int chunks, float* to) {
  std::copy(sums.begin(), sums.begin() + size, to);
  for (int chunk = 1; chunk < chunks; chunk++)
    for (long i = 0; i < size; i++) to[i] += sums[chunk * size + i];
}

// Outputs: dx, and the gradients of what there is of weight and bias. Inputs: those forward, and dy.
class NormGradient : public CpuPrimitive {
 public:
  NormGradient(mx::Stream stream, Settings settings) : CpuPrimitive(stream), settings_(settings) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    const auto &x = inputs.front(), &dy = inputs.back();
    allocate(outputs[0], {&dy, &x});
    for (size_t i = 1; i < outputs.size(); i++) allocate(outputs[i]);
    mx::cpu::get_command_encoder(stream()).dispatch([settings = settings_, in = held(inputs), out = held(outputs)]() mutable { run(settings, in, out); });
  }

  const char* name() const override { return "NativeNormGradient"; }

  bool is_equivalent(const Primitive& other) const override {
    return settings_ == static_cast<const NormGradient&>(other).settings_;
  }

 private:
  static void run(const Settings& settings, const std::vector<mx::array>& in, std::vector<mx::array>& out) {
    if (in[0].size() == 0) {
      for (auto& each : out) std::fill_n(each.data<float>(), each.size(), 0.0f);
      return;
    }
    const Norm a = described(settings, in);
    const Chunks chunks = {static_cast<long>(in[0].size()) / a.size, a.size};
    const int count = chunks.count();
    std::vector<float> dweight(settings.has_weight ? count * a.size : 0), dbias(settings.has_bias ? count * a.size : 0);
    const float* dy = in.back().data<float>();
    float* dx = out[0].data<float>();
    const auto backward = settings.centred ? norm_kernels().layer_backward : norm_kernels().rms_backward;
    chunks.run([&](int chunk, long first, long last) {
      float* to_weight = settings.has_weight ? dweight.data() + chunk * a.size : nullptr;
      float* to_bias = settings.has_bias ? dbias.data() + chunk * a.size : nullptr;
      backward(a, {dy, dx, to_weight, to_bias}, first, last);
    });
    if (settings.has_weight) add_in_order(dweight, a.size, count, out[1].data<float>());
    if (settings.has_bias) add_in_order(dbias, a.size, count, out[1 + settings.has_weight].data<float>());
  }

  Settings settings_;
};

class NormForward : public CpuPrimitive {
 public:
  NormForward(mx::Stream stream, Settings settings) : CpuPrimitive(stream), settings_(settings) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    allocate(outputs[0], {&inputs[0]});
    std::vector<mx::array> in;
    for (const auto& each : inputs) in.push_back(held(each));
    mx::cpu::get_command_encoder(stream()).dispatch([settings = settings_, in, y = held(outputs[0])]() mutable {
      if (y.size() == 0) return;
      const Norm a = described(settings, in);
      float* to = y.data<float>();
      const auto forward = settings.centred ? norm_kernels().layer : norm_kernels().rms;
      const Chunks chunks = {static_cast<long>(y.size()) / a.size, a.size};
      chunks.run([&](int, long first, long last) { forward(a, to, first, last); });
    });
  }

  std::vector<mx::array> vjp(
      const std::vector<mx::array>& primals,
      const std::vector<mx::array>& cotangents,
      const std::vector<int>& argnums,
      const std::vector<mx::array>&) override {
    std::vector<mx::array> inputs = primals;
    inputs.push_back(whole(cotangents[0], stream()));
    std::vector<mx::Shape> shapes;
    for (const auto& each : primals) shapes.push_back(each.shape());
    const auto gradients = mx::array::make_arrays(
        shapes, std::vector<mx::Dtype>(shapes.size(), mx::float32), std::make_shared<NormGradient>(stream(), settings_),
        inputs);
    std::vector<mx::array> result;
    for (int argnum : argnums) result.push_back(gradients[argnum]);
    return result;
  }

  const char* name() const override { return "NativeNorm"; }

  bool is_equivalent(const Primitive& other) const override {
    return settings_ == static_cast<const NormForward&>(other).settings_;
  }

 private:
  Settings settings_;
};

mx::array norm(
    const mx::array& x, const std::optional<mx::array>& weight, const std::optional<mx::array>& bias, float eps,
    bool centred) {
  require(x.ndim() > 0 && x.dtype() == mx::float32, "x must be float32 and have an axis");
  const auto stream = mx::default_stream(mx::Device::cpu);
  std::vector<mx::array> inputs = {whole(x, stream)};
  for (const auto& vector : {weight, bias}) {
    if (!vector.has_value()) continue;
    require(vector->shape() == mx::Shape{x.shape(-1)}, "weight and bias must be as long as the last axis of x");
    require(vector->dtype() == mx::float32, "weight and bias must be float32");
    inputs.push_back(whole(*vector, stream));
  }
  const Settings settings = {centred, weight.has_value(), bias.has_value(), eps};
  return mx::array(x.shape(), mx::float32, std::make_shared<NormForward>(stream, settings), std::move(inputs));
}

}  // namespace

mx::array rms_norm(const mx::array& x, const std::optional<mx::array>& weight, float eps) {
  return norm(x, weight, std::nullopt, eps, false);
}

mx::array layer_norm(
    const mx::array& x, const std::optional<mx::array>& weight, const std::optional<mx::array>& bias, float eps) {
  return norm(x, weight, bias, eps, true);
}

}  // namespace native

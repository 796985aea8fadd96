// The MLX primitive of rotary positions, which is its own gradient, turned back.

#include "rotary.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "arrays.h"
#include "pool.h"
#include "primitives.h"

namespace native {
namespace {

// Numbers of a task.
constexpr long CHUNK = 1 << 14;

struct Settings {
  bool traditional, back;
  double scale;
  // 0 where wavelengths are given.
  double base;

  bool operator==(const Settings&) const = default;
};

// float64 [H / 2], and zeros up to a multiple of the widest vector.
std::vector<double> frequencies_of(const Settings& settings, const std::vector<mx::array>& in, int H) {
  std::vector<double> frequencies((H / 2 + 15) / 16 * 16);
  for (int i = 0; i < H / 2; i++) {
    const double wavelength = settings.base > 0 ? std::pow(settings.base, 2.0 * i / H) : in[2].data<float>()[i];
    frequencies[i] = settings.scale / wavelength;
  }
  return frequencies;
}

void turn(const Settings& settings, const std::vector<mx::array>& in, mx::array& y) {
  const auto &x = in[0], &offsets = in[1];
  if (x.size() == 0) return;
  const auto frequencies = frequencies_of(settings, in, x.shape(3));
  Rotary a{};
  a.B = x.shape(0), a.N = x.shape(1), a.L = x.shape(2), a.H = x.shape(3);
  a.traditional = settings.traditional, a.direction = settings.back ? -1.0f : 1.0f;
  a.x = x.data<float>(), a.y = y.data<float>();
  a.x_batch = x.strides(0), a.x_head = x.strides(1), a.x_row = x.strides(2), a.x_column = x.strides(3);
  a.y_batch = y.strides(0), a.y_head = y.strides(1), a.y_row = y.strides(2);
  a.frequencies = frequencies.data();
  a.offsets = offsets.data<int32_t>(), a.num_offsets = offsets.size();
  const long numbers = static_cast<long>(a.num_offsets == 1 ? a.B : 1) * a.N * a.H;
  const int positions = static_cast<int>(std::clamp(CHUNK / numbers, 1L, static_cast<long>(a.L)));
  const int blocks = (a.L + positions - 1) / positions;
  parallel(a.num_offsets * blocks, [&](int task, int) {
    const int first = task % blocks * positions;
    std::vector<float> scratch(rotary_kernels().scratch_floats(a));
    rotary_kernels().turn(a, task / blocks, first, std::min(a.L, first + positions), scratch.data());
  });
}

class Rotate : public CpuPrimitive {
 public:
  Rotate(mx::Stream stream, Settings settings) : CpuPrimitive(stream), settings_(settings) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    // Forward, heads one after the other, as attention reads them best; backward as the projections need them.
    if (settings_.back) {
      allocate_joined(outputs[0]);
    } else {
      allocate(outputs[0]);
    }
    std::vector<mx::array> in;
    for (const auto& each : inputs) in.push_back(held(each));
    mx::cpu::get_command_encoder(stream()).dispatch(
        [settings = settings_, in, y = held(outputs[0])]() mutable { turn(settings, in, y); });
  }

  std::vector<mx::array> vjp(
      const std::vector<mx::array>& primals,
      const std::vector<mx::array>& cotangents,
      const std::vector<int>& argnums,
      const std::vector<mx::array>&) override {
    Settings settings = settings_;
    settings.back = !settings.back;
    std::vector<mx::array> inputs = primals, result;
    inputs[0] = cotangents[0];
    for (int argnum : argnums) {
      // Positions and frequencies are constants.
      result.push_back(
          argnum > 0 ? mx::zeros_like(primals[argnum], stream())
                     : mx::array(primals[0].shape(), mx::float32, std::make_shared<Rotate>(stream(), settings), inputs));
    }
    return result;
  }

  const char* name() const override { return "NativeRotate"; }

  bool is_equivalent(const Primitive& other) const override {
    return settings_ == static_cast<const Rotate&>(other).settings_;
  }

 private:
  Settings settings_;
};

}  // namespace

mx::array rotate(
    const mx::array& x, const mx::array& offsets, const std::optional<double>& base,
    const std::optional<mx::array>& wavelengths, double scale, bool traditional) {
  require(x.ndim() == 4 && x.dtype() == mx::float32, "x must be float32 [B, N, L, H]");
  const int B = x.shape(0), H = x.shape(3);
  require(H % 2 == 0, "the last axis of x must be even");
  require(offsets.size() == 1 || offsets.size() == static_cast<size_t>(B), "there must be one offset, or B");
  require(base.has_value() != wavelengths.has_value(), "there must be a base or wavelengths");
  require(!base.has_value() || *base > 0, "base must be positive");
  const auto stream = mx::default_stream(mx::Device::cpu);
  std::vector<mx::array> inputs = {x, whole(mx::astype(offsets, mx::int32, stream), stream)};
  if (wavelengths.has_value()) {
    require(wavelengths->shape() == mx::Shape{H / 2}, "wavelengths must be half as long as the last axis of x");
    inputs.push_back(whole(mx::astype(*wavelengths, mx::float32, stream), stream));
  }
  const Settings settings = {traditional, false, scale, base.value_or(0.0)};
  return mx::array(x.shape(), mx::float32, std::make_shared<Rotate>(stream, settings), std::move(inputs));
}

}  // namespace native

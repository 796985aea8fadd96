#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "activations.h"
#include "attention.h"
#include "pool.h"
#include "primitives.h"

namespace nb = nanobind;
using namespace nb::literals;
using native::mx::array;
using Optional = std::optional<array>;

NB_MODULE(_native, m) {
  // Arrays are a type of MLX's own module.
  nb::module_::import_("mlx.core");
  m.def("isa", [] { return std::string(native::attention_kernels().name); });
  m.def("num_threads", &native::num_threads);
  m.def("set_num_threads", &native::set_num_threads, "count"_a);
  m.def(
      "attention",
      [](const array& q, const array& k, const array& v, float scale, int query_tile, int key_tile,
         const array& row_starts, const array& columns, const array& kinds, const array& masks, const Optional& dense,
         const Optional& lengths, const Optional& segments, const Optional& slopes, const Optional& query_positions,
         const Optional& key_positions, const Optional& sinks) {
        const native::TileMap tiles = {query_tile, key_tile, row_starts, columns, kinds, masks};
        return native::attention(
            q, k, v, scale, tiles, dense, lengths, segments, slopes, query_positions, key_positions, sinks);
      },
      "q"_a, "k"_a, "v"_a, nb::kw_only(), "scale"_a, "query_tile"_a, "key_tile"_a, "row_starts"_a, "columns"_a, "kinds"_a,
      "masks"_a, "dense"_a = nb::none(), "lengths"_a = nb::none(), "segments"_a = nb::none(), "slopes"_a = nb::none(),
      "query_positions"_a = nb::none(), "key_positions"_a = nb::none(), "sinks"_a = nb::none());
  m.def(
      "linear_attention",
      [](const array& q, const array& k, const array& v, const std::string& feature_map, float eps, int chunk_size,
         const Optional& segments, const Optional& state) {
        const bool positive = feature_map == "elu_plus_one", square = feature_map == "squared_relu";
        if (!positive && !square && feature_map != "relu") throw nb::value_error("feature_map must be known");
        const auto features = positive ? native::Features::elu_plus_one
            : square                   ? native::Features::squared_relu
                                       : native::Features::relu;
        return native::linear_attention(q, k, v, features, eps, chunk_size, segments, state);
      },
      "q"_a, "k"_a, "v"_a, nb::kw_only(), "feature_map"_a, "eps"_a, "chunk_size"_a, "segments"_a = nb::none(),
      "state"_a = nb::none());
  m.def("gated_delta", &native::gated_delta, "q"_a, "k"_a, "v"_a, "gamma"_a, "beta"_a, "state"_a);
  m.def("after", &native::after, "x"_a, "others"_a);
  m.def("softmax", &native::softmax, "x"_a);
  m.def("log_sum_exp", &native::log_sum_exp, "x"_a);
  m.def("cross_entropy", &native::cross_entropy, "logits"_a, "targets"_a);
  m.def(
      "adamw",
      [](const array& parameter, const array& gradient, const array& mean, const array& square, const array& rate,
         const array& step, const array& scale, double beta1, double beta2, double eps, double weight_decay) {
        return native::adamw(parameter, gradient, mean, square, rate, step, scale, {beta1, beta2, eps, weight_decay});
      },
      "parameter"_a, "gradient"_a, "mean"_a, "square"_a, nb::kw_only(), "rate"_a, "step"_a, "scale"_a, "beta1"_a,
      "beta2"_a, "eps"_a, "weight_decay"_a);
  m.def(
      "lion",
      [](const array& parameter, const array& gradient, const array& mean, const array& rate, const array& scale,
         double beta1, double beta2, double weight_decay) {
        return native::lion(parameter, gradient, mean, rate, scale, {beta1, beta2, 0, weight_decay});
      },
      "parameter"_a, "gradient"_a, "mean"_a, nb::kw_only(), "rate"_a, "scale"_a, "beta1"_a, "beta2"_a, "weight_decay"_a);
  m.def(
      "muon", &native::muon, "parameter"_a, "gradient"_a, "mean"_a, nb::kw_only(), "scale"_a, "momentum"_a, "nesterov"_a,
      "weight_decay"_a);
  m.def("descent", &native::descent, "parameter"_a, "direction"_a, nb::kw_only(), "rate"_a);
  m.def("global_norm", &native::global_norm, "arrays"_a);
  m.def("gelu", [](const array& x) { return native::activation(native::Activation::gelu, x); }, "x"_a);
  m.def("gelu_tanh", [](const array& x) { return native::activation(native::Activation::gelu_tanh, x); }, "x"_a);
  m.def("silu", [](const array& x) { return native::activation(native::Activation::silu, x); }, "x"_a);
  m.def("swiglu", &native::swiglu, "gate"_a, "up"_a);
  m.def("rms_norm", &native::rms_norm, "x"_a, "weight"_a.none(), "eps"_a);
  m.def("layer_norm", &native::layer_norm, "x"_a, "weight"_a.none(), "bias"_a.none(), "eps"_a);
  m.def(
      "rotate", &native::rotate, "x"_a, "offsets"_a, nb::kw_only(), "base"_a = nb::none(), "wavelengths"_a = nb::none(),
      "scale"_a = 1.0, "traditional"_a = false);
}

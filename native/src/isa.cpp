#include "isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace native {
namespace {

Isa chosen() {
  const char* asked = std::getenv("ATTENTION_ZOO_NATIVE_ISA");
  const std::string name = asked == nullptr ? "" : asked;
  bool has_avx2 = false, has_avx512 = false;
#ifdef NATIVE_X86
  has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (has_avx512 && (name.empty() || name == "avx512")) return Isa::avx512;
  if (has_avx2 && (name.empty() || name == "avx2")) return Isa::avx2;
#endif
  if (name.empty() || name == "baseline") return Isa::baseline;
  throw std::invalid_argument(
      "ATTENTION_ZOO_NATIVE_ISA must name an instruction set of this processor; got '" + name + "' (choices: baseline" +
      (has_avx2 ? ", avx2" : "") + (has_avx512 ? ", avx512" : "") + ")");
}

}  // namespace

Isa isa() {
  static const Isa chosen_once = chosen();
  return chosen_once;
}

}  // namespace native

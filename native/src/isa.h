// Which of the compiled instruction sets this processor runs.
#pragma once

#include "pool.h"

namespace native {

enum class Isa { baseline, avx2, avx512 };

// The fastest that this processor runs, or the one that ATTENTION_ZOO_NATIVE_ISA in the environment names.
NATIVE_API Isa isa();

}  // namespace native

// Defines TYPE& FUNCTION(): the table that each instruction set's namespace defines as `NAME`.
#ifdef NATIVE_X86
#define NATIVE_TABLE(TYPE, FUNCTION, NAME)                            \
  namespace baseline {                                                \
  extern const native::TYPE NAME;                                     \
  }                                                                   \
  namespace avx2 {                                                    \
  extern const native::TYPE NAME;                                     \
  }                                                                   \
  namespace avx512 {                                                  \
  extern const native::TYPE NAME;                                     \
  }                                                                   \
  const native::TYPE& native::FUNCTION() {                            \
    static const native::TYPE& table = isa() == Isa::avx512 ? avx512::NAME \
        : isa() == Isa::avx2                                ? avx2::NAME   \
                                                            : baseline::NAME; \
    return table;                                                     \
  }
#else
#define NATIVE_TABLE(TYPE, FUNCTION, NAME) \
  namespace baseline {                     \
  extern const native::TYPE NAME;          \
  }                                        \
  const native::TYPE& native::FUNCTION() { \
    return baseline::NAME;                 \
  }
#endif

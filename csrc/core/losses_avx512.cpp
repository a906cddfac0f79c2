#include "core/targets.hpp"

#if FASTNOISE_X86_TARGETS
#include <cstring>
#include <type_traits>
#include <utility>

#include "core/losses.hpp"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#pragma GCC optimize("fp-contract=off")  // the instruction sets are to give the same bytes

namespace fastnoise::avx512 {

constexpr std::size_t kBytes = 64;  // of a vector

#include "core/losses_body.hpp"

}  // namespace fastnoise::avx512

#pragma GCC pop_options
#endif

#include "core/targets.hpp"

#if FASTNOISE_X86_TARGETS
#include <cstring>
#include <type_traits>
#include <utility>

#include "core/losses.hpp"

#pragma GCC push_options
#pragma GCC target("avx2")
#pragma GCC optimize("fp-contract=off")  // the instruction sets are to give the same bytes

namespace fastnoise::avx2 {

constexpr std::size_t kBytes = 32;  // of a vector

#include "core/losses_body.hpp"

}  // namespace fastnoise::avx2

#pragma GCC pop_options
#endif

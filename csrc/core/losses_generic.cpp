#include <cstring>
#include <type_traits>
#include <utility>

#include "core/losses.hpp"

// No product and sum may be fused, on any processor: the instruction sets are to give the same bytes.
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

namespace fastnoise::generic {

constexpr std::size_t kBytes = 16;  // of a vector

#include "core/losses_body.hpp"

}  // namespace fastnoise::generic

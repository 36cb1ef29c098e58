// The numbers by which the engine names things.
#pragma once

#include <cstdint>

namespace dsm::engine {

using SequenceId = std::uint64_t;
using StepId = std::uint64_t;
using TokenId = std::int32_t;
using BlockId = std::int32_t;
using AdapterId = std::int32_t;

inline constexpr AdapterId kNoAdapter = 0;  // the model as it is

}  // namespace dsm::engine

// Vectors of 16 lanes: what products of all kinds share. Internal linkage, as kernels.h says.
#pragma once

namespace dsm::kernels {
namespace {

constexpr int kLanes = 16;

// So far ahead of their use weights are asked for: what processors fetch by themselves ends with
// each page of 4 KiB. Past the end of all weights that does nothing.
constexpr int kBytesAhead = 4096;

}  // namespace
}  // namespace dsm::kernels

// How much memory an adapter takes where a rank computes with it (resident_adapters.h). Pure.
#pragma once

#include <cstddef>

#include "worker/model/adapter_weights.h"
#include "worker/model/config.h"

namespace dsm::model {

// Between its matrices, which stand one after the other.
inline constexpr std::size_t kAdapterAlignment = 256;

constexpr std::size_t adapter_aligned(std::size_t bytes) {
  return (bytes + kAdapterAlignment - 1) / kAdapterAlignment * kAdapterAlignment;
}

// Of one that has every linear which may have one, in FP32, with the rank `low_rank`: no other of
// this or a lower rank takes more.
std::size_t most_adapter_bytes(const ModelConfig& model, const AdapterCut& cut, int low_rank);

}  // namespace dsm::model

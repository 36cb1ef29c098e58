#include "worker/model/device_check.h"

#include <string>

#include "kernels/choose.h"
#include "kernels/cuda/launch.h"

namespace dsm::model {
namespace {

Status missing(const std::string& what) {
  return fail(ErrorKind::kInvalid, "the CUDA backend has no " + what + " yet; the CPU has");
}

}  // namespace

Status check_device(const ModelConfig& c, device::Device device) {
  if (c.vocab_size > kernels::kMaxVocab) {
    return fail(ErrorKind::kInvalid, "vocab_size " + std::to_string(c.vocab_size) +
                                         " is more than the " + std::to_string(kernels::kMaxVocab) +
                                         " tokens that one can be chosen from");
  }
  if (device != device::Device::kCuda) return {};
  const int key =
      c.attention == AttentionKind::kGrouped ? c.v_head_dim : c.kv_lora_rank + c.qk_rope_head_dim;
  if (key > kernels::cuda::kMaxKeyDim) {
    return missing("attention over keys of " + std::to_string(key) + " values (" +
                   std::to_string(kernels::cuda::kMaxKeyDim) + " are the most)");
  }
  return {};
}

}  // namespace dsm::model

#include "worker/model/activations.h"

#include <string>
#include <utility>

namespace dsm::model {
namespace {

using kernels::PackedMatrix;
using kernels::SegmentedMatrix;

// An empty matrix is one that the layer does not have.
bool fp8(const PackedMatrix& w) {
  return w.n == 0 || w.stored_fp8;
}
bool fp8(const SegmentedMatrix& w) {
  for (int i = 0; i < w.count; ++i) {
    if (!w.part[i].stored_fp8) return false;
  }
  return true;
}

// The part of a layer that has a matrix in another type; empty: none.
std::string other_part(const LayerWeights& w) {
  if (!fp8(w.latent.latents) || !fp8(w.latent.q) || !fp8(w.grouped.qkv) || !fp8(w.output)) {
    return "self_attn";
  }
  if (!fp8(w.latent.indexer.query) || !fp8(w.latent.indexer.key)) return "self_attn.indexer";
  for (const auto& matrix : w.gate_up) {
    if (!fp8(matrix)) return "mlp";
  }
  for (const auto& matrix : w.down) {
    if (!fp8(matrix)) return "mlp";
  }
  return "";
}

}  // namespace

Status check_fp8_activations(const ModelConfig& c, int ranks) {
  if (c.integers) {
    return fail(ErrorKind::kInvalid,
                "FP8 activations need a checkpoint in FP8, this one's weights are integers");
  }
  if (!c.quantization) {
    return fail(ErrorKind::kInvalid,
                "FP8 activations need a checkpoint in FP8, this one has no quantization_config");
  }
  const std::pair<const char*, int> cut[] = {
      {"num_attention_heads times v_head_dim", c.num_heads * c.v_head_dim},
      {"intermediate_size",
       c.first_dense_layers > 0 || c.moe_layer_freq > 1 ? c.intermediate_size : 0},
      {"n_shared_experts times moe_intermediate_size", c.shared_width()},
      {"moe_intermediate_size", c.moe_intermediate_size}};
  for (const auto& [name, value] : cut) {
    if (ranks > 1 && value / ranks % kernels::kScaleBlock != 0) {
      return fail(ErrorKind::kInvalid, "FP8 activations have a scale for each " +
                                           std::to_string(kernels::kScaleBlock) +
                                           " inputs: " + name + ", " + std::to_string(value) +
                                           ", does not divide into such blocks over " +
                                           std::to_string(ranks) + " ranks");
    }
  }
  return {};
}

Status check_fp8_weights(const ModelWeights& weights) {
  for (std::size_t i = 0; i < weights.layers.size() + (weights.mtp ? 1 : 0); ++i) {
    const std::string part =
        other_part(i < weights.layers.size() ? weights.layers[i] : weights.mtp->layer);
    if (part.empty()) continue;
    return fail(ErrorKind::kInvalid,
                "FP8 activations need every matrix of a layer in FP8: one of "
                "model.layers." +
                    std::to_string(i) + "." + part + " is not");
  }
  return {};
}

}  // namespace dsm::model

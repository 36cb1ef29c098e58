// config.json of a checkpoint as typed values. Only what the graph of worker/model computes is
// accepted: an unknown architecture or option is refused by its name, and nothing has a built-in
// value.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace dsm::model {

// YaRN: frequencies are stretched by `factor` where a pair turns less than beta_slow times within
// the original context, kept where it turns more than beta_fast times, blended between. Applied at
// every length.
struct YarnConfig {
  double factor = 1;
  double beta_fast = 0;
  double beta_slow = 0;
  double mscale = 0;
  double mscale_all_dim = 0;
  int original_max_position = 0;
};

struct ModelConfig {
  std::string model_type;
  int vocab_size = 0;
  int hidden_size = 0;
  int num_layers = 0;
  int first_dense_layers = 0;  // layers with a dense MLP; the others are mixtures of experts
  int num_heads = 0;
  int q_lora_rank = 0;
  int kv_lora_rank = 0;  // latent width in the KV cache
  int qk_nope_head_dim = 0;
  int qk_rope_head_dim = 0;
  int v_head_dim = 0;
  int intermediate_size = 0;      // dense MLP
  int moe_intermediate_size = 0;  // one expert
  int num_experts = 0;
  int num_shared_experts = 0;
  int experts_per_token = 0;
  int num_groups = 0;
  int topk_groups = 0;
  bool normalise_topk = false;
  double routed_scale = 0;
  double rms_eps = 0;
  double rope_theta = 0;
  std::optional<YarnConfig> yarn;
  int max_positions = 0;
  bool tied_embeddings = false;
  std::int32_t bos_token = -1;           // -1: not said
  std::vector<std::int32_t> eos_tokens;  // empty: not said

  int qk_head_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }
  int shared_width() const { return num_shared_experts * moe_intermediate_size; }
};

// kNotFound: no such file; kInvalid: the message names the file and the field.
Result<ModelConfig> load_model_config(const std::filesystem::path& dir);
// `name` stands for the file in messages.
Result<ModelConfig> parse_model_config(std::string_view json, std::string_view name);

// kInvalid, with the numbers, when the model cannot be cut into `ranks` equal parts.
Status check_tensor_parallel(const ModelConfig& config, int ranks);

}  // namespace dsm::model

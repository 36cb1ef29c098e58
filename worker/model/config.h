// config.json of a checkpoint as typed values, for the families llama, qwen2, qwen3, deepseek_v2,
// deepseek_v3 and deepseek_v32. Only what the graph of worker/model computes is accepted: an
// unknown architecture or option is refused by its name. No size has a built-in value; an option
// that is absent has the value that its family gives it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "worker/model/quantization.h"

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
  double attention_factor = 1;  // of sines and cosines, beside what mscale gives
  int original_max_position = 0;
};

// Llama 3.1's rule: a pair whose wavelength is above original_max_position / low_freq_factor is
// stretched by `factor`, one below original_max_position / high_freq_factor is kept, and between
// the two they are blended.
struct Llama3RopeConfig {
  double factor = 1;
  double low_freq_factor = 0;
  double high_freq_factor = 0;
  int original_max_position = 0;
};

struct RopeConfig {
  double theta = 0;
  double linear_factor = 1;  // positions are divided by it
  std::optional<YarnConfig> yarn;
  std::optional<Llama3RopeConfig> llama3;
  bool halves = false;  // pairs are (i, i + dim / 2) instead of (2i, 2i + 1)
};

enum class AttentionKind {
  kLatent,   // DeepSeek-V2's and V3's: keys and values are expanded from one latent per token
  kGrouped,  // Llama's and Qwen's: a KV head for each group of query heads
};

enum class RouterKind {
  kSigmoidBias,  // DeepSeek-V3's noaux_tc
  kSoftmax,      // DeepSeek-V2's greedy (one group) and group_limited_greedy
};

// DeepSeek-V3.2's sparse attention: an indexer scores a token's past, and attention is over the
// best.
struct IndexerConfig {
  int heads = 0;
  int head_dim = 0;
  int top_k = 0;
};

struct ModelConfig {
  std::string model_type;
  int vocab_size = 0;
  int hidden_size = 0;
  int num_layers = 0;

  AttentionKind attention = AttentionKind::kLatent;
  int num_heads = 0;
  int num_kv_heads = 0;  // kLatent: as num_heads, which is how its heads are cut
  bool qkv_bias = false;
  bool head_norms = false;   // kGrouped: of each head of queries and keys, before it is rotated
  int q_lora_rank = 0;       // kLatent; 0: queries are projected directly
  int kv_lora_rank = 0;      // kLatent: latent width in the KV cache
  int qk_nope_head_dim = 0;  // kLatent: the part of a head that is not rotated
  int qk_rope_head_dim = 0;  // kGrouped: the whole head
  int v_head_dim = 0;
  std::optional<IndexerConfig> indexer;  // kLatent; empty: attention is over the whole past

  int intermediate_size = 0;      // dense MLP
  int first_dense_layers = 0;     // layers before it have a dense MLP
  int moe_layer_freq = 1;         // of the others, only multiples of it are mixtures of experts
  int moe_intermediate_size = 0;  // one expert
  int num_experts = 0;            // 0: a model without experts
  int num_shared_experts = 0;
  int experts_per_token = 0;
  RouterKind router = RouterKind::kSigmoidBias;
  int num_groups = 0;
  int topk_groups = 0;
  bool normalise_topk = false;
  double routed_scale = 0;

  int mtp_layers = 0;  // multi-token-prediction layers after the others; one is used (mtp.h)

  double rms_eps = 0;
  RopeConfig rope;
  int max_positions = 0;
  bool tied_embeddings = false;
  std::optional<Fp8Blocks> quantization;   // empty: no weight is in FP8
  std::optional<IntegerWeights> integers;  // empty: no weight is an integer
  std::int32_t bos_token = -1;             // -1: not said
  std::vector<std::int32_t> eos_tokens;    // empty: not said

  int qk_head_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }
  int shared_width() const { return num_shared_experts * moe_intermediate_size; }
  bool has_experts(int layer) const {
    return num_experts > 0 && layer >= first_dense_layers && layer % moe_layer_freq == 0;
  }
};

// kNotFound: no such file; kInvalid: the message names the file and the field.
Result<ModelConfig> load_model_config(const std::filesystem::path& dir);
// `name` stands for the file in messages.
Result<ModelConfig> parse_model_config(std::string_view json, std::string_view name);

// kInvalid, with the numbers, when the model cannot be cut into `ranks` equal parts. KV heads may
// be fewer than ranks when they divide them: then each is held by several ranks.
Status check_tensor_parallel(const ModelConfig& config, int ranks);
// kInvalid, with what to change, when its experts cannot be shared out to `ranks`, each as a whole.
// Their sum is then added in another order, which the deterministic mode does not allow.
Status check_expert_parallel(const ModelConfig& config, int ranks, bool deterministic);
// kInvalid when ranks have no use for sequences of their own to attend to.
Status check_data_parallel_attention(const ModelConfig& config);

}  // namespace dsm::model

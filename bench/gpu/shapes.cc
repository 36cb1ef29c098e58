#include "bench/gpu/shapes.h"

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

namespace dsm::bench {
namespace {

using Json = nlohmann::ordered_json;
using model::ModelConfig;

struct GroupedSizes {
  int hidden, intermediate, layers, heads, kv_heads, vocab;
};
Json grouped(const char* family, const GroupedSizes& sizes) {
  return {{"model_type", family},
          {"hidden_act", "silu"},
          {"hidden_size", sizes.hidden},
          {"intermediate_size", sizes.intermediate},
          {"num_hidden_layers", sizes.layers},
          {"num_attention_heads", sizes.heads},
          {"num_key_value_heads", sizes.kv_heads},
          {"vocab_size", sizes.vocab},
          {"max_position_embeddings", 131072},
          {"rms_norm_eps", 1e-6},
          {"rope_theta", 10000.0},
          {"tie_word_embeddings", false}};
}

Json distill_llama_8b() {
  Json json = grouped("llama", {4096, 14336, 32, 32, 8, 128256});
  json["rms_norm_eps"] = 1e-5;
  json["rope_theta"] = 500000.0;
  json["rope_scaling"] = {{"rope_type", "llama3"},
                          {"factor", 8.0},
                          {"low_freq_factor", 1.0},
                          {"high_freq_factor", 4.0},
                          {"original_max_position_embeddings", 8192}};
  return json;
}

Json v2_lite() {
  return {{"model_type", "deepseek_v2"},
          {"hidden_act", "silu"},
          {"hidden_size", 2048},
          {"intermediate_size", 10944},
          {"moe_intermediate_size", 1408},
          {"num_hidden_layers", 27},
          {"first_k_dense_replace", 1},
          {"moe_layer_freq", 1},
          {"num_attention_heads", 16},
          {"num_key_value_heads", 16},
          {"q_lora_rank", nullptr},
          {"kv_lora_rank", 512},
          {"qk_nope_head_dim", 128},
          {"qk_rope_head_dim", 64},
          {"v_head_dim", 128},
          {"n_routed_experts", 64},
          {"n_shared_experts", 2},
          {"num_experts_per_tok", 6},
          {"n_group", 1},
          {"topk_group", 1},
          {"topk_method", "greedy"},
          {"scoring_func", "softmax"},
          {"norm_topk_prob", false},
          {"routed_scaling_factor", 1.0},
          {"vocab_size", 102400},
          {"max_position_embeddings", 163840},
          {"rms_norm_eps", 1e-6},
          {"rope_theta", 10000.0},
          {"rope_scaling",
           {{"type", "yarn"},
            {"factor", 40},
            {"beta_fast", 32},
            {"beta_slow", 1},
            {"mscale", 0.707},
            {"mscale_all_dim", 0.707},
            {"original_max_position_embeddings", 4096}}},
          {"tie_word_embeddings", false}};
}

void add_attention(const ModelConfig& c, const std::string& layer, std::vector<Tensor>& all) {
  const std::string at = layer + "self_attn.";
  const std::int64_t hidden = c.hidden_size;
  const std::int64_t q_width = std::int64_t{c.num_heads} * c.qk_head_dim();
  const std::int64_t out_width = std::int64_t{c.num_heads} * c.v_head_dim;
  all.push_back({at + "q_proj.weight", {q_width, hidden}});
  all.push_back({at + "o_proj.weight", {hidden, out_width}});
  if (c.attention == model::AttentionKind::kLatent) {
    all.push_back(
        {at + "kv_a_proj_with_mqa.weight", {c.kv_lora_rank + c.qk_rope_head_dim, hidden}});
    all.push_back({at + "kv_a_layernorm.weight", {c.kv_lora_rank}});
    all.push_back(
        {at + "kv_b_proj.weight",
         {std::int64_t{c.num_heads} * (c.qk_nope_head_dim + c.v_head_dim), c.kv_lora_rank}});
    return;
  }
  const std::int64_t kv_width = std::int64_t{c.num_kv_heads} * c.v_head_dim;
  all.push_back({at + "k_proj.weight", {kv_width, hidden}});
  all.push_back({at + "v_proj.weight", {kv_width, hidden}});
  if (!c.qkv_bias) return;
  all.push_back({at + "q_proj.bias", {q_width}});
  all.push_back({at + "k_proj.bias", {kv_width}});
  all.push_back({at + "v_proj.bias", {kv_width}});
}

void add_mlp(const std::string& at, std::int64_t hidden, std::int64_t width,
             std::vector<Tensor>& all) {
  all.push_back({at + "gate_proj.weight", {width, hidden}});
  all.push_back({at + "up_proj.weight", {width, hidden}});
  all.push_back({at + "down_proj.weight", {hidden, width}});
}

// Matrices of attention and of MLPs, as in DeepSeek's checkpoints.
bool becomes_fp8(const Tensor& tensor) {
  return tensor.shape.size() == 2 && tensor.name.find("_proj") != std::string::npos;
}

// Those of a checkpoint in FP8, with a tensor of scales after each that is.
std::vector<Tensor> with_scales(const std::vector<Tensor>& plain, const model::Fp8Blocks& blocks) {
  std::vector<Tensor> all;
  for (const Tensor& tensor : plain) {
    all.push_back(tensor);
    if (!becomes_fp8(tensor)) continue;
    all.back().dtype = "F8_E4M3";
    all.push_back({tensor.name + "_scale_inv",
                   {(tensor.shape[0] + blocks.rows - 1) / blocks.rows,
                    (tensor.shape[1] + blocks.columns - 1) / blocks.columns},
                   "F32"});
  }
  return all;
}

std::uint64_t bytes_of(const Tensor& tensor) {
  std::uint64_t bytes = tensor.dtype == "F8_E4M3" ? 1 : tensor.dtype == "F32" ? 4 : 2;
  for (const std::int64_t extent : tensor.shape) bytes *= static_cast<std::uint64_t>(extent);
  return bytes;
}

}  // namespace

std::span<const ModelShape> public_shapes() {
  static const std::vector<ModelShape> kShapes = {
      {"r1-distill-qwen-1.5b", grouped("qwen2", {1536, 8960, 28, 12, 2, 151936}).dump(1)},
      {"r1-distill-qwen-7b", grouped("qwen2", {3584, 18944, 28, 28, 4, 152064}).dump(1)},
      {"r1-distill-llama-8b", distill_llama_8b().dump(1)},
      {"deepseek-v2-lite", v2_lite().dump(1)},
  };
  return kShapes;
}

ModelShape in_fp8(const ModelShape& shape) {
  Json json = Json::parse(shape.config);
  json["quantization_config"] = {{"quant_method", "fp8"},
                                 {"fmt", "e4m3"},
                                 {"weight_block_size", {128, 128}},
                                 {"activation_scheme", "dynamic"}};
  return {shape.name, json.dump(1)};
}

const ModelShape* find_shape(std::string_view name) {
  for (const ModelShape& shape : public_shapes()) {
    if (shape.name == name) return &shape;
  }
  return nullptr;
}

std::vector<Tensor> tensors_of(const ModelConfig& c) {
  std::vector<Tensor> all;
  const std::int64_t hidden = c.hidden_size;
  all.push_back({"model.embed_tokens.weight", {c.vocab_size, hidden}});
  for (int i = 0; i < c.num_layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    all.push_back({layer + "input_layernorm.weight", {hidden}});
    all.push_back({layer + "post_attention_layernorm.weight", {hidden}});
    add_attention(c, layer, all);
    if (!c.has_experts(i)) {
      add_mlp(layer + "mlp.", hidden, c.intermediate_size, all);
      continue;
    }
    all.push_back({layer + "mlp.gate.weight", {c.num_experts, hidden}});
    add_mlp(layer + "mlp.shared_experts.", hidden, c.shared_width(), all);
    for (int e = 0; e < c.num_experts; ++e) {
      add_mlp(layer + "mlp.experts." + std::to_string(e) + ".", hidden, c.moe_intermediate_size,
              all);
    }
  }
  all.push_back({"model.norm.weight", {hidden}});
  all.push_back({"lm_head.weight", {c.vocab_size, hidden}});
  return c.quantization ? with_scales(all, *c.quantization) : all;
}

Status write_checkpoint(const ModelShape& shape, const std::filesystem::path& folder) {
  const auto config = model::parse_model_config(shape.config, shape.name);
  if (!config) return std::unexpected(config.error());
  Json header;
  std::uint64_t end = 0;
  for (const Tensor& tensor : tensors_of(*config)) {
    const std::uint64_t begin = end;
    end += bytes_of(tensor);
    header[tensor.name] = {
        {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {begin, end}}};
  }
  const std::string text = header.dump();
  std::vector<std::uint16_t> values(1 << 20);
  std::mt19937 random(1);
  for (auto& value : values) {
    const auto bits = random();
    value = static_cast<std::uint16_t>((bits & 0x803fU) | 0x3c00U);
  }
  std::ofstream(folder / "config.json") << shape.config;
  std::ofstream file(folder / "model.safetensors", std::ios::binary);
  const std::uint64_t length = text.size();
  file.write(reinterpret_cast<const char*>(&length), sizeof length);
  file.write(text.data(), static_cast<std::streamsize>(length));
  const std::uint64_t most = values.size() * sizeof values[0];
  for (std::uint64_t left = end; left > 0;) {
    const std::uint64_t part = std::min(left, most);
    file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(part));
    left -= part;
  }
  file.close();
  if (!file) {
    return fail(ErrorKind::kExhausted, "cannot write " + std::to_string(end >> 20) + " MiB to " +
                                           folder.string() + ": choose another --folder");
  }
  return {};
}

}  // namespace dsm::bench

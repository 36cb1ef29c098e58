// The sizes in a model's config.json that say how much memory it takes. This reader knows less than
// the worker's (worker/model/config.h) and refuses less: whether a worker computes an option of a
// model is for its image to say, which may be newer than who sizes it. A test holds the two equal
// on every checkpoint of the repository. Plain values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "sizing/integers.h"

namespace dsm::sizing {

// Of weights that are not quantised.
enum class Stored { kBf16, kF16, kF32 };

struct Shape {
  std::string model_type;
  std::int64_t vocab = 0;
  std::int64_t hidden = 0;
  std::int64_t layers = 0;
  std::int64_t max_positions = 0;
  Stored stored = Stored::kBf16;
  bool tied = false;  // the head is the embedding
  bool fp8 = false;   // matrices of layers, in blocks of 128 x 128 with a scale each
  Integers integers;  // matrices that somebody else has rounded

  bool latent = false;  // DeepSeek's attention; else grouped-query
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;     // latent: as heads
  std::int64_t head = 0;         // grouped: width of a head
  bool qkv_bias = false;         // grouped
  bool head_norms = false;       // grouped: Qwen3's
  std::int64_t q_lora = 0;       // latent; 0: queries are projected directly
  std::int64_t kv_lora = 0;      // latent
  std::int64_t nope = 0;         // latent: the part of a head that is not rotated
  std::int64_t rope = 0;         // the part that is; grouped: the whole head
  std::int64_t value = 0;        // width of a head's value
  std::int64_t index_heads = 0;  // latent: of the indexer; 0: none
  std::int64_t index_head = 0;

  std::int64_t mlp = 0;          // width of a dense MLP
  std::int64_t first_dense = 0;  // layers before it are dense
  std::int64_t moe_every = 1;    // of the others, multiples of it have experts
  std::int64_t experts = 0;      // 0: all layers are dense
  std::int64_t expert = 0;       // width of one
  std::int64_t shared_experts = 0;
  std::int64_t experts_per_token = 0;
  bool router_bias = false;
  std::int64_t mtp_layers = 0;  // multi-token-prediction layers; one is used

  bool has_experts(std::int64_t layer) const {
    return experts > 0 && layer >= first_dense && layer % moe_every == 0;
  }
};

// `name` stands for the file in messages. kInvalid: not a config.json, the message names the field;
// kNotFound: a family or a quantisation whose sizes are not known here.
Result<Shape> parse_shape(std::string_view config_json, std::string_view name);

// kInvalid, with the numbers, when the model cannot be cut into `ranks` equal parts.
Status check_cut(const Shape& shape, std::int64_t ranks);
// The same of its experts, whole ones (WeightCut::expert_parallel).
Status check_expert_parallel(const Shape& shape, std::int64_t ranks);
// kInvalid when matrices that are integers already would be rounded to others
// (WeightCut::weight_bits).
Status check_rounding(const Shape& shape, int weight_bits);
// kInvalid when ranks have no use for sequences of their own (WeightCut::data_parallel_attention).
Status check_data_parallel_attention(const Shape& shape);

}  // namespace dsm::sizing

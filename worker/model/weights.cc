#include "worker/model/weights.h"

#include <algorithm>
#include <string>

#include "worker/model/weight_loader.h"

namespace dsm::model {
namespace {

using kernels::PackedMatrix;
using kernels::SegmentedMatrix;
using kernels::WeightPiece;

constexpr const char* kEmbedding = "model.embed_tokens.weight";

// One pass over everything that a rank takes.
class Reader {
 public:
  Reader(WeightLoader& loader, const ModelConfig& config, const WeightSlice& slice)
      : loader_(loader),
        c_(config),
        slice_(slice),
        cut_{slice.rank, slice.ranks},
        attention_(attention_cut(cut_, slice.data_parallel_attention)) {}

  ModelWeights read() {
    ModelWeights w;
    const PackedMatrix embedding = take_embedding(w);
    for (int i = 0; i < c_.num_layers && !loader_.error(); ++i) w.layers.push_back(layer(i));
    w.final_norm = loader_.vector("model.norm.weight", c_.hidden_size);
    w.head = head(embedding);
    if (slice_.mtp) w.mtp = mtp();
    return w;
  }

 private:
  std::optional<kernels::DType> head_rounding() const {
    return slice_.round_to ? std::optional(kRoundedHead) : std::nullopt;
  }

  // Rounded it is a matrix, of which a column is what is looked up of a token.
  PackedMatrix take_embedding(ModelWeights& w) {
    if (!slice_.round_to) {
      std::tie(w.embedding, w.embedding_dtype) =
          loader_.table(kEmbedding, c_.vocab_size, c_.hidden_size);
      return {};
    }
    const PackedMatrix matrix = loader_.pack(
        rounded(loader_.plain(kEmbedding, c_.vocab_size, c_.hidden_size), head_rounding()));
    w.embedding = matrix.data;
    w.embedding_dtype = matrix.dtype;
    w.embedding_scales = matrix.scales;
    return matrix;
  }

  PackedMatrix head(const PackedMatrix& embedding) {
    const Share share = share_of(c_.vocab_size, slice_.rank, slice_.ranks);
    const bool panels = slice_.ranks == 1 || share.size() % kernels::kPanel == 0;
    if (c_.tied_embeddings && slice_.round_to && panels) {
      return kernels::columns_of(embedding, share.begin, share.size());
    }
    const WeightPiece piece =
        loader_.slice(c_.tied_embeddings ? kEmbedding : "lm_head.weight", c_.vocab_size,
                      c_.hidden_size, share.begin, share.size(), 0, c_.hidden_size);
    return loader_.pack(rounded(piece, head_rounding()));
  }

  // Checkpoints repeat embed_tokens and shared_head.head, which are the main model's.
  MtpWeights mtp() {
    const std::string prefix = "model.layers." + std::to_string(c_.num_layers) + ".";
    MtpWeights w;
    w.embedding_norm = loader_.vector(prefix + "enorm.weight", c_.hidden_size);
    w.state_norm = loader_.vector(prefix + "hnorm.weight", c_.hidden_size);
    w.join =
        loader_.pack(loader_.whole(prefix + "eh_proj.weight", c_.hidden_size, 2 * c_.hidden_size));
    w.layer = layer(c_.num_layers);
    w.norm = loader_.vector(prefix + "shared_head.norm.weight", c_.hidden_size);
    return w;
  }
  LayerWeights layer(int index) {
    const std::string prefix = "model.layers." + std::to_string(index) + ".";
    LayerWeights w;
    const std::string self = prefix + "self_attn.";
    if (c_.attention == AttentionKind::kGrouped) {
      w.grouped = grouped(self);
    } else {
      w.latent = latent(self);
    }
    w.output = segmented(self + "o_proj.weight", c_.num_heads, c_.v_head_dim, attention_);
    w.attention_norm = loader_.vector(prefix + "input_layernorm.weight", c_.hidden_size);
    w.mlp_norm = loader_.vector(prefix + "post_attention_layernorm.weight", c_.hidden_size);
    const std::string mlp = prefix + "mlp.";
    if (!c_.has_experts(index)) {
      cut_expert(mlp, c_.intermediate_size, w);
      return w;
    }
    w.router = loader_.pack(loader_.whole(mlp + "gate.weight", c_.num_experts, c_.hidden_size));
    if (c_.router == RouterKind::kSigmoidBias) {
      w.router_bias = loader_.vector(mlp + "gate.e_score_correction_bias", c_.num_experts);
    }
    cut_expert(mlp + "shared_experts.", c_.shared_width(), w);
    const Share experts =
        experts_of(c_.num_experts, slice_.rank, slice_.ranks, slice_.expert_parallel);
    for (int e = experts.begin; e < experts.end && !loader_.error(); ++e) {
      const std::string name = mlp + "experts." + std::to_string(e) + ".";
      if (slice_.expert_parallel) {
        whole_expert(name, c_.moe_intermediate_size, w);
      } else {
        cut_expert(name, c_.moe_intermediate_size, w);
      }
    }
    return w;
  }

  // In integers, if it is stored so or is to be rounded to them.
  static WeightPiece rounded(WeightPiece piece, std::optional<kernels::DType> to) {
    piece.round_to = kernels::is_integer(piece.dtype) ? std::optional(piece.dtype) : to;
    return piece;
  }
  WeightPiece rounded(const WeightPiece& piece) const { return rounded(piece, slice_.round_to); }

  LatentWeights latent(const std::string& prefix) {
    LatentWeights w;
    std::vector<WeightPiece> latents;
    int q_input = c_.hidden_size;
    std::string q_name = prefix + "q_proj.weight";
    if (c_.q_lora_rank > 0) {
      latents.push_back(
          rounded(loader_.whole(prefix + "q_a_proj.weight", c_.q_lora_rank, c_.hidden_size)));
      w.q_norm = loader_.vector(prefix + "q_a_layernorm.weight", c_.q_lora_rank);
      q_input = c_.q_lora_rank;
      q_name = prefix + "q_b_proj.weight";
    }
    latents.push_back(
        rounded(loader_.whole(prefix + "kv_a_proj_with_mqa.weight",
                              c_.kv_lora_rank + c_.qk_rope_head_dim, c_.hidden_size)));
    w.latents = loader_.pack(latents);
    w.kv_norm = loader_.vector(prefix + "kv_a_layernorm.weight", c_.kv_lora_rank);
    const Share heads = share_of(c_.num_heads, attention_.rank, attention_.ranks);
    const int qk = c_.qk_head_dim();
    w.q = loader_.pack(
        rounded(loader_.slice(q_name, std::int64_t{c_.num_heads} * qk, q_input,
                              std::int64_t{heads.begin} * qk, heads.size() * qk, 0, q_input)));
    // Per head the key rows (nope), then the value rows.
    const int nope = c_.qk_nope_head_dim;
    const int rows = nope + c_.v_head_dim;
    const auto part = [&](int row, int n) {
      return loader_.slice(prefix + "kv_b_proj.weight", std::int64_t{c_.num_heads} * rows,
                           c_.kv_lora_rank, std::int64_t{heads.begin} * rows + row, n, 0,
                           c_.kv_lora_rank);
    };
    if (slice_.expands) w.expand = loader_.pack(part(0, heads.size() * rows));
    const bool shares =
        slice_.expands && nope % kernels::kPanel == 0 && c_.v_head_dim % kernels::kPanel == 0;
    for (int row = 0; row < heads.size() * rows; row += rows) {
      WeightPiece key = part(row, nope);
      std::swap(key.n, key.k);
      std::swap(key.n_stride, key.k_stride);
      w.key_up.push_back(loader_.pack(key));
      w.value_up.push_back(shares ? kernels::columns_of(w.expand, row + nope, c_.v_head_dim)
                                  : loader_.pack(part(row + nope, c_.v_head_dim)));
    }
    if (c_.indexer) w.indexer = indexer(prefix + "indexer.");
    return w;
  }

  IndexerWeights indexer(const std::string& prefix) {
    const auto [heads, dim, top_k] = *c_.indexer;
    IndexerWeights w;
    w.query = loader_.pack(loader_.whole(prefix + "wq_b.weight", heads * dim, c_.q_lora_rank));
    w.key = loader_.pack(loader_.whole(prefix + "wk.weight", dim, c_.hidden_size));
    w.key_norm = loader_.vector(prefix + "k_norm.weight", dim);
    w.key_bias = loader_.vector(prefix + "k_norm.bias", dim);
    w.head_weight =
        loader_.pack(loader_.whole(prefix + "weights_proj.weight", heads, c_.hidden_size));
    return w;
  }

  GroupedWeights grouped(const std::string& prefix) {
    const int dim = c_.v_head_dim;
    const Share q_heads = share_of(c_.num_heads, slice_.rank, slice_.ranks);
    const Share kv_heads = kv_heads_of(c_.num_kv_heads, slice_.rank, slice_.ranks);
    std::vector<WeightPiece> pieces;
    std::vector<WeightLoader::VectorPart> biases;
    const auto add = [&](const char* name, int heads, Share share) {
      pieces.push_back(rounded(loader_.slice(prefix + name + ".weight", std::int64_t{heads} * dim,
                                             c_.hidden_size, std::int64_t{share.begin} * dim,
                                             share.size() * dim, 0, c_.hidden_size)));
      biases.push_back({prefix + name + ".bias", std::int64_t{heads} * dim, share.begin * dim,
                        share.size() * dim});
    };
    add("q_proj", c_.num_heads, q_heads);
    add("k_proj", c_.num_kv_heads, kv_heads);
    add("v_proj", c_.num_kv_heads, kv_heads);
    GroupedWeights w;
    w.qkv = loader_.pack(pieces);
    if (c_.qkv_bias) w.bias = loader_.vectors(biases);
    if (c_.head_norms) {
      w.query_norm = loader_.vector(prefix + "q_norm.weight", dim);
      w.key_norm = loader_.vector(prefix + "k_norm.weight", dim);
    }
    return w;
  }

  // An MLP's gate, up and down, appended to the layer's lists: this rank's part ...
  void cut_expert(const std::string& prefix, int width, LayerWeights& w) {
    w.gate_up.push_back(gate_up(prefix, width, share_of(width, slice_.rank, slice_.ranks)));
    w.down.push_back(segmented(prefix + "down_proj.weight", width, 1, cut_));
  }
  // ... or all of it.
  void whole_expert(const std::string& prefix, int width, LayerWeights& w) {
    w.gate_up.push_back(gate_up(prefix, width, {0, width}));
    SegmentedMatrix down;
    down.count = 1;
    down.part[0] =
        loader_.pack(rounded(loader_.whole(prefix + "down_proj.weight", c_.hidden_size, width)));
    w.down.push_back(down);
  }

  PackedMatrix gate_up(const std::string& prefix, int width, Share share) {
    constexpr int kHalf = kernels::kPanel / 2;
    std::vector<WeightPiece> pieces;
    for (int at = share.begin; at < share.end; at += kHalf) {
      const int n = std::min(kHalf, share.end - at);
      for (const char* half : {"gate_proj.weight", "up_proj.weight"}) {
        pieces.push_back(
            rounded(loader_.slice(prefix + half, width, c_.hidden_size, at, n, 0, c_.hidden_size)));
        if (n < kHalf) pieces.push_back({.n = kHalf - n, .k = c_.hidden_size});
      }
    }
    return loader_.pack(pieces);
  }

  // This rank's segments of a row-parallel weight [hidden, units * unit] that is cut so. Of all
  // ranks' segments, number s holds units s * units / segments and on: where these are kSegments,
  // the sums do not depend on the number of ranks.
  SegmentedMatrix segmented(const std::string& name, int units, int unit, RankCut cut) {
    SegmentedMatrix w;
    w.count = slice_.segmented ? kernels::kSegments / cut.ranks : 1;
    const auto begin_of = [&](int segment) {  // of all ranks' segments
      return static_cast<int>(std::int64_t{units} * segment / (cut.ranks * w.count)) * unit;
    };
    const int first = begin_of(cut.rank * w.count);
    for (int i = 0; i < w.count; ++i) {
      const int segment = cut.rank * w.count + i;
      const int begin = begin_of(segment);
      w.offset[i] = begin - first;
      w.part[i] = loader_.pack(
          rounded(loader_.slice(name, c_.hidden_size, std::int64_t{units} * unit, 0, c_.hidden_size,
                                begin, begin_of(segment + 1) - begin)));
    }
    return w;
  }

  WeightLoader& loader_;
  const ModelConfig& c_;
  WeightSlice slice_;
  RankCut cut_;
  RankCut attention_;
};

}  // namespace

Result<std::int64_t> count_weights(const Checkpoint& checkpoint, const ModelConfig& config,
                                   const WeightSlice& slice) {
  const LoadProgress nobody = [](std::int64_t, std::int64_t) {};
  WeightLoader count(checkpoint, config.quantization, config.integers, nullptr, 0, nobody);
  Reader(count, config, slice).read();
  if (count.error()) return std::unexpected(*count.error());
  return count.bytes();
}

Result<ModelWeights> load_weights(const Checkpoint& checkpoint, const ModelConfig& config,
                                  const WeightSlice& slice, device::Backend& backend,
                                  const LoadProgress& progress) {
  const auto total = count_weights(checkpoint, config, slice);
  if (!total) return std::unexpected(total.error());
  progress(0, *total);
  WeightLoader loader(checkpoint, config.quantization, config.integers, &backend, *total, progress);
  ModelWeights weights = Reader(loader, config, slice).read();
  loader.finish();
  if (loader.error()) return std::unexpected(*loader.error());
  return weights;
}

}  // namespace dsm::model

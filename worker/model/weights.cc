#include "worker/model/weights.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>

namespace dsm::model {
namespace {

using kernels::DType;
using kernels::kSegments;
using kernels::PackedMatrix;
using kernels::SegmentedMatrix;
using kernels::WeightPiece;

// Takes slices of tensors and packs them. The first error sticks and makes everything after it a
// no-op. A dry loader only checks and counts.
class Loader {
 public:
  Loader(const Checkpoint& checkpoint, device::Backend* backend, std::int64_t total,
         const LoadProgress& progress)
      : checkpoint_(checkpoint), backend_(backend), total_(total), progress_(progress) {}

  const std::optional<Error>& error() const { return error_; }
  std::int64_t bytes() const { return bytes_; }

  // Rows [row, row + n) and columns [column, column + k) of a tensor [rows, columns].
  WeightPiece slice(const std::string& name, std::int64_t rows, std::int64_t columns,
                    std::int64_t row, int n, std::int64_t column, int k) {
    const auto view = get(name, {rows, columns});
    bytes_ += std::int64_t{n} * k * static_cast<std::int64_t>(kernels::bytes_of(view.dtype));
    if (view.bytes.empty()) return {.n = n, .k = k};
    const auto offset =
        (row * columns + column) * static_cast<std::int64_t>(kernels::bytes_of(view.dtype));
    return {view.bytes.data() + offset, view.dtype, columns, 1, n, k};
  }
  WeightPiece whole(const std::string& name, int rows, int columns) {
    return slice(name, rows, columns, 0, rows, 0, columns);
  }

  PackedMatrix pack(std::span<const WeightPiece> pieces) {
    if (dry()) return {};
    const auto packed = backend_->pack(pieces);
    progress_(bytes_, total_);
    return packed;
  }
  PackedMatrix pack(const WeightPiece& piece) { return pack(std::span(&piece, 1)); }

  const float* vector(const std::string& name, std::int64_t size) {
    const auto view = get(name, {size});
    bytes_ += static_cast<std::int64_t>(view.bytes.size());
    if (dry()) return nullptr;
    auto* values = device::allocate<float>(*backend_, static_cast<std::size_t>(size));
    kernels::to_float(view.bytes.data(), view.dtype, size, values);
    return values;
  }

  // Ranges of vectors of their own, one after the other.
  struct VectorPart {
    std::string name;
    std::int64_t size;  // of the whole vector
    int begin;
    int count;
  };
  const float* vectors(std::span<const VectorPart> parts) {
    std::size_t total = 0;
    for (const auto& part : parts) total += static_cast<std::size_t>(part.count);
    float* values = dry() ? nullptr : device::allocate<float>(*backend_, total);
    float* to = values;
    for (const auto& part : parts) {
      const auto view = get(part.name, {part.size});
      const auto unit = static_cast<std::int64_t>(kernels::bytes_of(view.dtype));
      bytes_ += part.count * unit;
      if (dry()) continue;
      kernels::to_float(view.bytes.data() + part.begin * unit, view.dtype, part.count, to);
      to += part.count;
    }
    return values;
  }

  // A table whose rows are looked up: BF16 as it is, else FP32.
  std::pair<const void*, DType> table(const std::string& name, std::int64_t rows,
                                      std::int64_t columns) {
    const auto view = get(name, {rows, columns});
    bytes_ += static_cast<std::int64_t>(view.bytes.size());
    if (dry()) return {nullptr, DType::kBF16};
    const std::int64_t count = rows * columns;
    std::pair<const void*, DType> result;
    if (view.dtype == DType::kBF16) {
      void* copy = backend_->allocate(view.bytes.size());
      std::memcpy(copy, view.bytes.data(), view.bytes.size());
      result = {copy, DType::kBF16};
    } else {
      auto* copy = device::allocate<float>(*backend_, static_cast<std::size_t>(count));
      kernels::to_float(view.bytes.data(), view.dtype, count, copy);
      result = {copy, DType::kF32};
    }
    progress_(bytes_, total_);
    return result;
  }

 private:
  bool dry() const { return backend_ == nullptr || error_.has_value(); }

  TensorView get(const std::string& name, std::initializer_list<std::int64_t> shape) {
    if (error_) return {};
    auto view = checkpoint_.get(name, shape);
    if (view) return *view;
    error_ = view.error();
    return {};
  }

  const Checkpoint& checkpoint_;
  device::Backend* backend_;
  std::int64_t total_;
  const LoadProgress& progress_;
  std::int64_t bytes_ = 0;
  std::optional<Error> error_;
};

// One pass over everything that a rank takes.
class Reader {
 public:
  Reader(Loader& loader, const ModelConfig& config, int rank, int ranks)
      : loader_(loader), c_(config), rank_(rank), ranks_(ranks) {}

  ModelWeights read() {
    ModelWeights w;
    std::tie(w.embedding, w.embedding_dtype) =
        loader_.table("model.embed_tokens.weight", c_.vocab_size, c_.hidden_size);
    for (int i = 0; i < c_.num_layers && !loader_.error(); ++i) w.layers.push_back(layer(i));
    w.final_norm = loader_.vector("model.norm.weight", c_.hidden_size);
    const Share share = share_of(c_.vocab_size, rank_, ranks_);
    w.head = loader_.pack(
        loader_.slice(c_.tied_embeddings ? "model.embed_tokens.weight" : "lm_head.weight",
                      c_.vocab_size, c_.hidden_size, share.begin, share.size(), 0, c_.hidden_size));
    return w;
  }

 private:
  LayerWeights layer(int index) {
    const std::string prefix = "model.layers." + std::to_string(index) + ".";
    LayerWeights w;
    const std::string self = prefix + "self_attn.";
    if (c_.attention == AttentionKind::kGrouped) {
      w.grouped = grouped(self);
    } else {
      w.latent = latent(self);
    }
    w.output = segmented(self + "o_proj.weight", c_.num_heads, c_.v_head_dim);
    w.attention_norm = loader_.vector(prefix + "input_layernorm.weight", c_.hidden_size);
    w.mlp_norm = loader_.vector(prefix + "post_attention_layernorm.weight", c_.hidden_size);
    const std::string mlp = prefix + "mlp.";
    if (!c_.has_experts(index)) {
      expert(mlp, c_.intermediate_size, w);
      return w;
    }
    w.router = loader_.pack(loader_.whole(mlp + "gate.weight", c_.num_experts, c_.hidden_size));
    if (c_.router == RouterKind::kSigmoidBias) {
      w.router_bias = loader_.vector(mlp + "gate.e_score_correction_bias", c_.num_experts);
    }
    expert(mlp + "shared_experts.", c_.shared_width(), w);
    for (int e = 0; e < c_.num_experts && !loader_.error(); ++e) {
      expert(mlp + "experts." + std::to_string(e) + ".", c_.moe_intermediate_size, w);
    }
    return w;
  }

  LatentWeights latent(const std::string& prefix) {
    LatentWeights w;
    std::vector<WeightPiece> latents;
    int q_input = c_.hidden_size;
    std::string q_name = prefix + "q_proj.weight";
    if (c_.q_lora_rank > 0) {
      latents.push_back(loader_.whole(prefix + "q_a_proj.weight", c_.q_lora_rank, c_.hidden_size));
      w.q_norm = loader_.vector(prefix + "q_a_layernorm.weight", c_.q_lora_rank);
      q_input = c_.q_lora_rank;
      q_name = prefix + "q_b_proj.weight";
    }
    latents.push_back(loader_.whole(prefix + "kv_a_proj_with_mqa.weight",
                                    c_.kv_lora_rank + c_.qk_rope_head_dim, c_.hidden_size));
    w.latents = loader_.pack(latents);
    w.kv_norm = loader_.vector(prefix + "kv_a_layernorm.weight", c_.kv_lora_rank);
    const Share heads = share_of(c_.num_heads, rank_, ranks_);
    const int qk = c_.qk_head_dim();
    w.q =
        loader_.pack(loader_.slice(q_name, std::int64_t{c_.num_heads} * qk, q_input,
                                   std::int64_t{heads.begin} * qk, heads.size() * qk, 0, q_input));
    // Per head the key rows (nope), then the value rows.
    const int rows = c_.qk_nope_head_dim + c_.v_head_dim;
    for (int h = heads.begin; h < heads.end; ++h) {
      const auto part = [&](int row, int n) {
        return loader_.slice(prefix + "kv_b_proj.weight", std::int64_t{c_.num_heads} * rows,
                             c_.kv_lora_rank, std::int64_t{h} * rows + row, n, 0, c_.kv_lora_rank);
      };
      WeightPiece key = part(0, c_.qk_nope_head_dim);
      std::swap(key.n, key.k);
      std::swap(key.n_stride, key.k_stride);
      w.key_up.push_back(loader_.pack(key));
      w.value_up.push_back(loader_.pack(part(c_.qk_nope_head_dim, c_.v_head_dim)));
    }
    return w;
  }

  GroupedWeights grouped(const std::string& prefix) {
    const int dim = c_.v_head_dim;
    const Share q_heads = share_of(c_.num_heads, rank_, ranks_);
    const Share kv_heads = kv_heads_of(c_.num_kv_heads, rank_, ranks_);
    std::vector<WeightPiece> pieces;
    std::vector<Loader::VectorPart> biases;
    const auto add = [&](const char* name, int heads, Share share) {
      pieces.push_back(loader_.slice(prefix + name + ".weight", std::int64_t{heads} * dim,
                                     c_.hidden_size, std::int64_t{share.begin} * dim,
                                     share.size() * dim, 0, c_.hidden_size));
      biases.push_back({prefix + name + ".bias", std::int64_t{heads} * dim, share.begin * dim,
                        share.size() * dim});
    };
    add("q_proj", c_.num_heads, q_heads);
    add("k_proj", c_.num_kv_heads, kv_heads);
    add("v_proj", c_.num_kv_heads, kv_heads);
    GroupedWeights w;
    w.qkv = loader_.pack(pieces);
    if (c_.qkv_bias) w.bias = loader_.vectors(biases);
    return w;
  }

  // An MLP's gate, up and down, appended to the layer's lists.
  void expert(const std::string& prefix, int width, LayerWeights& w) {
    constexpr int kHalf = kernels::kPanel / 2;
    const Share share = share_of(width, rank_, ranks_);
    std::vector<WeightPiece> pieces;
    for (int at = share.begin; at < share.end; at += kHalf) {
      const int n = std::min(kHalf, share.end - at);
      for (const char* half : {"gate_proj.weight", "up_proj.weight"}) {
        pieces.push_back(
            loader_.slice(prefix + half, width, c_.hidden_size, at, n, 0, c_.hidden_size));
        if (n < kHalf) pieces.push_back({.n = kHalf - n, .k = c_.hidden_size});
      }
    }
    w.gate_up.push_back(loader_.pack(pieces));
    w.down.push_back(segmented(prefix + "down_proj.weight", width, 1));
  }

  // This rank's segments of a row-parallel weight [hidden, units * unit]. Segment s of all holds
  // units s * units / kSegments and on, whatever the number of ranks, so the sums do not depend on
  // it.
  SegmentedMatrix segmented(const std::string& name, int units, int unit) {
    SegmentedMatrix w;
    w.count = kSegments / ranks_;
    const auto begin_of = [&](int segment) {
      return static_cast<int>(std::int64_t{units} * segment / kSegments) * unit;
    };
    const int first = begin_of(rank_ * w.count);
    for (int i = 0; i < w.count; ++i) {
      const int segment = rank_ * w.count + i;
      const int begin = begin_of(segment);
      w.offset[i] = begin - first;
      w.part[i] = loader_.pack(loader_.slice(name, c_.hidden_size, std::int64_t{units} * unit, 0,
                                             c_.hidden_size, begin, begin_of(segment + 1) - begin));
    }
    return w;
  }

  Loader& loader_;
  const ModelConfig& c_;
  int rank_;
  int ranks_;
};

}  // namespace

Result<ModelWeights> load_weights(const Checkpoint& checkpoint, const ModelConfig& config, int rank,
                                  int ranks, device::Backend& backend,
                                  const LoadProgress& progress) {
  Loader count(checkpoint, nullptr, 0, progress);
  Reader(count, config, rank, ranks).read();
  if (count.error()) return std::unexpected(*count.error());
  progress(0, count.bytes());
  Loader loader(checkpoint, &backend, count.bytes(), progress);
  ModelWeights weights = Reader(loader, config, rank, ranks).read();
  if (loader.error()) return std::unexpected(*loader.error());
  return weights;
}

}  // namespace dsm::model

#include "worker/model/adapter_weights.h"

#include <algorithm>
#include <new>
#include <string>

#include "kernels/cpu/pack.h"
#include "worker/model/weights.h"

namespace dsm::model {
namespace {

using kernels::DType;
using kernels::kSegments;
using kernels::PackedMatrix;
using kernels::WeightPiece;

constexpr std::size_t kAlignment = 64;

// Builds one rank's matrices.
class Cutter {
 public:
  Cutter(const AdapterFiles& files, bool segmented, AdapterWeights& into)
      : files_(files), config_(files.config()), segmented_(segmented), into_(into) {}

  // The outputs [begin, end) of a linear, as the next columns of a product.
  struct Part {
    std::string module;
    int begin = 0;
    int count = 0;
  };

  AdapterProduct product(const std::vector<Part>& parts) {
    std::vector<Column> columns;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      for (int row = 0; row < parts[i].count; ++row)
        columns.push_back({static_cast<int>(i), parts[i].begin + row});
    }
    return product(parts, columns);
  }

  // In panels of 32 columns of the one and the same 32 of the other, as GateUpParams wants them.
  AdapterProduct gate_up(const std::string& mlp, Share share) {
    constexpr int kHalf = kernels::kPanel / 2;
    std::vector<Column> columns;
    for (int at = share.begin; at < share.end; at += kHalf) {
      for (const int part : {0, 1}) {
        for (int i = at; i < at + kHalf; ++i) {
          columns.push_back(i < share.end ? Column{part, i} : Column{});
        }
      }
    }
    return product({{.module = mlp + "gate_proj"}, {.module = mlp + "up_proj"}}, columns);
  }

  // As Reader::segmented in weights.cc.
  AdapterSegments segments(const std::string& module, int units, int unit, RankCut cut) {
    const AdapterPair* pair = files_.find(module);
    AdapterSegments made;
    if (pair == nullptr) return made;
    made.a.count = made.b.count = segmented_ ? kSegments / cut.ranks : 1;
    const auto begin_of = [&](int segment) {
      return static_cast<int>(std::int64_t{units} * segment / (cut.ranks * made.a.count)) * unit;
    };
    const int outputs = static_cast<int>(pair->b.shape[0]);
    const PackedMatrix b = pack_dense(scaled(pair->b), outputs, config_.rank);
    const int first = cut.rank * made.a.count;
    for (int i = 0; i < made.a.count; ++i) {
      const int begin = begin_of(first + i);
      made.a.offset[i] = begin - begin_of(first);
      made.a.part[i] = pack({piece_of(pair->a, begin, begin_of(first + i + 1) - begin)});
      made.b.offset[i] = i * config_.rank;
      made.b.part[i] = b;
    }
    return made;
  }

 private:
  // A column of a product: an output of one of its linears, or none.
  struct Column {
    int part = -1;
    int row = 0;
  };

  AdapterProduct product(const std::vector<Part>& parts, const std::vector<Column>& columns) {
    const auto rank = static_cast<std::size_t>(config_.rank);
    std::vector<WeightPiece> a;
    struct Block {
      std::size_t first;          // its place among the low ranks
      std::vector<float> values;  // [outputs, rank]; empty: the linear has no adapter
    };
    std::vector<Block> blocks;
    for (const Part& part : parts) {
      const AdapterPair* pair = files_.find(part.module);
      blocks.push_back({a.size() * rank, pair == nullptr ? std::vector<float>() : scaled(pair->b)});
      if (pair != nullptr) a.push_back(piece_of(pair->a, 0, static_cast<int>(pair->a.shape[1])));
    }
    if (a.empty()) return {};
    const std::size_t low = a.size() * rank;
    std::vector<float> b(columns.size() * low);
    for (std::size_t i = 0; i < columns.size(); ++i) {
      if (columns[i].part < 0) continue;
      const Block& block = blocks[static_cast<std::size_t>(columns[i].part)];
      if (block.values.empty()) continue;
      const auto row = static_cast<std::size_t>(columns[i].row) * rank;
      std::copy_n(block.values.data() + row, rank, b.data() + i * low + block.first);
    }
    return {.a = pack(a),
            .b = pack_dense(b, static_cast<int>(columns.size()), static_cast<int>(low))};
  }

  // Inputs [begin, begin + k) of all of a tensor's rows.
  static WeightPiece piece_of(const TensorView& view, int begin, int k) {
    return {.data = view.bytes.data(),
            .dtype = view.dtype,
            .n_stride = view.shape[1],
            .k_stride = 1,
            .n = static_cast<int>(view.shape[0]),
            .k = k,
            .origin = begin};
  }

  std::vector<float> scaled(const TensorView& view) const {
    std::vector<float> values(static_cast<std::size_t>(view.shape[0] * view.shape[1]));
    kernels::to_float(view.bytes.data(), view.dtype, static_cast<std::int64_t>(values.size()),
                      values.data());
    const auto scale = static_cast<float>(config_.scale);
    for (float& value : values) value *= scale;
    return values;
  }

  PackedMatrix pack(const std::vector<WeightPiece>& pieces) {
    const PackedMatrix shape = kernels::packed_matrix(pieces, nullptr);
    const std::size_t size =
        std::max<std::size_t>(1, kernels::packed_bytes(shape.dtype, shape.n, shape.k));
    into_.storage.emplace_back(
        static_cast<std::byte*>(::operator new[](size, std::align_val_t(kAlignment))));
    into_.bytes += size;
    return kernels::pack(pieces, into_.storage.back().get());
  }

  PackedMatrix pack_dense(const std::vector<float>& values, int n, int k) {
    return pack({{.data = reinterpret_cast<const std::byte*>(values.data()),
                  .dtype = DType::kF32,
                  .n_stride = k,
                  .k_stride = 1,
                  .n = n,
                  .k = k}});
  }

  const AdapterFiles& files_;
  const AdapterConfig& config_;
  const bool segmented_;
  AdapterWeights& into_;
};

AdapterLayer cut_layer(Cutter& cut, const ModelConfig& c, int layer, const AdapterCut& ranks) {
  const std::string prefix = "model.layers." + std::to_string(layer) + ".";
  const std::string self = prefix + "self_attn.";
  const auto [rank, size] = ranks.rank;
  const Share heads = share_of(c.num_heads, ranks.attention.rank, ranks.attention.ranks);
  AdapterLayer made;
  if (c.attention == AttentionKind::kGrouped) {
    const int dim = c.v_head_dim;
    const Share kv = kv_heads_of(c.num_kv_heads, rank, size);
    made.qkv = cut.product({{self + "q_proj", heads.begin * dim, heads.size() * dim},
                            {self + "k_proj", kv.begin * dim, kv.size() * dim},
                            {self + "v_proj", kv.begin * dim, kv.size() * dim}});
  } else {
    made.latents =
        cut.product({{self + "q_a_proj", 0, c.q_lora_rank},
                     {self + "kv_a_proj_with_mqa", 0, c.kv_lora_rank + c.qk_rope_head_dim}});
    const int qk = c.qk_head_dim();
    made.q = cut.product({{self + (c.q_lora_rank > 0 ? "q_b_proj" : "q_proj"), heads.begin * qk,
                           heads.size() * qk}});
  }
  made.output = cut.segments(self + "o_proj", c.num_heads, c.v_head_dim, ranks.attention);
  const bool experts = c.has_experts(layer);
  const std::string mlp = prefix + (experts ? "mlp.shared_experts." : "mlp.");
  const int width = experts ? c.shared_width() : c.intermediate_size;
  made.gate_up = cut.gate_up(mlp, share_of(width, rank, size));
  made.down = cut.segments(mlp + "down_proj", width, 1, ranks.rank);
  return made;
}

}  // namespace

void AdapterWeights::Free::operator()(std::byte* memory) const {
  ::operator delete[](memory, std::align_val_t(kAlignment));
}

AdapterWeights cut_adapter(const AdapterFiles& files, const ModelConfig& model,
                           const AdapterCut& cut) {
  AdapterWeights weights;
  Cutter cutter(files, cut.segmented, weights);
  for (int i = 0; i < model.num_layers; ++i) {
    weights.layers.push_back(cut_layer(cutter, model, i, cut));
  }
  return weights;
}

}  // namespace dsm::model

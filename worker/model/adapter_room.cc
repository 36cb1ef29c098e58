#include "worker/model/adapter_room.h"

#include "kernels/cpu/pack.h"
#include "worker/model/weights.h"

namespace dsm::model {
namespace {

// As cut_adapter() cuts them.
class Counter {
 public:
  Counter(const ModelConfig& model, const AdapterCut& cut, int low_rank)
      : c_(model), cut_(cut), rank_(low_rank) {}

  std::size_t all() {
    for (int layer = 0; layer < c_.num_layers; ++layer) add_layer(layer);
    return bytes_;
  }

 private:
  void add_layer(int layer) {
    const int heads = share_of(c_.num_heads, cut_.attention.rank, cut_.attention.ranks).size();
    if (c_.attention == AttentionKind::kGrouped) {
      const int kv = kv_heads_of(c_.num_kv_heads, cut_.rank.rank, cut_.rank.ranks).size();
      product(3, c_.hidden_size, (heads + 2 * kv) * c_.v_head_dim);
    } else {
      product(c_.q_lora_rank > 0 ? 2 : 1, c_.hidden_size,
              c_.q_lora_rank + c_.kv_lora_rank + c_.qk_rope_head_dim);
      product(1, c_.q_lora_rank > 0 ? c_.q_lora_rank : c_.hidden_size, heads * c_.qk_head_dim());
    }
    segments(c_.num_heads, c_.v_head_dim, cut_.attention);
    const int width = c_.has_experts(layer) ? c_.shared_width() : c_.intermediate_size;
    constexpr int kHalf = kernels::kPanel / 2;
    const int mine = share_of(width, cut_.rank.rank, cut_.rank.ranks).size();
    product(2, c_.hidden_size, (mine + kHalf - 1) / kHalf * kernels::kPanel);
    segments(width, 1, cut_.rank);
  }

  // Of `linears` that are computed as one.
  void product(int linears, int inputs, int outputs) {
    matrix(linears * rank_, inputs);
    matrix(outputs, linears * rank_);
  }
  void segments(int units, int unit, RankCut cut) {
    const int count = cut_.segmented ? kernels::kSegments / cut.ranks : 1;
    const auto begin_of = [&](int segment) {
      return static_cast<int>(std::int64_t{units} * segment / (cut.ranks * count)) * unit;
    };
    for (int i = cut.rank * count; i < (cut.rank + 1) * count; ++i) {
      matrix(rank_, begin_of(i + 1) - begin_of(i));
    }
    matrix(c_.hidden_size, rank_);
  }
  void matrix(int n, int k) {
    bytes_ += adapter_aligned(kernels::packed_bytes(kernels::DType::kF32, n, k));
  }

  const ModelConfig& c_;
  const AdapterCut& cut_;
  int rank_;
  std::size_t bytes_ = 0;
};

}  // namespace

std::size_t most_adapter_bytes(const ModelConfig& model, const AdapterCut& cut, int low_rank) {
  return Counter(model, cut, low_rank).all();
}

}  // namespace dsm::model

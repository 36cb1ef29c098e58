#include "sizing/weights.h"

#include <algorithm>

namespace dsm::sizing {
namespace {

// Of the packed weights: kernels/params.h.
constexpr std::int64_t kPanel = 64;
constexpr std::int64_t kScaleBlock = 128;
constexpr std::int64_t kSegments = 8;

constexpr std::int64_t blocks(std::int64_t extent, std::int64_t block) {
  return (extent + block - 1) / block;
}
constexpr std::int64_t round_up(std::int64_t value, std::int64_t unit) {
  return blocks(value, unit) * unit;
}

class Counter {
 public:
  Counter(const Shape& shape, const WeightCut& cut, Device device)
      : s_(shape), cut_(cut), segments_(device == Device::kCpu) {}

  std::int64_t all() const {
    std::int64_t sum = table() + plain(s_.vocab / cut_.tensor, s_.hidden) + vector(s_.hidden);
    for (std::int64_t i = 0; i < s_.layers; ++i) sum += layer(i);
    if (cut_.drafts && s_.mtp_layers > 0) {
      sum += 3 * vector(s_.hidden) + plain(s_.hidden, 2 * s_.hidden) + layer(s_.layers);
    }
    return sum;
  }

 private:
  // FP16 is computed with as FP32.
  bool bf16() const { return s_.stored == Stored::kBf16; }

  std::int64_t table() const { return s_.vocab * s_.hidden * (bf16() ? 2 : 4); }
  static std::int64_t vector(std::int64_t size) { return size * 4; }

  // A matrix of n outputs and k inputs that is never quantised ...
  std::int64_t plain(std::int64_t n, std::int64_t k) const {
    return round_up(n, kPanel) * (bf16() ? round_up(k, 2) * 2 : k * 4);
  }
  // ... and one that is where the checkpoint is.
  std::int64_t matrix(std::int64_t n, std::int64_t k) const {
    if (!s_.fp8) return plain(n, k);
    if (k == 0) return 0;
    // A scale for each output and block; the first block may be cut short.
    return round_up(n, kPanel) * (k + blocks(kScaleBlock - 1 + k, kScaleBlock) * 4);
  }

  // ... and one that is rounded to integers where that is asked for.
  std::int64_t projection(std::int64_t n, std::int64_t k) const {
    if (cut_.weight_bits == 0 || k == 0) return matrix(n, k);
    // The first word and the first block may be cut short.
    const std::int64_t inputs = 32 / cut_.weight_bits;  // of a word
    const std::int64_t words = blocks(inputs - 1 + k, inputs);
    return round_up(n, kPanel) * (words + blocks(kScaleBlock - 1 + k, kScaleBlock)) * 4;
  }

  // This rank's part of hidden x (units * unit), whose inputs are cut: each segment is packed
  // alone.
  std::int64_t segmented(std::int64_t units, std::int64_t unit, std::int64_t ranks) const {
    const std::int64_t count = segments_ && cut_.deterministic ? kSegments / ranks : 1;
    const std::int64_t local = units / ranks;
    std::int64_t sum = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      sum += projection(s_.hidden, (local * (i + 1) / count - local * i / count) * unit);
    }
    return sum;
  }

  // Of this rank's `local` hidden values.
  std::int64_t gate_up(std::int64_t local) const {
    // Half a panel of the gate's outputs and half of up's stand side by side.
    return projection(blocks(local, kPanel / 2) * kPanel, s_.hidden);
  }
  std::int64_t expert(std::int64_t width) const {
    return gate_up(width / cut_.tensor) + segmented(width, 1, cut_.tensor);
  }
  // Those that the router chooses from.
  std::int64_t experts() const {
    if (!cut_.expert_parallel) return s_.experts * expert(s_.expert);
    return s_.experts / cut_.tensor * (gate_up(s_.expert) + projection(s_.hidden, s_.expert));
  }

  std::int64_t latent() const {
    const std::int64_t heads = s_.heads / attention_ranks(cut_);
    const std::int64_t key_up = matrix(s_.kv_lora, s_.nope);
    std::int64_t sum =
        projection(s_.q_lora + s_.kv_lora + s_.rope, s_.hidden) + vector(s_.q_lora) +
        vector(s_.kv_lora) +
        projection(heads * (s_.nope + s_.rope), s_.q_lora > 0 ? s_.q_lora : s_.hidden) +
        heads * (key_up + matrix(s_.value, s_.kv_lora));
    if (!cut_.deterministic) sum += heads * matrix(s_.nope, s_.kv_lora);
    if (s_.index_heads > 0) {
      sum += matrix(s_.index_heads * s_.index_head, s_.q_lora) + matrix(s_.index_head, s_.hidden) +
             plain(s_.index_heads, s_.hidden) + 2 * vector(s_.index_head);
    }
    return sum;
  }

  std::int64_t grouped() const {
    const std::int64_t kv_heads = std::max<std::int64_t>(1, s_.kv_heads / cut_.tensor);
    const std::int64_t outputs = (s_.heads / cut_.tensor + 2 * kv_heads) * s_.head;
    return projection(outputs, s_.hidden) + (s_.qkv_bias ? vector(outputs) : 0);
  }

  std::int64_t layer(std::int64_t index) const {
    std::int64_t sum = (s_.latent ? latent() : grouped()) +
                       segmented(s_.heads, s_.value, attention_ranks(cut_)) + 2 * vector(s_.hidden);
    if (!s_.has_experts(index)) return sum + expert(s_.mlp);
    sum += plain(s_.experts, s_.hidden) + (s_.router_bias ? vector(s_.experts) : 0);
    return sum + expert(s_.shared_experts * s_.expert) + experts();
  }

  const Shape& s_;
  const WeightCut& cut_;
  bool segments_;
};

}  // namespace

std::int64_t weight_bytes(const Shape& shape, const WeightCut& cut, Device device) {
  return Counter(shape, cut, device).all();
}

}  // namespace dsm::sizing

#include "sizing/weights.h"

#include <algorithm>
#include <initializer_list>

namespace dsm::sizing {
namespace {

// Of the packed weights: kernels/params.h.
constexpr std::int64_t kPanel = 64;
constexpr std::int64_t kScaleBlock = 128;
constexpr std::int64_t kSegments = 8;
// Of embedding and head, where weights are rounded (worker/model/weights.h).
constexpr int kRoundedHeadBits = 8;

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

  std::int64_t all() const;

 private:
  class Layer;

  // FP16 is computed with as FP32.
  bool bf16() const { return s_.stored == Stored::kBf16; }

  // The embedding. Rounded it is a matrix.
  std::int64_t table() const {
    if (cut_.weight_bits != 0) return in_integers(s_.vocab, s_.hidden, kRoundedHeadBits);
    return s_.vocab * s_.hidden * (bf16() ? 2 : 4);
  }
  // This rank's part of it. Tied to a rounded embedding it is a part of its memory, if panels hold
  // parts of one rank alone.
  std::int64_t head() const {
    const std::int64_t local = s_.vocab / cut_.tensor;
    if (s_.integers.head) return in_integers(local, s_.hidden, s_.integers.bits);
    if (cut_.weight_bits == 0) return plain(local, s_.hidden, false);
    if (s_.tied && (cut_.tensor == 1 || local % kPanel == 0)) return 0;
    return in_integers(local, s_.hidden, kRoundedHeadBits);
  }
  static std::int64_t vector(std::int64_t size) { return size * 4; }

  // A matrix of n outputs and k inputs that is kept in BF16 or FP32. What is stored in integers
  // becomes FP32.
  std::int64_t plain(std::int64_t n, std::int64_t k, bool integers) const {
    return round_up(n, kPanel) * (bf16() && !integers ? round_up(k, 2) * 2 : k * 4);
  }
  // The same of one that is in FP8 where the checkpoint is.
  std::int64_t matrix(std::int64_t n, std::int64_t k, bool integers) const {
    if (!s_.fp8) return plain(n, k, integers);
    if (k == 0) return 0;
    // A scale for each output and block; the first block may be cut short.
    return round_up(n, kPanel) * (k + blocks(kScaleBlock - 1 + k, kScaleBlock) * 4);
  }
  static std::int64_t in_integers(std::int64_t n, std::int64_t k, int bits) {
    if (k == 0) return 0;
    // The first word and the first block may be cut short.
    const std::int64_t inputs = 32 / bits;  // of a word
    const std::int64_t words = blocks(inputs - 1 + k, inputs);
    return round_up(n, kPanel) * (words + blocks(kScaleBlock - 1 + k, kScaleBlock)) * 4;
  }

  const Shape& s_;
  const WeightCut& cut_;
  bool segments_;
};

class Counter::Layer {
 public:
  Layer(const Counter& counter, std::int64_t index)
      : c_(counter), s_(counter.s_), cut_(counter.cut_), index_(index) {}

  std::int64_t all() const {
    std::int64_t sum = (s_.latent ? latent() : grouped()) +
                       segmented(s_.heads, s_.value, attention_ranks(cut_), Matrix::kOutput) +
                       2 * vector(s_.hidden);
    if (!s_.has_experts(index_)) return sum + expert(s_.mlp, kDense);
    sum += c_.plain(s_.experts, s_.hidden, stored(Matrix::kRouter)) +
           (s_.router_bias ? vector(s_.experts) : 0);
    return sum + expert(s_.shared_experts * s_.expert, kShared) + experts();
  }

 private:
  // The matrices of an MLP.
  struct Mlp {
    Matrix gate;
    Matrix up;
    Matrix down;
  };
  static constexpr Mlp kDense{Matrix::kGate, Matrix::kUp, Matrix::kDown};
  static constexpr Mlp kShared{Matrix::kSharedGate, Matrix::kSharedUp, Matrix::kSharedDown};
  static constexpr Mlp kExpert{Matrix::kExpertGate, Matrix::kExpertUp, Matrix::kExpertDown};

  bool stored(Matrix matrix) const { return s_.integers.has(index_, matrix); }

  // One matrix, or several side by side, that is kept in integers where it is stored so or that is
  // asked for. Of several all must be.
  std::int64_t projection(std::int64_t n, std::int64_t k,
                          std::initializer_list<Matrix> matrices) const {
    const auto have = std::ranges::count_if(matrices, [&](Matrix m) { return stored(m); });
    if (have == static_cast<std::ptrdiff_t>(matrices.size())) {
      return in_integers(n, k, s_.integers.bits);
    }
    if (cut_.weight_bits != 0) return in_integers(n, k, cut_.weight_bits);
    return c_.matrix(n, k, have > 0);
  }

  // This rank's part of hidden x (units * unit), whose inputs are cut: each segment is packed
  // alone.
  std::int64_t segmented(std::int64_t units, std::int64_t unit, std::int64_t ranks,
                         Matrix matrix) const {
    const std::int64_t count = c_.segments_ && cut_.deterministic ? kSegments / ranks : 1;
    const std::int64_t local = units / ranks;
    std::int64_t sum = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      sum += projection(s_.hidden, (local * (i + 1) / count - local * i / count) * unit, {matrix});
    }
    return sum;
  }

  // Of this rank's `local` hidden values.
  std::int64_t gate_up(std::int64_t local, const Mlp& mlp) const {
    // Half a panel of the gate's outputs and half of up's stand side by side.
    return projection(blocks(local, kPanel / 2) * kPanel, s_.hidden, {mlp.gate, mlp.up});
  }
  std::int64_t expert(std::int64_t width, const Mlp& mlp) const {
    return gate_up(width / cut_.tensor, mlp) + segmented(width, 1, cut_.tensor, mlp.down);
  }
  // Those that the router chooses from.
  std::int64_t experts() const {
    if (!cut_.expert_parallel) return s_.experts * expert(s_.expert, kExpert);
    return s_.experts / cut_.tensor *
           (gate_up(s_.expert, kExpert) + projection(s_.hidden, s_.expert, {kExpert.down}));
  }

  std::int64_t latent() const {
    const std::int64_t heads = s_.heads / attention_ranks(cut_);
    const bool up = stored(Matrix::kLatentUp);
    // What expands the keys of long prompts has the values' columns, too; apart from them where a
    // panel would hold parts of both.
    const bool shares = !cut_.deterministic && s_.nope % kPanel == 0 && s_.value % kPanel == 0;
    std::int64_t sum = latents() + vector(s_.q_lora) + vector(s_.kv_lora) +
                       projection(heads * (s_.nope + s_.rope),
                                  s_.q_lora > 0 ? s_.q_lora : s_.hidden, {Matrix::kQuery}) +
                       heads * c_.matrix(s_.kv_lora, s_.nope, up);
    if (!shares) sum += heads * c_.matrix(s_.value, s_.kv_lora, up);
    if (!cut_.deterministic) sum += c_.matrix(heads * (s_.nope + s_.value), s_.kv_lora, up);
    if (s_.index_heads > 0) {
      sum += c_.matrix(s_.index_heads * s_.index_head, s_.q_lora, stored(Matrix::kIndexQuery)) +
             c_.matrix(s_.index_head, s_.hidden, stored(Matrix::kIndexKey)) +
             c_.plain(s_.index_heads, s_.hidden, stored(Matrix::kIndexWeights)) +
             2 * vector(s_.index_head);
    }
    return sum;
  }
  std::int64_t latents() const {
    const std::int64_t outputs = s_.q_lora + s_.kv_lora + s_.rope;
    if (s_.q_lora == 0) return projection(outputs, s_.hidden, {Matrix::kLatent});
    return projection(outputs, s_.hidden, {Matrix::kQueryLatent, Matrix::kLatent});
  }

  std::int64_t grouped() const {
    const std::int64_t kv_heads = std::max<std::int64_t>(1, s_.kv_heads / cut_.tensor);
    const std::int64_t outputs = (s_.heads / cut_.tensor + 2 * kv_heads) * s_.head;
    return projection(outputs, s_.hidden, {Matrix::kQuery, Matrix::kKey, Matrix::kValue}) +
           (s_.qkv_bias ? vector(outputs) : 0) + (s_.head_norms ? 2 * vector(s_.head) : 0);
  }

  const Counter& c_;
  const Shape& s_;
  const WeightCut& cut_;
  std::int64_t index_;
};

std::int64_t Counter::all() const {
  std::int64_t sum = table() + head() + vector(s_.hidden);
  for (std::int64_t i = 0; i < s_.layers; ++i) sum += Layer(*this, i).all();
  if (cut_.drafts && s_.mtp_layers > 0) {
    sum += 3 * vector(s_.hidden) + plain(s_.hidden, 2 * s_.hidden, false) +
           Layer(*this, s_.layers).all();
  }
  return sum;
}

}  // namespace

std::int64_t weight_bytes(const Shape& shape, const WeightCut& cut, Device device) {
  return Counter(shape, cut, device).all();
}

}  // namespace dsm::sizing

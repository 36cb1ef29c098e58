// A step of decoding of DeepSeek's models as one kernel (kernels/cuda/megakernel.h): latent
// attention and routed experts, with the bits of a step whose operators are kernels of their own.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "worker/device/backend_fixture.h"
#include "worker/device/megakernel_fixture.h"
#include "worker/device/weights_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

// Products of the hidden state have two spans of inputs.
constexpr int kHidden = 1040;
constexpr int kHeads = 3;
constexpr int kNope = 32;
constexpr int kRope = 16;
constexpr int kLatent = 144;
constexpr int kKey = kLatent + kRope;
constexpr int kValue = 48;
constexpr int kQ = kNope + kRope;
constexpr int kExperts = 6;
constexpr int kTopK = 2;
constexpr int kWidth = 40;  // of an expert; the shared one has two
constexpr int kStride = 96;
constexpr int kPast = 70;
constexpr int kBlocksEach = 2;

struct Shape {
  int tokens = 1;
  bool exact = false;
  DType kv_type = DType::kF32;
  int q_latent = 0;  // 0: queries are made of the hidden state
  bool biased = false;
};

std::string text_of(const Shape& shape) {
  return std::to_string(shape.tokens) + " tokens, cache " +
         std::to_string(static_cast<int>(shape.kv_type)) + (shape.exact ? ", exact" : "") +
         (shape.q_latent > 0 ? ", latent queries" : "");
}

// Two layers, the second of which reads what the first has left.
class Decoder {
 public:
  Decoder(Side side, const Shape& shape) : side_(std::move(side)), s_(shape) {
    for (unsigned i = 0; i < 2; ++i) layers_.push_back(layer(100 * (i + 1)));
    const std::size_t t = size(s_.tokens);
    const std::size_t slots = t * (1 + kTopK);
    x_ = floats(t * kHidden);
    normed_ = floats(t * kHidden);
    latents_ = floats(t * size(lda()));
    q_latent_ = floats(t * size(std::max(s_.q_latent, 16)));
    q_ = floats(t * kHeads * kQ);
    query_ = floats(t * kHeads * kKey);
    mixed_ = floats(t * kHeads * kLatent);
    values_ = floats(t * kHeads * kValue);
    logits_ = floats(t * 16);
    hidden_ = floats(slots * kStride);
    routing_ = {.chosen = ints(t * kTopK),
                .weights = floats(t * kTopK),
                .tokens = s_.tokens,
                .experts = kExperts,
                .top_k = kTopK,
                .token = ints(slots),
                .weight = floats(slots),
                .groups = allocate<Group>(*side_.backend, 1 + kExperts),
                .slot = ints(slots)};
    bias_ = side_.put(random_floats(kExperts, 12, 0.1F));
    table_ = side_.put(random_floats(size(kVocab) * kHidden, 13));
    const std::size_t angles = size(kBlocksEach) * kKvBlock * (kRope / 2);
    rope_ = {side_.put(random_floats(angles, 14)), side_.put(random_floats(angles, 15)), kRope / 2,
             false};
    for (int i = 0; i < s_.tokens; ++i) tokens_.push_back(i);
    ones_.assign(t, 1.0F);
    ids_.resize(t);
    places_.resize(t);
    for (int b = 0; b < s_.tokens * kBlocksEach; ++b) {
      tables_.push_back(s_.tokens * kBlocksEach - 1 - b);
    }
    for (int i = 0; i < s_.tokens; ++i) {
      items_.push_back({i * kHeads, (i + 1) * kHeads, tables_.data() + i * kBlocksEach, 0});
    }
    write_past();
  }

  // What the layers give for all tokens of step number `number`.
  std::vector<float> step(int number) {
    for (int t = 0; t < s_.tokens; ++t) {
      ids_[size(t)] = (7 * t + 31 * number) % kVocab;
      places_[size(t)] = place(t, past_of(t) + number);
    }
    const List lists[] = {list(ids_), list(places_), list(tokens_), list(ones_), list(tables_)};
    side_.backend->stage(lists, items_);
    side_.backend->repeat({.tokens = s_.tokens, .positions = kBlocksEach * kKvBlock},
                          [this] { operators(); });
    return side_.get(x_, size(s_.tokens) * kHidden);
  }

 private:
  static constexpr int kVocab = 40;

  struct Layer {
    const float* attention_norm;
    PackedMatrix latents;
    const float* q_norm;
    const float* kv_norm;
    PackedMatrix q;
    std::vector<PackedMatrix> key_up;
    std::vector<PackedMatrix> value_up;
    SegmentedMatrix output;
    const float* mlp_norm;
    PackedMatrix router;
    std::vector<PackedMatrix> gate_up;
    std::vector<SegmentedMatrix> down;
    KvLayer kv;
  };

  template <class T>
  static List list(const std::vector<T>& values) {
    return {values.data(), values.size() * sizeof(T)};
  }
  float* floats(std::size_t count) { return allocate<float>(*side_.backend, count); }
  std::int32_t* ints(std::size_t count) { return allocate<std::int32_t>(*side_.backend, count); }
  std::int64_t lda() const { return s_.q_latent + kKey; }
  static int past_of(int sequence) { return std::max(kPast - 17 * sequence, 1); }
  TokenPlace place(int sequence, int position) const {
    return {position, tables_[size(sequence * kBlocksEach + position / kKvBlock)]};
  }

  Layer layer(unsigned seed) {
    const auto matrix = [&](int n, int k) {
      return load(side_, weight(n, k, DType::kBF16, ++seed));
    };
    const auto vector = [&](int count) { return side_.put(random_floats(size(count), ++seed)); };
    Layer l{.attention_norm = vector(kHidden),
            .latents = matrix(s_.q_latent + kKey, kHidden),
            .q_norm = vector(std::max(s_.q_latent, 16)),
            .kv_norm = vector(kLatent),
            .q = matrix(kHeads * kQ, s_.q_latent > 0 ? s_.q_latent : kHidden),
            .key_up = {},
            .value_up = {},
            .output = load_whole(side_, weight(kHidden, kHeads * kValue, DType::kBF16, ++seed)),
            .mlp_norm = vector(kHidden),
            .router = matrix(kExperts, kHidden),
            .gate_up = {},
            .down = {},
            .kv = {.key_dim = kKey,
                   .value_dim = kLatent,
                   .dtype = s_.kv_type,
                   .plain_dim = s_.kv_type == DType::kF8E4M3 ? kRope : 0}};
    for (int h = 0; h < kHeads; ++h) {
      l.key_up.push_back(matrix(kLatent, kNope));
      l.value_up.push_back(matrix(kValue, kLatent));
    }
    for (int e = 0; e <= kExperts; ++e) {
      const int width = e == 0 ? 2 * kWidth : kWidth;
      l.gate_up.push_back(matrix(2 * static_cast<int>(round_up(width, 32)), kHidden));
      l.down.push_back(load_whole(side_, weight(kHidden, width, DType::kBF16, ++seed)));
    }
    const std::size_t blocks = size(s_.tokens) * kBlocksEach;
    Backend& backend = *side_.backend;
    l.kv.keys = backend.allocate(blocks * size(key_block_bytes(l.kv)));
    l.kv.values = backend.allocate(blocks * size(value_block_bytes(l.kv)));
    l.kv.key_scales = floats(blocks * size(key_scales_of(l.kv)) * kKvBlock);
    l.kv.value_scales = floats(blocks * size(value_scales_of(l.kv)) * kKvBlock);
    return l;
  }

  void write_past() {
    std::vector<TokenPlace> places;
    for (int s = 0; s < s_.tokens; ++s) {
      for (int i = 0; i < past_of(s); ++i) places.push_back(place(s, i));
    }
    const float* from = side_.put(random_floats(places.size() * kKey, 16));
    for (const Layer& l : layers_) {
      side_.backend->kv_write({from, kKey, l.kv_norm, places.data(), l.kv, rope_,
                               static_cast<int>(places.size()), 1e-6F});
    }
  }

  void norm(const float* weight, int products) {
    side_.backend->rms_norm({.x = x_,
                             .ldx = kHidden,
                             .weight = weight,
                             .y = normed_,
                             .ldy = kHidden,
                             .rows = s_.tokens,
                             .width = kHidden,
                             .eps = 1e-6F,
                             .for_products = products});
  }

  void attend(const Layer& l) {
    Backend& backend = *side_.backend;
    const bool of_latents = s_.q_latent > 0;
    norm(l.attention_norm, of_latents ? 1 : 2);
    backend.linear({.x = normed_,
                    .ldx = kHidden,
                    .w = &l.latents,
                    .y = latents_,
                    .ldy = lda(),
                    .rows = s_.tokens});
    if (of_latents) {
      backend.rms_norm({latents_, lda(), nullptr, l.q_norm, q_latent_, s_.q_latent, s_.tokens,
                        s_.q_latent, 1e-6F});
    }
    backend.kv_write(
        {latents_ + s_.q_latent, lda(), l.kv_norm, places_.data(), l.kv, rope_, s_.tokens, 1e-6F});
    backend.linear({.x = of_latents ? q_latent_ : normed_,
                    .ldx = of_latents ? s_.q_latent : kHidden,
                    .w = &l.q,
                    .y = q_,
                    .ldy = std::int64_t{kHeads} * kQ,
                    .rows = s_.tokens});
    heads(q_, kQ, l.key_up, query_, kKey);
    backend.rope_query({q_, std::int64_t{kHeads} * kQ, kQ, kNope, query_, kKey, kLatent,
                        places_.data(), rope_, s_.tokens, kHeads});
    backend.attention({.query = query_,
                       .out = mixed_,
                       .places = places_.data(),
                       .items = items_.data(),
                       .item_count = static_cast<int>(items_.size()),
                       .heads = kHeads,
                       .kv = l.kv,
                       .scale = 0.05F});
    heads(mixed_, kLatent, l.value_up, values_, kValue);
    const Group all = {0, s_.tokens};
    row_parallel({.h = values_,
                  .ldh = std::int64_t{kHeads} * kValue,
                  .token = tokens_.data(),
                  .groups = &all,
                  .w = &l.output,
                  .group_count = 1});
  }

  // A product for each head.
  void heads(const float* x, int x_step, const std::vector<PackedMatrix>& w, float* y, int y_step) {
    side_.backend->linear({.x = x,
                           .ldx = std::int64_t{kHeads} * x_step,
                           .x_step = x_step,
                           .w = w.data(),
                           .y = y,
                           .ldy = std::int64_t{kHeads} * y_step,
                           .y_step = y_step,
                           .rows = s_.tokens,
                           .batch = kHeads});
  }

  void row_parallel(RowParallelParams p) {
    p.tokens = s_.tokens;
    p.residual = x_;
    p.y = x_;
    p.ldy = kHidden;
    side_.backend->row_parallel(p);
  }

  void experts(const Layer& l) {
    Backend& backend = *side_.backend;
    norm(l.mlp_norm, 0);
    backend.linear(
        {.x = normed_, .ldx = kHidden, .w = &l.router, .y = logits_, .ldy = 16, .rows = s_.tokens});
    backend.router({.logits = logits_,
                    .ld = 16,
                    .rule = s_.biased ? RouterRule::kSigmoidBias : RouterRule::kSoftmax,
                    .bias = bias_,
                    .tokens = s_.tokens,
                    .experts = kExperts,
                    .groups = s_.biased ? 3 : 1,
                    .topk_groups = s_.biased ? 2 : 1,
                    .top_k = kTopK,
                    .normalise = s_.biased,
                    .scale = 1.5F,
                    .chosen = const_cast<std::int32_t*>(routing_.chosen),
                    .weights = const_cast<float*>(routing_.weights)});
    backend.group_experts(routing_);
    backend.gate_up({.x = normed_,
                     .ldx = kHidden,
                     .token = routing_.token,
                     .weight = routing_.weight,
                     .groups = routing_.groups,
                     .w = l.gate_up.data(),
                     .group_count = 1 + kExperts,
                     .h = hidden_,
                     .ldh = kStride,
                     .routing = &routing_});
    row_parallel({.h = hidden_,
                  .ldh = kStride,
                  .token = routing_.token,
                  .groups = routing_.groups,
                  .w = l.down.data(),
                  .group_count = 1 + kExperts,
                  .routing = &routing_});
  }

  void operators() {
    side_.backend->embedding({ids_.data(), table_, DType::kF32, x_, s_.tokens, kHidden});
    for (const Layer& l : layers_) {
      attend(l);
      experts(l);
    }
  }

  Side side_;
  const Shape s_;
  std::vector<Layer> layers_;
  const float* bias_;
  const float* table_;
  RopeTable rope_;
  GroupExpertsParams routing_;
  float* x_;
  float* normed_;
  float* latents_;
  float* q_latent_;
  float* q_;
  float* query_;
  float* mixed_;
  float* values_;
  float* logits_;
  float* hidden_;
  std::vector<std::int32_t> ids_;
  std::vector<TokenPlace> places_;
  std::vector<std::int32_t> tokens_;
  std::vector<float> ones_;
  std::vector<std::int32_t> tables_;
  std::vector<AttentionItem> items_;
};

void expect_same_steps(const Shape& shape) {
  SCOPED_TRACE(text_of(shape));
  Decoder one(side_with(true, shape.exact), shape);
  Decoder many(side_with(false, shape.exact), shape);
  for (int number = 0; number < 3; ++number) {  // as it is, recorded, repeated
    const auto wanted = many.step(number);
    EXPECT_EQ(one.step(number), wanted) << "step " << number;
    EXPECT_GT(*std::ranges::max_element(wanted), 0.01F);
  }
}

// Blocks make a norm's rows for themselves.
TEST(MegakernelLatentTest, AStepOfFewTokensHasTheBitsOfItsOperators) {
  expect_same_steps({.tokens = 1});
  expect_same_steps({.tokens = 2, .exact = true, .q_latent = 48, .biased = true});
}

TEST(MegakernelLatentTest, AStepOfManyTokensHasTheBitsOfItsOperators) {
  expect_same_steps({.tokens = 8, .kv_type = DType::kBF16, .q_latent = 48});
  if (!kEmulated) expect_same_steps({.tokens = 16, .exact = true, .biased = true});
}

TEST(MegakernelLatentTest, AStepOfTheMostTokensHasTheBitsOfItsOperators) {
  expect_same_steps({.tokens = 16, .kv_type = DType::kF8E4M3, .biased = true});
}

}  // namespace
}  // namespace dsm::device

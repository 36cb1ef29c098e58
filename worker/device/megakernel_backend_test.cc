// A step of decoding as one kernel (kernels/cuda/megakernel.h): the bits of a step whose operators
// are kernels of their own, in each of its repetitions.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "worker/device/backend_fixture.h"
#include "worker/device/megakernel_fixture.h"
#include "worker/device/weights_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

// Of two layers with grouped-query attention. Products have two spans of inputs, the last of which
// is not whole, and panels of which the last has few columns.
constexpr int kHidden = 1072;
constexpr int kHeads = 6;  // of 2 KV heads
constexpr int kKvHeads = 2;
constexpr int kDim = 64;
constexpr int kMlp = 1120;
constexpr int kVocab = 250;
constexpr int kPast = 200;  // positions below the first step's
constexpr int kBlocksEach = 5;

struct Layer {
  const float* attention_norm;
  PackedMatrix qkv;
  const float* bias;
  SegmentedMatrix output;
  const float* mlp_norm;
  PackedMatrix gate_up;
  SegmentedMatrix down;
  KvLayer kv;
};

// Made once: decoders have the same ones.
const Weight& weight_once(int n, int k, DType dtype, unsigned seed) {
  static std::map<std::tuple<int, int, DType, unsigned>, Weight> made;
  const auto [at, is_new] = made.try_emplace({n, k, dtype, seed});
  if (is_new) at->second = weight(n, k, dtype, seed);
  return at->second;
}

// What a rank does of a step, with sequences of their own lengths.
class Decoder {
 public:
  Decoder(Side side, int tokens, DType kv_type, DType mlp_type)
      : side_(std::move(side)), tokens_(tokens) {
    for (int i = 0; i < 2; ++i) layers_.push_back(layer(kv_type, mlp_type, 100 * (i + 1)));
    final_norm_ = side_.put(random_floats(kHidden, 11));
    head_ = load(side_, weight_once(kVocab, kHidden, DType::kBF16, 12));
    table_ = side_.put(random_floats(size(kVocab) * kHidden, 13));
    const std::size_t angles = size(kBlocksEach) * kKvBlock * (kDim / 2);
    rope_ = {side_.put(random_floats(angles, 14)), side_.put(random_floats(angles, 15)), kDim / 2,
             true};
    const std::size_t t = size(tokens);
    x_ = allocate<float>(*side_.backend, t * kHidden);
    normed_ = allocate<float>(*side_.backend, t * kHidden);
    qkv_ = allocate<float>(*side_.backend, t * kQkv);
    query_ = allocate<float>(*side_.backend, t * kHeads * kDim);
    mixed_ = allocate<float>(*side_.backend, t * kHeads * kDim);
    hidden_ = allocate<float>(*side_.backend, t * kMlp);
    logits_ = allocate<float>(*side_.backend, t * kVocab);
    ids_.resize(t);
    places_.resize(t);
    last_.resize(t);
    slots_.resize(t);
    ones_.assign(t, 1.0F);
    tables_.resize(t * kBlocksEach);
    for (std::size_t b = 0; b < tables_.size(); ++b) {
      tables_[b] = static_cast<std::int32_t>(tables_.size() - 1 - b);
    }
    for (int s = 0; s < tokens; ++s) {
      for (int h = 0; h < kKvHeads; ++h) {
        items_.push_back({s * kGroup, (s + 1) * kGroup, tables_.data() + s * kBlocksEach, h});
      }
    }
  }

  // Logits of all tokens of step number `number`.
  std::vector<float> step(int number) {
    for (int t = 0; t < tokens_; ++t) {
      ids_[size(t)] = (7 * t + 31 * number) % kVocab;
      const int position = kPast - 12 * t + number;
      places_[size(t)] = {position, tables_[size(t * kBlocksEach + position / kKvBlock)]};
      last_[size(t)] = tokens_ - 1 - t;
      slots_[size(t)] = t;
    }
    const List lists[] = {list(ids_),   list(places_), list(last_),
                          list(slots_), list(ones_),   list(tables_)};
    side_.backend->stage(lists, items_);
    side_.backend->repeat({.tokens = tokens_, .positions = kBlocksEach * kKvBlock},
                          [this] { operators(); });
    return side_.get(logits_, size(tokens_) * kVocab);
  }

 private:
  static constexpr int kGroup = kHeads / kKvHeads;
  static constexpr int kQkv = (kHeads + 2 * kKvHeads) * kDim;

  template <class T>
  static List list(const std::vector<T>& values) {
    return {values.data(), values.size() * sizeof(T)};
  }

  Layer layer(DType kv_type, DType mlp_type, int seed) {
    const auto at = static_cast<unsigned>(seed);
    Layer l{.attention_norm = side_.put(random_floats(kHidden, at)),
            .qkv = load(side_, weight_once(kQkv, kHidden, DType::kBF16, at + 1)),
            .bias = side_.put(random_floats(kQkv, at + 2)),
            .output = load_whole(side_, weight_once(kHidden, kHeads * kDim, DType::kBF16, at + 3)),
            .mlp_norm = side_.put(random_floats(kHidden, at + 4)),
            .gate_up = load(side_, weight_once(2 * kMlp, kHidden, mlp_type, at + 5)),
            .down = load_whole(side_, weight_once(kHidden, kMlp, mlp_type, at + 6)),
            .kv = {.heads = kKvHeads, .key_dim = kDim, .value_dim = kDim, .dtype = kv_type}};
    const std::size_t heads = size(tokens_) * kBlocksEach * kKvHeads;
    Backend& backend = *side_.backend;
    l.kv.keys = filled(heads * size(key_block_bytes(l.kv)), kv_type, at + 7);
    l.kv.values = filled(heads * size(value_block_bytes(l.kv)), kv_type, at + 8);
    l.kv.key_scales = scales(backend, heads * size(key_scales_of(l.kv)) * kKvBlock);
    l.kv.value_scales = scales(backend, heads * size(value_scales_of(l.kv)) * kKvBlock);
    return l;
  }
  // A cache of what was there before.
  void* filled(std::size_t bytes, DType type, unsigned seed) {
    auto values = random_floats(bytes / sizeof(float), seed);
    if (type == DType::kBF16) {
      // Two of them in a word: its lower half is as small as the upper.
      for (float& value : values) {
        std::uint32_t bits = 0;
        std::memcpy(&bits, &value, sizeof bits);
        bits = (bits & 0xffff0000U) | bits >> 16;
        std::memcpy(&value, &bits, sizeof bits);
      }
    } else if (type == DType::kF8E4M3) {
      for (float& value : values) {
        std::uint32_t bits = 0;
        std::memcpy(&bits, &value, sizeof bits);
        bits &= 0xb7b7b7b7U;  // no NaN
        std::memcpy(&value, &bits, sizeof bits);
      }
    }
    return side_.put(values);
  }
  static float* scales(Backend& backend, std::size_t count) {
    auto* to = allocate<float>(backend, count);
    const std::vector<float> values(count, 0x1p118F);
    backend.write(to, values.data(), count * sizeof(float));
    return to;
  }

  void norm(const float* weight, const std::int32_t* rows = nullptr) {
    side_.backend->rms_norm({.x = x_,
                             .ldx = kHidden,
                             .row_index = rows,
                             .weight = weight,
                             .y = normed_,
                             .ldy = kHidden,
                             .rows = tokens_,
                             .width = kHidden,
                             .eps = 1e-6F,
                             .for_products = 1});
  }

  void attend(const Layer& l) {
    Backend& backend = *side_.backend;
    norm(l.attention_norm);
    backend.linear({.x = normed_,
                    .ldx = kHidden,
                    .w = &l.qkv,
                    .bias = l.bias,
                    .y = qkv_,
                    .ldy = kQkv,
                    .rows = tokens_});
    const float* k = qkv_ + std::ptrdiff_t{kHeads} * kDim;
    backend.kv_write_heads(
        {k, k + std::ptrdiff_t{kKvHeads} * kDim, kQkv, places_.data(), l.kv, rope_, tokens_});
    backend.rope_query(
        {qkv_, kQkv, kDim, 0, query_, kDim, 0, places_.data(), rope_, tokens_, kHeads});
    backend.attention({.query = query_,
                       .out = mixed_,
                       .places = places_.data(),
                       .items = items_.data(),
                       .item_count = static_cast<int>(items_.size()),
                       .heads = kGroup,
                       .kv = l.kv,
                       .scale = 0.1F});
    row_parallel(l.output, mixed_, kHeads * kDim);
  }

  void row_parallel(const SegmentedMatrix& w, const float* h, std::int64_t ldh) {
    const Group all = {0, tokens_};
    side_.backend->row_parallel({.h = h,
                                 .ldh = ldh,
                                 .token = slots_.data(),
                                 .groups = &all,
                                 .w = &w,
                                 .group_count = 1,
                                 .tokens = tokens_,
                                 .residual = x_,
                                 .y = x_,
                                 .ldy = kHidden});
  }

  void operators() {
    Backend& backend = *side_.backend;
    backend.embedding({ids_.data(), table_, DType::kF32, x_, tokens_, kHidden});
    const Group all = {0, tokens_};
    for (const Layer& l : layers_) {
      attend(l);
      norm(l.mlp_norm);
      backend.gate_up({.x = normed_,
                       .ldx = kHidden,
                       .token = slots_.data(),
                       .weight = ones_.data(),
                       .groups = &all,
                       .w = &l.gate_up,
                       .group_count = 1,
                       .h = hidden_,
                       .ldh = kMlp});
      row_parallel(l.down, hidden_, kMlp);
    }
    norm(final_norm_, last_.data());
    backend.linear(
        {.x = normed_, .ldx = kHidden, .w = &head_, .y = logits_, .ldy = kVocab, .rows = tokens_});
  }

  Side side_;
  const int tokens_;
  std::vector<Layer> layers_;
  const float* final_norm_;
  PackedMatrix head_;
  const float* table_;
  RopeTable rope_;
  float* x_;
  float* normed_;
  float* qkv_;
  float* query_;
  float* mixed_;
  float* hidden_;
  float* logits_;
  std::vector<std::int32_t> ids_;
  std::vector<TokenPlace> places_;
  std::vector<std::int32_t> last_;
  std::vector<std::int32_t> slots_;
  std::vector<float> ones_;
  std::vector<std::int32_t> tables_;
  std::vector<AttentionItem> items_;
};

void expect_same_steps(int tokens, DType kv_type, DType mlp_type, bool exact) {
  SCOPED_TRACE(std::to_string(tokens) + " tokens, cache " +
               std::to_string(static_cast<int>(kv_type)) + ", MLP " +
               std::to_string(static_cast<int>(mlp_type)) + (exact ? ", exact" : ""));
  Decoder one(side_with(true, exact), tokens, kv_type, mlp_type);
  Decoder many(side_with(false, exact), tokens, kv_type, mlp_type);
  for (int number = 0; number < 3; ++number) {  // as it is, recorded, repeated
    const auto wanted = many.step(number);
    EXPECT_EQ(one.step(number), wanted) << "step " << number;
    EXPECT_GT(*std::ranges::max_element(wanted), 0.01F);
  }
}

TEST(MegakernelTest, AStepHasTheBitsOfItsOperators) {
  for (const bool exact : {false, true}) expect_same_steps(1, DType::kF32, DType::kBF16, exact);
  if (!kEmulated) expect_same_steps(2, DType::kF32, DType::kBF16, false);
  expect_same_steps(3, DType::kBF16, DType::kBF16, false);
  expect_same_steps(5, DType::kF8E4M3, DType::kBF16, false);
  if (!kEmulated) expect_same_steps(16, DType::kF32, DType::kBF16, true);
}

// Products by other weights, and of more rows, are kernels of their own, in their place.
TEST(MegakernelTest, WhatItDoesNotHaveComesInItsPlace) {
  expect_same_steps(2, DType::kF32, DType::kInt8, false);
  expect_same_steps(17, DType::kBF16, DType::kBF16, false);
}

}  // namespace
}  // namespace dsm::device

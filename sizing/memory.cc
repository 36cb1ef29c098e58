#include "sizing/memory.h"

#include <algorithm>

namespace dsm::sizing {
namespace {

constexpr std::int64_t kIndexRows = 64;            // tokens whose index scores are held at a time
constexpr std::int64_t kExpandedPositions = 8192;  // of a past whose keys are expanded ...
constexpr std::int64_t kExpandedAtOnce = 1024;     // ... and of what they are made of
constexpr std::int64_t kScaleBlock = 128;          // values of a head that have one scale
constexpr std::int64_t kFloat = 4;
constexpr std::int64_t kHeadTokens = 256;  // whose logits are there at a time
constexpr std::int64_t kMiB = 1 << 20;

// Of a GPU's operators (worker/device/cuda_*.h). Whatever the model: lists on their way, rows as
// operands, attention's parts.
constexpr std::int64_t kOperators = (17 + 32 + 64) * kMiB;
// Partial sums of a product whose thread blocks are too few for the device, for each 1,024 inputs:
// those of 2 blocks with 64 rows of 64 outputs for each processor, twice where experts' rows stand
// beside a shared one's.
constexpr std::int64_t kPartialSums = std::int64_t{2} * 160 * 2 * 64 * 64;
constexpr std::int64_t kSpan = 1024;
// Of the loose mode's kernel for many rows: the rows in BF16, of 128 at a time and no more than
// this; 32 MiB are there in any mode.
constexpr std::int64_t kWideRows = 128;
constexpr std::int64_t kWideOperands = 128 * kMiB;
// It takes experts from so many rows of each on average.
constexpr std::int64_t kWideExpertRows = 17;
// Of the loose mode's kernel for attention of long prompts: pasts that are packed.
constexpr std::int64_t kPackedPasts = 128 * kMiB;
// Of a library in the loose mode: its workspace, a part's weights and sums.
constexpr std::int64_t kLibrary = (32 + 64 + 64) * kMiB;
constexpr std::int64_t kItemRows = 32;     // (token, head)s of one item of attention
constexpr std::int64_t kChoiceValues = 6;  // of 1,024 logits from which a token is chosen
constexpr std::int64_t kChoiceLogits = 1024;
// Of a row whose choice is narrowed: bins of tokens, and those of which it is not clear yet.
constexpr std::int64_t kNarrowedValues = 3 * 2048 + 4096 + 16;

// Of a CPU's loose mode (worker/device/cpu_bf16_products.cc): rows in BF16 that products read, so
// much at a time unless those of one work item are more; and as much at most that SwiGLU leaves to
// the next product.
constexpr std::int64_t kCpuOperands = 16 * kMiB;
constexpr std::int64_t kCpuItemRows = 512;
constexpr std::int64_t kCpuTileRows = 16;

// Of a CPU's products by weights in integers (worker/device/cpu_integer_products.cc): rows in
// integers of 16 bits, so much at a time unless those of a block of rows are more. In each segment
// of a sum two pieces of 128 inputs may be cut short; each has 8 bytes more.
constexpr std::int64_t kCpuIntegers = 16 * kMiB;
constexpr std::int64_t kCpuBlockRows = 64;
constexpr std::int64_t kSegments = 8;

constexpr std::int64_t round_up(std::int64_t value, std::int64_t unit) {
  return (value + unit - 1) / unit * unit;
}

std::int64_t kv_heads_of(const Shape& s, const WeightCut& cut) {
  return std::max<std::int64_t>(1, s.kv_heads / cut.tensor);
}

// Values for each token of a step.
std::int64_t attention_width(const Shape& s, const WeightCut& cut) {
  const std::int64_t heads = s.heads / attention_ranks(cut);
  if (!s.latent) return (3 * heads + 2 * kv_heads_of(s, cut)) * s.head;
  const std::int64_t key = s.kv_lora + s.rope;
  const std::int64_t index =
      s.index_heads > 0 ? s.index_head + s.index_heads * s.index_head + s.index_heads : 0;
  return 2 * s.q_lora + key + heads * (s.nope + s.rope + key + s.kv_lora + s.value) + index;
}

// Of a dense layer's tokens, or of slots of experts in the same memory.
std::int64_t mlp_width(const Shape& s, const WeightCut& cut) {
  const std::int64_t expert = cut.expert_parallel ? s.expert : s.expert / cut.tensor;
  const std::int64_t experts = std::max(s.shared_experts * s.expert / cut.tensor, expert);
  return std::max(round_up(s.mlp / cut.tensor, 32),
                  (1 + s.experts_per_token) * round_up(experts, 32));
}

// Of scores and selections over a sequence's whole past.
std::int64_t indexer_bytes(const Shape& s, std::int64_t batch_tokens) {
  if (s.index_heads == 0) return 0;
  const std::int64_t blocks = round_up(s.max_positions, kBlockTokens) / kBlockTokens;
  return kIndexRows * blocks * kBlockTokens * kFloat + batch_tokens * blocks * 8;
}

// The router's logits and choices; tokens, weights and numbers of the experts' slots; the groups'
// bounds.
std::int64_t routing_values(const Shape& s, const WeightCut& cut, std::int64_t batch_tokens) {
  if (s.experts == 0) return 0;
  const std::int64_t slots = 1 + s.experts_per_token;
  return batch_tokens * (round_up(s.experts, 16) + 2 * s.experts_per_token + 3 * slots) +
         2 * (1 + s.experts / (cut.expert_parallel ? cut.tensor : 1));
}

// Values of experts' rows as operands of the kernel for many: however tokens choose, groups end
// within a tile.
std::int64_t expert_operands(const Shape& s, const WeightCut& cut, std::int64_t batch_tokens) {
  const std::int64_t experts = s.experts / (cut.expert_parallel ? cut.tensor : 1);
  const std::int64_t slots = batch_tokens * s.experts_per_token;
  if (experts == 0 || slots < kWideExpertRows * experts) return 0;
  const std::int64_t tiles = slots / kWideRows + experts;
  return tiles * kWideRows * std::max(s.hidden, s.expert);
}

// Keys and values of a past, all heads of it, and of some positions at a time what the cache holds
// and what it becomes.
std::int64_t expanded_values(const Shape& s, const WeightCut& cut) {
  if (!s.latent || s.index_heads > 0 || cut.deterministic || s.value % 16 != 0) return 0;
  const std::int64_t slots = std::min(kExpandedPositions, round_up(s.max_positions, kBlockTokens));
  const std::int64_t at_once = std::min(slots, kExpandedAtOnce);
  return s.heads / attention_ranks(cut) *
             (slots * (s.nope + s.rope + s.value) + at_once * (s.nope + s.value)) +
         at_once * (s.kv_lora + s.rope);
}

// Inputs of a product whose rows become operands.
std::int64_t widest_input(const Shape& s, const WeightCut& cut) {
  return std::max(
      {s.hidden, s.mlp / cut.tensor, s.q_lora, s.heads * s.value / attention_ranks(cut)});
}

std::int64_t cpu_operator_bytes(const Shape& s, const WeightCut& cut, const StepSize& step) {
  const std::int64_t rows = round_up(step.batch_tokens, kCpuTileRows);
  std::int64_t bytes = 0;
  if (cut.weight_bits != 0 || s.integers.bits != 0) {
    const std::int64_t inputs = round_up(widest_input(s, cut), kScaleBlock);
    const std::int64_t pieces = inputs / kScaleBlock + 2 * kSegments;
    const std::int64_t slots = s.experts > 0 ? 1 + s.experts_per_token : 1;
    const std::int64_t row = slots * pieces * (2 * kScaleBlock + 8);
    bytes += std::min(rows * row, std::max(kCpuIntegers, kCpuBlockRows * row));
  }
  if (cut.deterministic) return bytes;
  const std::int64_t row = 2 * widest_input(s, cut);
  bytes += std::min(rows * row, std::max(kCpuOperands, kCpuItemRows * row));
  return bytes + std::min(kCpuOperands, rows * 2 * (s.mlp / cut.tensor));
}

std::int64_t gpu_operator_bytes(const Shape& s, const WeightCut& cut, const StepSize& step) {
  const std::int64_t t = step.batch_tokens;
  const std::int64_t widest = widest_input(s, cut);
  std::int64_t values = kPartialSums * (round_up(widest, kSpan) / kSpan + 1);
  // What each slot of a token adds to it.
  if (s.experts > 0) values += t * (1 + s.experts_per_token) * s.hidden;
  values +=
      std::min(t, kHeadTokens) * ((s.vocab / kChoiceLogits + 1) * kChoiceValues + kNarrowedValues);
  // One item's parts of the longest past. Splits of a recorded step are a power of two.
  std::int64_t splits = kBlockTokens;
  while (splits * kBlockTokens < s.max_positions) splits *= 2;
  values += kItemRows * splits * ((s.latent ? s.kv_lora : s.head) + 2);
  if (cut.deterministic) return kOperators + values * kFloat;
  const std::int64_t rows = round_up(t, kWideRows);
  const std::int64_t operands = 2 * std::max(rows * widest, expert_operands(s, cut, t));
  // Rows that norms and SwiGLU make for the next product; of those in FP8 there is one kind more,
  // in half the bytes.
  const std::int64_t held = std::min(kWideOperands, 2 * rows * s.hidden) +
                            std::min(kWideOperands, 2 * rows * (s.mlp / cut.tensor));
  return kOperators + std::min(kWideOperands, operands) + held + kPackedPasts + values * kFloat +
         kLibrary + t * widest * 2;
}

}  // namespace

std::int64_t cache_bytes_per_token(const Shape& s, const WeightCut& cut, KvType type) {
  const std::int64_t value = type == KvType::kF32 ? kFloat : type == KvType::kBf16 ? 2 : 1;
  const auto scales = [&](std::int64_t dims) {
    return type == KvType::kFp8 ? (dims + kScaleBlock - 1) / kScaleBlock * kFloat : 0;
  };
  std::int64_t bytes = 0;
  if (s.latent) {
    // A latent twice: laid out for scores, and for sums. The indexer's keys are in FP32.
    bytes = 2 * s.kv_lora * value + scales(s.kv_lora) + s.rope * std::max<std::int64_t>(value, 2) +
            s.index_head * kFloat;
  } else {
    bytes = kv_heads_of(s, cut) * 2 * (s.head * value + scales(s.head));
  }
  return (s.layers + (cut.drafts && s.mtp_layers > 0 ? 1 : 0)) * bytes;
}

std::int64_t operator_bytes(const Shape& s, const WeightCut& cut, const StepSize& step,
                            Device device) {
  return device == Device::kGpu ? gpu_operator_bytes(s, cut, step)
                                : cpu_operator_bytes(s, cut, step);
}

std::int64_t scratch_bytes(const Shape& s, const WeightCut& cut, const StepSize& step,
                           Device device) {
  const std::int64_t t = step.batch_tokens;
  const bool drafts = cut.drafts && s.mtp_layers > 0;
  // The residual stream, its norm, a partial sum, and what the prediction layer joins.
  std::int64_t width = (drafts ? 7 : 3) * s.hidden + attention_width(s, cut) + mlp_width(s, cut);
  if (cut.tensor > 1) width += cut.tensor * s.hidden;    // all ranks' partial sums
  const std::int64_t lists = t * 5;                      // ids, places, slots with their weights
  const std::int64_t angles = s.max_positions * s.rope;  // sine and cosine of half as many pairs
  const std::int64_t values =
      t * width + expanded_values(s, cut) + lists + routing_values(s, cut, t) + angles;
  return values * kFloat + indexer_bytes(s, t) + operator_bytes(s, cut, step, device);
}

std::int64_t logit_bytes(const Shape& s, const WeightCut& cut, const StepSize& step, Device device,
                         bool first_rank) {
  const std::int64_t rows = std::min(step.batch_tokens, kHeadTokens);
  std::int64_t values = rows * (s.hidden + s.vocab / cut.tensor);
  if (cut.tensor > 1) values += rows * s.vocab * (first_rank ? 2 : 1);  // gathered; side by side
  if (device == Device::kCpu && first_rank) values += step.batch_tokens * s.vocab;  // for the host
  return (values + step.batch_tokens) * kFloat;  // and the tokens that are chosen
}

std::int64_t later_bytes(const WeightCut& cut) {
  constexpr std::int64_t kGraphs = 64 * 4 * kMiB;  // so many are kept, of a large model each
  constexpr std::int64_t kCollectives = 1024 * kMiB;
  return kGraphs + (cut.tensor > 1 ? kCollectives : 0);
}

}  // namespace dsm::sizing

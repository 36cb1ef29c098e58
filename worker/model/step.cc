#include "worker/model/step.h"

#include <algorithm>
#include <numeric>

namespace dsm::model {

using device::allocate;
using device::allocate_shared;

namespace {

// The angles in the device's memory.
kernels::RopeTable rope_table(const ModelConfig& c, device::Backend& backend) {
  const RopeAngles angles = rope_angles(c);
  const auto table = [&](const std::vector<float>& values) {
    auto* to = allocate<float>(backend, values.size());
    backend.write(to, values.data(), values.size() * sizeof(float));
    return to;
  };
  return {table(angles.cos), table(angles.sin), c.qk_rope_head_dim / 2, c.rope.halves};
}

}  // namespace

Step::Step(const ModelConfig& config, const Size& size, device::Backend& device)
    : c(config),
      rank(size.rank),
      ranks(size.ranks),
      attention(attention_cut({size.rank, size.ranks}, size.data_parallel_attention)),
      threads(size.threads),
      max_tokens(size.tokens),
      expert_parallel(size.expert_parallel),
      quantises(size.quantises),
      backend(device),
      rope(rope_table(config, device)),
      adapted(device, config, {.attention = attention.ranks, .mlp = ranks}, size.tokens,
              size.adapter_rank),
      integer_rows_from_(size.integer_rows_from) {
  const auto t = static_cast<std::size_t>(max_tokens);
  const auto hidden = static_cast<std::size_t>(c.hidden_size);
  token_ids = allocate_shared<std::int32_t>(backend, t);
  places = allocate_shared<kernels::TokenPlace>(backend, t);
  x = allocate<float>(backend, t * hidden);
  normed = allocate<float>(backend, t * hidden);
  slot_token = allocate_shared<std::int32_t>(backend, t);
  slot_weight = allocate_shared<float>(backend, t);
  std::iota(slot_token, slot_token + t, 0);
  std::fill_n(slot_weight, t, 1.0F);
  backend.keep({slot_token, t * sizeof *slot_token});
  backend.keep({slot_weight, t * sizeof *slot_weight});
  partial_ = allocate<float>(backend, t * hidden);
  // The prediction layer joins two states.
  const auto widest = std::max(2 * hidden, static_cast<std::size_t>(c.q_lora_rank));
  rounded_ = quantises ? allocate<float>(backend, t * widest) : nullptr;
  rounded_fp8_ = fp8_rows(t, widest);
  parts_ =
      ranks > 1 ? allocate<float>(backend, t * hidden * static_cast<std::size_t>(ranks)) : nullptr;
  runs.reserve(t);
  own_runs.reserve(t);
  begins_.resize(static_cast<std::size_t>(ranks) + 1);
  lists_.reserve(t + 4);
}

void Step::clear() {
  tokens = 0;
  runs.clear();
  adapted.clear();
}

void Step::add_run(const std::int32_t* block_table, int blocks, int of_rank) {
  runs.push_back({tokens, 0, block_table, blocks, of_rank});
}

void Step::add_token(std::int32_t id, std::int32_t position) {
  TokenRun& run = runs.back();
  token_ids[tokens] = id;
  places[tokens] = {position, run.block_table[position / kernels::kKvBlock]};
  ++run.size;
  ++tokens;
}

void Step::stage(std::span<const kernels::AttentionItem> items,
                 std::span<const std::int32_t> wanted, std::span<const kernels::Choice> choices) {
  const auto count = static_cast<std::size_t>(tokens);
  lists_.clear();
  lists_.push_back({token_ids, count * sizeof *token_ids});
  lists_.push_back({places, count * sizeof *places});
  lists_.push_back({wanted.data(), wanted.size_bytes()});
  lists_.push_back({choices.data(), choices.size_bytes()});
  for (const TokenRun& run : runs) {
    if (attends_alone() && run.rank != rank) continue;
    lists_.push_back(
        {run.block_table, static_cast<std::size_t>(run.blocks) * sizeof(std::int32_t)});
  }
  backend.stage(lists_, items);
}

void Step::norm(const float* weight, const NextProducts& next) {
  backend.rms_norm({x, c.hidden_size, nullptr, weight, normed, c.hidden_size, tokens, c.hidden_size,
                    static_cast<float>(c.rms_eps), next.products, next.taken});
}

NextProducts Step::next(const kernels::PackedMatrix& w, int products) const {
  using kernels::DType;
  using kernels::RowsTaken;
  if (!adapted.empty()) return {};
  if (!quantises) {
    // As RmsNormParams has it.
    const bool integers = kernels::is_integer(w.dtype) && w.scale_phase % 64 == 0 &&
                          integer_rows_from_ > 0 && tokens >= integer_rows_from_;
    return {w.dtype == DType::kBF16 || integers ? products : 0};
  }
  if (!w.stored_fp8 || w.dtype != DType::kF8E4M3 || w.scale_phase != 0) return {};
  return {products, c.quantization->power_of_two_scales ? RowsTaken::kRoundedByPowersOfTwo
                                                        : RowsTaken::kRounded};
}

kernels::Fp8Rows Step::fp8_rows(std::size_t rows, std::size_t width) const {
  if (!quantises || !backend.takes_fp8()) return {};
  const std::int64_t ld = kernels::round_up(static_cast<std::int64_t>(width), kernels::kScaleBlock);
  const auto count = rows * static_cast<std::size_t>(ld);
  return {allocate<std::uint8_t>(backend, count),
          allocate<float>(backend, count / kernels::kScaleBlock), ld};
}

Step::Input Step::input(const kernels::PackedMatrix& w, const float* from, int width, bool alone) {
  if (!quantises || !w.stored_fp8) return {from};
  backend.quantise({.x = from,
                    .ldx = width,
                    .y = rounded_,
                    .ldy = width,
                    .rows = tokens,
                    .width = width,
                    .power_of_two = c.quantization->power_of_two_scales,
                    .y_fp8 = rounded_fp8_,
                    .for_products = alone ? next(w).products : 0});
  return {rounded_, rounded_fp8_};
}

void Step::linear(kernels::LinearParams params) {
  const Input from = input(*params.w, params.x, params.w->k, true);
  params.x = from.x;
  params.x_fp8 = from.fp8;
  params.ldx = params.w->k;
  params.rows = tokens;
  backend.linear(params);
}

void Step::round_rows(float* h, std::int64_t ld, int width, const kernels::Fp8Rows& fp8,
                      const NextProducts& next) {
  if (!quantises) return;
  backend.quantise({.x = h,
                    .ldx = ld,
                    .y = h,
                    .ldy = ld,
                    .rows = tokens,
                    .width = width,
                    .power_of_two = c.quantization->power_of_two_scales,
                    .y_fp8 = fp8,
                    .for_products = next.products});
}

void Step::round_slots(float* h, std::int64_t ld, int width,
                       const kernels::GroupExpertsParams& routing, const kernels::Fp8Rows& fp8) {
  if (!quantises) return;
  float* const first = h + routing.tokens * ld;
  backend.quantise_slots({.x = first,
                          .ldx = ld,
                          .y = first,
                          .ldy = ld,
                          .width = width,
                          .power_of_two = c.quantization->power_of_two_scales,
                          .y_fp8 = fp8.from(routing.tokens)},
                         routing);
}

void Step::add_product(kernels::RowParallelParams params) {
  params.tokens = tokens;
  if (params.token == nullptr) params.token = slot_token;
  params.ldy = c.hidden_size;
  params.residual = x;
  params.y = x;
  backend.row_parallel(params);
}

void Step::add_row_parallel(kernels::RowParallelParams params) {
  if (ranks == 1) return add_product(params);
  params.tokens = tokens;
  if (params.token == nullptr) params.token = slot_token;
  params.ldy = c.hidden_size;
  params.y = partial_;
  backend.row_parallel(params);
  backend.add_over_ranks(
      *comm,
      {.mine = partial_, .parts = parts_, .count = std::int64_t{tokens} * c.hidden_size, .y = x});
}

// Rows are unequal in number, what ranks send is not: each sends as many as the one with the most.
void Step::gather_x() {
  if (!attends_alone()) return;
  std::ranges::fill(begins_, 0);
  for (const TokenRun& run : runs) begins_[static_cast<std::size_t>(run.rank) + 1] += run.size;
  const std::int64_t most = *std::ranges::max_element(begins_);
  std::partial_sum(begins_.begin(), begins_.end(), begins_.begin());
  const auto size = static_cast<std::int64_t>(c.hidden_size);
  const auto copy_rows = [&](int of_rank, auto&& copy) {
    const auto at = static_cast<std::size_t>(of_rank);
    const int count = begins_[at + 1] - begins_[at];
    if (count > 0) copy(x + begins_[at] * size, static_cast<std::size_t>(count * size));
  };
  copy_rows(rank, [&](const float* own, std::size_t count) { backend.copy(partial_, own, count); });
  backend.gather_over_ranks(*comm, {.mine = partial_, .parts = parts_, .count = most * size});
  for (int r = 0; r < ranks; ++r) {
    if (r == rank) continue;
    copy_rows(r, [&](float* to, std::size_t count) {
      backend.copy(to, parts_ + r * most * size, count);
    });
  }
}

}  // namespace dsm::model

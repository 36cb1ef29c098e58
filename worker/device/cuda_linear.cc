#include "worker/device/cuda_linear.h"

#include <array>
#include <stdexcept>
#include <string>

#include "worker/device/cuda_launch.h"

namespace dsm::device {

using namespace kernels;  // parameter structs

namespace {

void require(bool ok, const char* what) {
  if (!ok) throw std::logic_error(std::string("CUDA backend: ") + what);
}

std::size_t at(int i) {
  return static_cast<std::size_t>(i);
}

// Slots of a long prompt that are its tokens. Others are not looked through.
bool rise_from_zero(const std::int32_t* token, int count) {
  if (count < cuda::kPairedFrom) return false;
  for (int i = 0; i < count; ++i) {
    if (token[i] != i) return false;
  }
  return true;
}

}  // namespace

void CudaLinear::linear(const LinearParams& p) {
  tasks_.clear();
  for (int b = 0; b < p.batch; ++b) {
    tasks_.push_back({p.w[b], p.x + b * p.x_step, p.y + b * p.y_step, b * p.rows, p.rows});
  }
  tasks_.front().x_fp8 = p.x_fp8;
  run({.ldx = p.ldx,
       .ldy = p.ldy,
       .accumulate = p.accumulate,
       .bias = p.bias,
       .rows = std::int64_t{p.batch} * p.rows});
}

// One task for each group, on its slots of x (null: set by the caller) and y. The number of slots.
int CudaLinear::group_tasks(const Group* groups, int count, const float* x, std::int64_t ldx,
                            float* y, std::int64_t ldy) {
  tasks_.clear();
  for (int g = 0; g < count; ++g) {
    const auto [begin, end] = groups[g];
    tasks_.push_back({.x = x != nullptr ? x + begin * ldx : nullptr,
                      .y = y + begin * ldy,
                      .first_row = begin,
                      .rows = end - begin});
  }
  return groups[count - 1].end;
}

void CudaLinear::gate_up(const GateUpParams& p) {
  if (p.routing != nullptr) return routed_gate_up(p);
  const int slots = group_tasks(p.groups, p.group_count, nullptr, 0, p.h, p.ldh);
  for (int g = 0; g < p.group_count; ++g) {
    tasks_[at(g)].w = p.w[g];
    tasks_[at(g)].x = p.x;
    tasks_[at(g)].x_fp8 = p.x_fp8;
  }
  tasks_.front().start = p.start;
  const bool as_they_are = p.group_count == 1 && rise_from_zero(p.token, slots);
  run({.token = as_they_are ? nullptr : list(p.token, slots),
       .ldx = p.ldx,
       .ldy = p.ldh,
       .swiglu = true,
       .lds = p.lds,
       .weight = list(p.weight, slots),
       .rows = slots},
      {p.for_products, p.taken});
}

// The first group's slots are the tokens: an ordinary product. Their weights are ones, said here of
// few tokens, so that in a megakernel it need not wait for the router.
void CudaLinear::routed_gate_up(const GateUpParams& p) {
  require(p.start == nullptr, "adapters want groups of the host's");
  static constexpr auto kOnes = [] {
    std::array<float, cuda::kMegakernelRows> ones{};
    ones.fill(1.0F);
    return ones;
  }();
  const int tokens = p.routing->tokens;
  tasks_.assign(
      1, {.w = p.w[0], .x = p.x, .y = p.h, .first_row = 0, .rows = tokens, .x_fp8 = p.x_fp8});
  run({.ldx = p.ldx,
       .ldy = p.ldh,
       .swiglu = true,
       .weight = tokens <= cuda::kMegakernelRows ? list(kOnes.data(), tokens) : p.weight,
       .rows = tokens});
  experts_.gate_up(p);
}

// What the tasks of a row-parallel product multiply by, one matrix each.
void CudaLinear::row_parallel_weights(const SegmentedMatrix* w, const Fp8Rows& rows) {
  for (cuda::ProductTask& task : tasks_) {
    require(w->count == 1 && w->offset[0] == 0, "a row-parallel weight is cut into segments");
    task.w = w->part[0];
    task.x_fp8 = rows.from(task.first_row);
    ++w;
  }
}

float* CudaLinear::slot_sums(int slots, int n) {
  return static_cast<float*>(slot_sums_.at_least(at(slots) * at(n) * sizeof(float), stream_));
}

void CudaLinear::row_parallel(const RowParallelParams& p) {
  if (p.routing != nullptr) return routed_row_parallel(p);
  const int n = p.w[0].part[0].n;
  const bool alone = p.group_count == 1 && p.adapter_count == 0;  // its slots are the tokens
  const int slots = p.groups[p.group_count - 1].end;
  const int adapter_slots = p.adapter_count > 0 ? p.adapter_groups[p.adapter_count - 1].end : 0;
  float* const sums = alone ? p.y : slot_sums(slots + adapter_slots, n);
  const std::int64_t ld = alone ? p.ldy : n;
  group_tasks(p.groups, p.group_count, p.h, p.ldh, sums, ld);
  row_parallel_weights(p.w, p.h_fp8);
  run({.ldx = p.ldh, .ldy = ld, .residual = alone ? p.residual : nullptr, .rows = slots});
  if (alone) return;
  if (adapter_slots > 0) {
    group_tasks(p.adapter_groups, p.adapter_count, p.adapter_h, p.adapter_ldh, sums + slots * ld,
                ld);
    row_parallel_weights(p.adapter_w, {});
    run({.ldx = p.adapter_ldh, .ldy = ld, .rows = adapter_slots});
  }
  add_up_slots(p, sums, slots);
}

// Each token's, those of adapters after the others.
void CudaLinear::add_up_slots(const RowParallelParams& p, const float* sums, int first_adapter) {
  const cuda::SlotList lists[] = {
      {{p.groups, at(p.group_count)}, p.token, 0},
      {{p.adapter_groups, at(p.adapter_count)}, p.adapter_token, first_adapter}};
  cuda::slots_of_tokens(lists, p.tokens, token_slots_);
  const cuda::CombineParams combine{.x = sums,
                                    .first = lists_.put(token_slots_.first),
                                    .slots = lists_.put(token_slots_.slots),
                                    .residual = p.residual,
                                    .y = p.y,
                                    .ldy = p.ldy,
                                    .tokens = p.tokens,
                                    .n = p.w[0].part[0].n};
  launch(lists_, [&] { cuda::combine(combine, stream_.get()); });
}

void CudaLinear::routed_row_parallel(const RowParallelParams& p) {
  require(p.adapter_count == 0, "adapters want groups of the host's");
  const int n = p.w[0].part[0].n;
  const int each = 1 + p.routing->top_k;
  for (int g = 0; g < p.group_count; ++g) {
    require(p.w[g].count == 1, "a row-parallel weight is cut into segments");
    require(p.h_fp8.values == nullptr || p.w[g].offset[0] == 0, "rows in FP8 begin at their first");
  }
  float* const sums = slot_sums(p.tokens * each, n);
  tasks_.assign(1, {.w = p.w[0].part[0],
                    .x = p.h + p.w[0].offset[0],
                    .y = sums,
                    .first_row = 0,
                    .rows = p.tokens,
                    .x_fp8 = p.h_fp8});
  run({.ldx = p.ldh, .ldy = n, .rows = p.tokens});
  experts_.row_parallel(p, sums);
  const cuda::CombineParams combine{.x = sums,
                                    .each = each,
                                    .slots = p.routing->slot,
                                    .residual = p.residual,
                                    .y = p.y,
                                    .ldy = p.ldy,
                                    .tokens = p.tokens,
                                    .n = n};
  if (megakernel_.combine(combine)) return;
  launch(lists_, [&] { cuda::combine(combine, stream_.get()); });
}

}  // namespace dsm::device

#include "worker/model/adapted.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>

namespace dsm::model {
namespace {

// Linears that are computed as one: q, k and v.
constexpr std::size_t kMostParts = 3;

}  // namespace

Adapted::Adapted(device::Backend& backend, const ModelConfig& c, Ranks ranks, int max_tokens,
                 int max_rank)
    : backend_(backend) {
  if (max_rank == 0) return;
  const auto t = static_cast<std::size_t>(max_tokens);
  const int widest = std::max(c.intermediate_size, c.shared_width()) / ranks.mlp;
  const auto both = static_cast<std::size_t>(2 * kernels::round_up(widest, kernels::kPanel / 2));
  segments_width_ =
      std::int64_t{kernels::kSegments / std::min(ranks.attention, ranks.mlp)} * max_rank;
  low_ = device::allocate<float>(backend, t * kMostParts * static_cast<std::size_t>(max_rank));
  start_ = device::allocate<float>(backend, t * both);
  segments_ = device::allocate<float>(backend, t * static_cast<std::size_t>(segments_width_));
  tokens_.resize(t);
  runs_.reserve(t);
  narrowed_.reserve(t);
}

void Adapted::add(const AdapterWeights* adapter, int begin, int size) {
  if (adapter == nullptr) return;
  if (!runs_.empty()) {
    Run& last = runs_.back();
    if (last.adapter == adapter && last.begin + last.size == begin) {
      last.size += size;
      return;
    }
  }
  runs_.push_back({adapter, begin, size});
}

void Adapted::narrow(int begin, int end) {
  narrowed_.clear();
  for (const Run& run : runs_) {
    const int first = std::max(run.begin, begin);
    const int size = std::min(run.begin + run.size, end) - first;
    if (size > 0) narrowed_.push_back({run.adapter, first - begin, size});
  }
  runs_.swap(narrowed_);
}

void Adapted::product(const Run& run, const AdapterProduct& w, const float* x, std::int64_t ldx,
                      float* y, std::int64_t ldy, bool accumulate) {
  backend_.linear(
      {.x = x + run.begin * ldx, .ldx = ldx, .w = &w.a, .y = low_, .ldy = w.a.n, .rows = run.size});
  backend_.linear({.x = low_,
                   .ldx = w.a.n,
                   .w = &w.b,
                   .y = y + run.begin * ldy,
                   .ldy = ldy,
                   .rows = run.size,
                   .accumulate = accumulate});
}

void Adapted::linear(int layer, AdapterProduct AdapterLayer::* which, const float* x,
                     std::int64_t ldx, float* y, std::int64_t ldy) {
  for (const Run& run : runs_) {
    const AdapterProduct& w = at(run, layer).*which;
    if (w.b.n > 0) product(run, w, x, ldx, y, ldy, /*accumulate=*/true);
  }
}

void Adapted::gate_up(int layer, int tokens, kernels::GateUpParams& params) {
  const auto has_it = [&](const Run& run) { return at(run, layer).gate_up.b.n > 0; };
  if (std::ranges::none_of(runs_, has_it)) return;
  params.start = start_;
  params.lds = std::int64_t{kernels::panels_of(params.w[0])} * kernels::kPanel;
  backend_.clear(start_, static_cast<std::size_t>(tokens * params.lds));
  for (const Run& run : runs_) {
    if (!has_it(run)) continue;
    product(run, at(run, layer).gate_up, params.x, params.ldx, start_, params.lds,
            /*accumulate=*/false);
  }
}

void Adapted::row_parallel(int layer, AdapterSegments AdapterLayer::* which,
                           kernels::RowParallelParams& params) {
  groups_.clear();
  weights_.clear();
  int slot = 0;
  for (const Run& run : runs_) {
    const AdapterSegments& w = at(run, layer).*which;
    if (w.a.count == 0) continue;
    if (w.a.count != params.w[0].count) {
      throw std::logic_error("an adapter is cut into other segments than the model");
    }
    for (int s = 0; s < w.a.count; ++s) {
      backend_.linear({.x = params.h + run.begin * params.ldh + w.a.offset[s],
                       .ldx = params.ldh,
                       .w = &w.a.part[s],
                       .y = segments_ + slot * segments_width_ + w.b.offset[s],
                       .ldy = segments_width_,
                       .rows = run.size});
    }
    std::iota(tokens_.begin() + slot, tokens_.begin() + slot + run.size, run.begin);
    groups_.push_back({slot, slot + run.size});
    weights_.push_back(w.b);
    slot += run.size;
  }
  if (groups_.empty()) return;
  params.adapter_h = segments_;
  params.adapter_ldh = segments_width_;
  params.adapter_token = tokens_.data();
  params.adapter_groups = groups_.data();
  params.adapter_w = weights_.data();
  params.adapter_count = static_cast<int>(groups_.size());
}

}  // namespace dsm::model

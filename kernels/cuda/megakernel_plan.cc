#include "kernels/cuda/megakernel_plan.h"

#include <algorithm>
#include <utility>

#include "kernels/cuda/splits.h"

namespace dsm::kernels::cuda {
namespace {

// Bytes of weights that are asked for and not used yet: an H100's second cache has 50 MiB.
constexpr std::int64_t kMostAsked = 28 << 20;

bool is_products(const PlannedOp& planned) {
  return planned.op.kind == MegakernelKind::kProducts;
}

// Whether its rows are few enough for blocks to make them for themselves.
bool may_be_made_by_blocks(const RmsNormParams& p) {
  return p.taken == RowsTaken::kAsTheyAre && p.rows <= kNormedRows &&
         p.rows * p.width * static_cast<int>(sizeof(float)) <= kNormedBytes;
}

// Products in their order, whose weights are asked for while phases before them are done.
struct ProductAhead {
  AskedWeights asked;
  std::int64_t bytes = 0;
  int phase = 0;
  int known = 0;  // the first phase in which blocks know which weights they are
};

ProductAhead ahead_of(const PlannedOp& planned, int blocks) {
  const MegakernelOp& op = planned.op;
  const auto of = op.get<MegakernelProducts>();
  ProductAhead ahead;
  ahead.phase = planned.phase;
  ahead.asked = {.tasks = of.products.tile_count > 1 ? of.products.tasks : nullptr,
                 .experts = of.experts,
                 .tiles = of.tiles,
                 .w = of.task.w,
                 .panels = of.products.panels,
                 .spans_each = of.products.spans_each,
                 .units = op.units,
                 .first = op.first};
  const std::int64_t each =
      std::int64_t{std::min(of.task.w.k, kSpanSplits * kSplitInputs)} * kPanel * 2;
  ahead.bytes = each * std::min(op.units, blocks);
  return ahead;
}

// Blocks know, when they arrive, what was written two phases before, and all of kernels before
// theirs. The first phase in which they know these tiles; 0: they are no router's.
int known_from(std::span<const PlannedOp> before, const FewTiles& tiles) {
  const auto is_theirs = [&](const PlannedOp& planned) {
    return planned.op.kind == MegakernelKind::kRoute &&
           planned.op.get<RouteTokens>().tiles.tiles == tiles.tiles;
  };
  if (tiles.tiles == nullptr) return 0;
  const auto found = std::find_if(before.rbegin(), before.rend(), is_theirs);
  return found != before.rend() ? found->phase + 2 : 0;
}

}  // namespace

void MegakernelPlan::clear() {
  ops_.clear();
  phases_.clear();
  norms_.clear();
  router_ = {};
}

int MegakernelPlan::phase_of(std::span<const Touched> touched) const {
  const auto conflict = [&](const std::vector<Touched>& before) {
    return std::ranges::any_of(before, [&](const Touched& b) {
      return std::ranges::any_of(
          touched, [&](const Touched& a) { return (a.written || b.written) && meet(a, b); });
    });
  };
  // What touches nothing comes where it was called.
  int phase = std::max(0, static_cast<int>(phases_.size()) - (touched.empty() ? 1 : 0));
  while (!touched.empty() && phase > 0 && !conflict(phases_[static_cast<std::size_t>(phase) - 1])) {
    --phase;
  }
  return phase;
}

void MegakernelPlan::add(PlannedOp planned) {
  put_router();
  put(std::move(planned));
}

void MegakernelPlan::put(PlannedOp planned) {
  planned.phase = phase_of(planned.touched);
  const auto phase = static_cast<std::size_t>(planned.phase);
  if (phase == phases_.size()) phases_.emplace_back();
  phases_[phase].insert(phases_[phase].end(), planned.touched.begin(), planned.touched.end());
  std::erase_if(norms_, [&](const Norm& norm) {
    const Touched its[] = {rows_of_norm(norm.params), rows_normed(norm.params)};
    return std::ranges::any_of(planned.touched, [&](const Touched& t) {
      return t.written && (meet(t, its[0]) || meet(t, its[1]));
    });
  });
  ops_.push_back(std::move(planned));
}

void MegakernelPlan::norm(const RmsNormParams& p) {
  add(norm_op(p));
  if (may_be_made_by_blocks(p)) norms_.push_back({p, ops_.size() - 1});
}

const MegakernelPlan::Norm* MegakernelPlan::norm_of(const MegakernelProducts& of) {
  const auto found = std::ranges::find_if(norms_, [&](const Norm& norm) {
    return of.task.x == norm.params.y && of.products.ldx == norm.params.ldy && of.x_step == 0 &&
           of.task.w.k == norm.params.width && of.task.rows <= norm.params.rows &&
           (of.experts.list != nullptr || of.products.tile_count == 1);
  });
  if (found == norms_.end()) return nullptr;
  if (++found->taken == found->params.for_products) ops_[found->op].op.units = 0;
  return &*found;
}

void MegakernelPlan::products(MegakernelProducts of, std::span<const ProductTask> tasks) {
  if (const Norm* const norm = norm_of(of); norm != nullptr) {
    of.norm = norm->params;
    of.norm_number = static_cast<std::int32_t>(norm->op) + 1;
  }
  add(products_op(of, tasks));
}

void MegakernelPlan::put_router(const GroupExpertsParams& groups, const FewTiles& tiles,
                                const RouterParams& next) {
  const RouterParams p = std::exchange(router_, next);
  if (p.tokens == 0) return;
  put(route_op({p, groups, tiles}));
}

bool MegakernelPlan::group(const GroupExpertsParams& p, const FewTiles& tiles) {
  if (router_.tokens != p.tokens || router_.chosen != p.chosen) return false;
  put_router(p, tiles);
  return true;
}

// A product that comes first in its phase asks for weights before it waits. Where there are blocks
// enough, the others do what else there is meanwhile, else they do that first.
void MegakernelPlan::arrange(int blocks) {
  std::erase_if(ops_, [](const PlannedOp& planned) { return planned.op.units == 0; });
  std::ranges::stable_sort(ops_, {}, &PlannedOp::phase);
  for (auto begin = ops_.begin(); begin != ops_.end();) {
    const auto end = std::find_if(
        begin, ops_.end(), [&](const PlannedOp& planned) { return planned.phase != begin->phase; });
    std::int64_t units = 0;
    for (auto op = begin; op != end; ++op) units += op->op.units;
    const bool products_first = units <= blocks;
    std::stable_partition(begin, end, [&](const PlannedOp& planned) {
      return is_products(planned) == products_first;
    });
    begin = end;
  }
}

void MegakernelPlan::link(int blocks) {
  std::int64_t units = 0;  // since all waited for each other
  for (std::size_t i = 0; i < ops_.size(); ++i) {
    MegakernelOp& op = ops_[i].op;
    op.waits = i > 0 && ops_[i].phase != ops_[i - 1].phase;
    if (op.waits) units = 0;
    op.first = static_cast<std::int32_t>(units % blocks);
    units += op.units;
  }
}

void MegakernelPlan::ask_ahead(int blocks) {
  std::vector<ProductAhead> products;
  for (std::size_t i = 0; i < ops_.size(); ++i) {
    if (!is_products(ops_[i])) continue;
    ProductAhead ahead = ahead_of(ops_[i], blocks);
    ahead.known = known_from({ops_.begin(), ops_.begin() + static_cast<std::ptrdiff_t>(i)},
                             ahead.asked.tiles);
    ops_[i].op.known_early = ahead.known <= ops_[i].phase;
    products.push_back(ahead);
  }
  auto next = products.cbegin();
  std::vector<ProductAhead> on_their_way;
  for (PlannedOp& planned : ops_) {
    if (!planned.op.waits) continue;
    std::erase_if(on_their_way, [&](const ProductAhead& p) { return p.phase < planned.phase; });
    std::int64_t bytes = 0;
    for (const ProductAhead& p : on_their_way) bytes += p.bytes;
    for (int ask = 0; ask < MegakernelOp::kAsks; ++next) {
      if (next == products.cend() || next->known > planned.phase) break;
      if (next->phase < planned.phase) continue;
      bytes += next->bytes;
      if (bytes > kMostAsked && bytes > next->bytes) break;
      planned.op.asks[ask++] = next->asked;
      on_their_way.push_back(*next);
    }
  }
}

std::vector<MegakernelOp> MegakernelPlan::take(int blocks) {
  put_router();
  arrange(blocks);
  link(blocks);
  ask_ahead(blocks);
  std::vector<MegakernelOp> list;
  list.reserve(ops_.size());
  for (const PlannedOp& planned : ops_) list.push_back(planned.op);
  clear();
  return list;
}

}  // namespace dsm::kernels::cuda

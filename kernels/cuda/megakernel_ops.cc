#include "kernels/cuda/megakernel_ops.h"

#include <algorithm>
#include <utility>

#include "kernels/cuda/splits.h"

namespace dsm::kernels::cuda {
namespace {

constexpr std::int64_t kFloat = sizeof(float);

template <class Params>
PlannedOp op_of(MegakernelKind kind, const Params& params, std::int64_t units,
                std::vector<Touched> touched) {
  PlannedOp planned;
  planned.op.kind = kind;
  planned.op.units = static_cast<std::int32_t>(units);
  planned.op.set(params);
  planned.touched = std::move(touched);
  return planned;
}

constexpr int parts_of(int count, int each) {
  return (count + each - 1) / each;
}

Touched rows_of(const void* from, std::int64_t values, std::int64_t ld, std::int64_t rows,
                bool written = false) {
  return {from, values * kFloat, ld * kFloat, rows, written};
}
Touched read(const void* from, std::int64_t bytes) {
  return {.from = from, .bytes = bytes};
}
Touched written(const void* from, std::int64_t bytes) {
  return {.from = from, .bytes = bytes, .written = true};
}
// A layer's cache, of which operators name the same first byte.
Touched cache(const KvLayer& kv, bool is_written) {
  return {.from = kv.keys, .bytes = 1, .written = is_written};
}

void touch_sums(const Products& p, std::vector<Touched>& touched) {
  if (p.partial == nullptr) return;
  touched.push_back(written(p.partial, p.spans * p.rows * p.ld_partial * kFloat));
  touched.push_back(written(p.met, std::int64_t{p.tile_count} * p.panels * kFloat));
}

// Of one task; rows that a list names are some of a step's.
void touch_task(const Products& p, const ProductTask& task, bool normed,
                std::vector<Touched>& touched) {
  const int n = p.swiglu ? task.w.n / 2 : task.w.n;
  if (!normed) {
    touched.push_back(
        rows_of(task.x, task.w.k, p.ldx, p.token != nullptr ? kMegakernelRows : task.rows));
  }
  touched.push_back(rows_of(task.y, n, p.ldy, task.rows, true));
  if (p.residual != nullptr) touched.push_back(rows_of(p.residual, n, p.ldy, task.rows));
  if (p.weight != nullptr) touched.push_back(read(p.weight, (task.first_row + task.rows) * kFloat));
  if (task.start != nullptr) {
    touched.push_back(rows_of(task.start, p.panels * kPanel, p.lds, task.rows));
  }
}

// Slots of experts follow those that are a step's tokens.
void touch_experts(const MegakernelProducts& of, bool normed, std::vector<Touched>& touched) {
  const Products& p = of.products;
  const std::int64_t slots = p.rows;
  const int n = p.swiglu ? of.task.w.n / 2 : of.task.w.n;
  const std::int64_t first = of.task.rows;  // the first expert's
  if (of.x_step > 0) {
    touched.push_back(
        rows_of(of.task.x + first * of.x_step, of.task.w.k, of.x_step, slots - first));
  } else if (!normed) {
    touched.push_back(rows_of(of.task.x, of.task.w.k, p.ldx, kMegakernelRows));
  }
  touched.push_back(rows_of(of.task.y + first * of.y_step, n, of.y_step, slots - first, true));
  if (p.token != nullptr) touched.push_back(read(p.token + first, (slots - first) * kFloat));
  if (p.weight != nullptr) touched.push_back(read(p.weight + first, (slots - first) * kFloat));
  touched.push_back(read(of.tiles.tiles, kFewPairs * sizeof(FewTile)));
  touched.push_back(read(of.tiles.count, sizeof *of.tiles.count));
}

Touched queries_of(const AttentionLaunch& launch) {
  const AttentionParams& p = launch.params;
  return read(p.query, kMegakernelRows * kFloat * p.kv.heads * p.heads * p.kv.key_dim);
}
std::vector<Touched> sums_of(const AttentionLaunch& launch, bool is_written) {
  const std::int64_t sums = std::int64_t{launch.items} * launch.item_rows * launch.splits * kFloat;
  std::vector<Touched> touched = {read(launch.partial, sums * launch.params.kv.value_dim),
                                  read(launch.best, sums), read(launch.total, sums)};
  for (Touched& of : touched) of.written = is_written;
  return touched;
}

}  // namespace

Touched rows_of_norm(const RmsNormParams& p) {
  return rows_of(p.x, p.width, p.ldx, p.row_index != nullptr ? kMegakernelRows : p.rows);
}
Touched rows_normed(const RmsNormParams& p) {
  return rows_of(p.y, p.width, p.ldy, p.rows);
}

bool meet(const Touched& a, const Touched& b) {
  const auto begin = [](const Touched& t) { return reinterpret_cast<std::intptr_t>(t.from); };
  const auto end = [&](const Touched& t) { return begin(t) + (t.rows - 1) * t.step + t.bytes; };
  if (end(a) <= begin(b) || end(b) <= begin(a)) return false;
  // Columns, of rows that are as far apart or several times as far.
  const std::int64_t step_a = a.rows > 1 ? a.step : b.step;
  const std::int64_t step_b = b.rows > 1 ? b.step : step_a;
  const auto [step, longer] = std::minmax(step_a, step_b);
  if (step <= 0 || longer % step != 0 || a.bytes > step || b.bytes > step) return true;
  const std::int64_t apart = ((begin(b) - begin(a)) % step + step) % step;
  return apart < a.bytes || apart + b.bytes > step;
}

bool in_megakernel(const RmsNormParams& p) {
  return p.width % 4 == 0;
}

bool in_megakernel(const Products& launch, std::span<const ProductTask> tasks) {
  if (launch.fp8_rows || launch.tile_rows != kMegakernelRows ||
      launch.tile_count != static_cast<int>(tasks.size()) || tasks.size() > kMegakernelTasks) {
    return false;
  }
  const PackedMatrix& first = tasks.front().w;
  return std::ranges::all_of(tasks, [&](const ProductTask& task) {
    return task.w.dtype == DType::kBF16 && task.w.n == first.n && task.w.k == first.k &&
           task.w.scale_phase == first.scale_phase && (task.start == nullptr || tasks.size() == 1);
  });
}

bool in_megakernel(const AttentionLaunch& launch) {
  return launch.item_rows <= kMegakernelRows && launch.params.kv.key_dim <= kMegakernelKeyDim &&
         launch.params.selection.words == nullptr;
}

bool in_megakernel(const RouterParams& p) {
  return p.tokens <= kMegakernelRows && p.experts <= kFewExperts;
}

bool in_megakernel(const CombineParams& p) {
  return p.first == nullptr && combines_in_fours(p);
}

int megakernel_spans_each(int spans, int panels, int blocks) {
  int best = 1;
  int least = -1;  // spans of the block that has most
  for (int each = 1; each <= spans; ++each) {
    const int most = parts_of(panels * parts_of(spans, each), blocks) * each;
    if (least < 0 || most <= least) {
      least = most;
      best = each;
    }
  }
  return best;
}

PlannedOp norm_op(const RmsNormParams& p) {
  Touched normed = rows_normed(p);
  normed.written = true;
  return op_of(MegakernelKind::kNorm, p, p.rows, {rows_of_norm(p), normed});
}

PlannedOp products_op(const MegakernelProducts& of, std::span<const ProductTask> tasks) {
  std::vector<Touched> touched;
  const bool normed = of.norm.rows > 0;
  if (normed) touched.push_back(rows_of_norm(of.norm));
  const Products& p = of.products;
  for (const ProductTask& task : tasks) touch_task(p, task, normed, touched);
  if (of.experts.list != nullptr) touch_experts(of, normed, touched);
  touch_sums(p, touched);
  return op_of(MegakernelKind::kProducts, of,
               std::int64_t{p.tile_count} * p.panels * parts_of(p.spans, p.spans_each),
               std::move(touched));
}

PlannedOp kv_write_op(const KvWriteParams& p) {
  return op_of(MegakernelKind::kKvWrite, p, p.tokens,
               {rows_of(p.kv_a, p.kv.key_dim, p.ld, p.tokens), cache(p.kv, true)});
}

PlannedOp kv_write_heads_op(const KvWriteHeadsParams& p) {
  return op_of(MegakernelKind::kKvWriteHeads, p, std::int64_t{p.tokens} * p.kv.heads,
               {rows_of(p.k, p.kv.heads * p.kv.key_dim, p.ld, p.tokens),
                rows_of(p.v, p.kv.heads * p.kv.value_dim, p.ld, p.tokens), cache(p.kv, true)});
}

PlannedOp rope_query_op(const RopeQueryParams& p) {
  const std::int64_t rows = std::int64_t{p.tokens} * p.heads;
  std::vector<Touched> touched = {
      rows_of(p.query + p.at, 2 * p.rope.pairs, p.query_dim, rows, true)};
  for (int head = 0; head < p.heads; ++head) {
    touched.push_back(
        rows_of(p.q + std::int64_t{head} * p.head_dim + p.from, 2 * p.rope.pairs, p.ldq, p.tokens));
  }
  return op_of(MegakernelKind::kRopeQuery, p,
               parts_of(p.tokens * p.heads * p.rope.pairs, kMegakernelThreads), std::move(touched));
}

PlannedOp splits_op(const AttentionLaunch& p) {
  std::vector<Touched> touched = sums_of(p, true);
  touched.push_back(queries_of(p));
  touched.push_back(cache(p.params.kv, false));
  return op_of(MegakernelKind::kAttentionSplits, p, std::int64_t{p.items} * p.splits,
               std::move(touched));
}

PlannedOp merge_op(const AttentionLaunch& p) {
  std::vector<Touched> touched = sums_of(p, false);
  const AttentionParams& of = p.params;
  touched.push_back(
      written(of.out, kMegakernelRows * kFloat * of.kv.heads * of.heads * of.kv.value_dim));
  return op_of(
      MegakernelKind::kAttentionMerge, p,
      std::int64_t{p.items} * p.item_rows * parts_of_columns(of.kv.value_dim, kMegakernelThreads),
      std::move(touched));
}

PlannedOp route_op(const RouteTokens& of) {
  const auto& [p, groups, tiles] = of;
  const std::int64_t pairs = std::int64_t{p.tokens} * p.top_k * kFloat;
  std::vector<Touched> touched = {rows_of(p.logits, p.experts, p.ld, p.tokens),
                                  written(p.chosen, pairs), written(p.weights, pairs)};
  if (groups.tokens > 0) {
    const std::int64_t slots = std::int64_t{groups.tokens} * (1 + groups.top_k) * kFloat;
    const auto group_bytes = static_cast<std::int64_t>(sizeof *groups.groups);
    for (const Touched& list :
         {written(groups.token, slots), written(groups.weight, slots), written(groups.slot, slots),
          written(groups.groups, (1 + groups.experts) * group_bytes),
          written(tiles.tiles, kFewPairs * sizeof(FewTile)),
          written(tiles.count, sizeof *tiles.count)}) {
      touched.push_back(list);
    }
  }
  return op_of(MegakernelKind::kRoute, of, 1, std::move(touched));
}

PlannedOp combine_op(const CombineParams& p) {
  const std::int64_t slots = std::int64_t{p.tokens} * p.each;
  std::vector<Touched> touched = {rows_of(p.x, p.n, p.n, slots), read(p.slots, slots * kFloat),
                                  rows_of(p.y, p.n, p.ldy, p.tokens, true)};
  if (p.residual != nullptr) touched.push_back(rows_of(p.residual, p.n, p.ldy, p.tokens));
  return op_of(MegakernelKind::kCombine, p,
               std::int64_t{p.tokens} * parts_of_columns(p.n, kCombineThreads * kCombineColumns),
               std::move(touched));
}

PlannedOp count_move_op(const CountMove& params) {
  return op_of(MegakernelKind::kCountMove, params, 1, {});
}

}  // namespace dsm::kernels::cuda

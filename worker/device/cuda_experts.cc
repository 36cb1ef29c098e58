#include "worker/device/cuda_experts.h"

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/product_exact.h"
#include "kernels/cuda/product_plan.h"
#include "kernels/cuda/splits.h"
#include "kernels/cuda/stage_weights.h"

namespace dsm::device {

using namespace kernels;  // parameter structs

void CudaExperts::add(const PackedMatrix& w, int offset, Shape& shape) const {
  if (shape.experts == 0) {
    shape.first = w;
    shape.offset = offset;
  }
  shape.alike = shape.alike && w.n == shape.first.n && w.k == shape.first.k &&
                w.scale_phase == shape.first.scale_phase && offset == shape.offset;
  ++shape.experts;
  shape.panels = std::max(shape.panels, panels_of(w));
  shape.spans = std::max(shape.spans, cuda::spans_of(w));
  shape.stages = std::max(shape.stages, cuda::wide_stages(w));
  shape.wide = shape.wide && w.scale_phase % 4 == 0 && offset % 4 == 0;
  shape.whole = shape.whole && w.scale_phase == 0;
  shape.staged = shape.staged && (exact_ ? cuda::takes_exact(w) : cuda::takes_wide(w));
}

int CudaExperts::wide_from(DType dtype) const {
  return cuda::wide_kernel_rows(capability_, dtype, kernels_.wide_from(dtype, exact_)).from;
}

void CudaExperts::gate_up(const GateUpParams& p) {
  const GroupExpertsParams& routing = *p.routing;
  for (const DType dtype : cuda::kProductTypes) {
    Shape shape;
    for (int g = 1; g <= routing.experts; ++g) {
      if (p.w[g].dtype == dtype) add(p.w[g], 0, shape);
    }
    if (shape.experts == 0) continue;
    products({.w = lists_.put(p.w, static_cast<std::size_t>(p.group_count)),
              .dtype = dtype,
              .x = p.x,
              .x_fp8 = p.x_fp8,
              .y = p.h,
              .y_step = p.ldh},
             {.token = p.token, .ldx = p.ldx, .ldy = p.ldh, .swiglu = true, .weight = p.weight},
             routing, shape);
  }
}

void CudaExperts::row_parallel(const RowParallelParams& p, float* sums) {
  const GroupExpertsParams& routing = *p.routing;
  const std::int64_t n = p.w[0].part[0].n;
  for (const DType dtype : cuda::kProductTypes) {
    Shape shape;
    for (int g = 1; g <= routing.experts; ++g) {
      if (p.w[g].part[0].dtype == dtype) add(p.w[g].part[0], p.w[g].offset[0], shape);
    }
    if (shape.experts == 0) continue;
    products({.segmented = lists_.put(p.w, static_cast<std::size_t>(p.group_count)),
              .dtype = dtype,
              .x = p.h,
              .x_step = p.ldh,
              .x_fp8 = p.h_fp8,
              .y = sums,
              .y_step = n},
             {.ldx = p.ldh, .ldy = n}, routing, shape);
  }
}

void CudaExperts::give_plan(cuda::ExpertTasks& tasks, cuda::Products& p) {
  const std::size_t task_bytes =
      static_cast<std::size_t>(tasks.experts) * sizeof(cuda::ProductTask);
  auto* plan = static_cast<std::byte*>(plan_.at_least(
      task_bytes + static_cast<std::size_t>(tasks.tile_count) * sizeof(cuda::ProductTile),
      stream_));
  tasks.tasks = reinterpret_cast<cuda::ProductTask*>(plan);
  tasks.tiles = reinterpret_cast<cuda::ProductTile*>(plan + task_bytes);
  p.tasks = tasks.tasks;
  p.tiles = tasks.tiles;
  p.tile_count = tasks.tile_count;
  p.tile_rows = tasks.tile_rows;
}

void CudaExperts::products(cuda::ExpertTasks tasks, cuda::Products p,
                           const GroupExpertsParams& routing, const Shape& shape) {
  const int pairs = routing.tokens * routing.top_k;
  p.fp8_rows = tasks.dtype == DType::kF8E4M3 && tasks.x_fp8.values != nullptr && shape.whole;
  const int from = shape.staged && !p.fp8_rows ? wide_from(tasks.dtype) : 0;
  int wide = cuda::wide_expert_rows(from, pairs, shape.experts);
  if (exact_ && wide > 0) wide = cuda::kExactRows;
  p.panels = shape.panels;
  p.exact = exact_;
  p.wide_x = shape.wide && p.ldx % 4 == 0 && reinterpret_cast<std::uintptr_t>(tasks.x) % 16 == 0;
  p.rows = std::int64_t{routing.tokens} * (1 + routing.top_k);
  p.spans = shape.spans;
  if (wide == 0 && !p.fp8_rows && tasks.dtype == DType::kBF16 && shape.alike &&
      shape.experts == routing.experts &&
      megakernel_.expert_products(tasks, p, routing, shape.first, shape.offset)) {
    return;
  }
  tasks.groups = routing.groups;
  tasks.experts = routing.experts;
  tasks.tile_rows = wide > 0 ? wide : cuda::expert_tile_rows(pairs, shape.experts, tasks.dtype);
  tasks.tile_count = cuda::most_expert_tiles(pairs, shape.experts, tasks.tile_rows);
  give_plan(tasks, p);
  if (wide > 0 && exact_) {
    p.spans_each = cuda::exact_spans_each(p.spans, p.tile_count, p.panels, processors_);
  } else if (wide > 0) {
    p.spans = cuda::wide_parts(p.tile_count, p.panels, shape.spans, processors_);
    p.spans_each = 1;
  } else {
    p.spans_each = cuda::spans_each(p.spans, p.tile_rows, p.tile_count, p.panels, processors_);
  }
  if (p.spans_each < p.spans) span_sums_.give(p);
  lists_.send();
  cuda::expert_tasks(tasks, stream_.get());
  if (wide > 0) {
    operands_.multiply(cuda::WideProducts{
        .params = p, .stages = shape.stages, .processors = processors_, .dtype = tasks.dtype});
  } else {
    operands_.multiply(p, tasks.dtype);
  }
  check(cudaGetLastError(), "start a kernel");
}

}  // namespace dsm::device

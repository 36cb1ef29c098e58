#include "worker/device/cuda_megakernel.h"

#include <algorithm>

#include "worker/device/cuda_launch.h"

namespace dsm::device {

using namespace kernels;  // parameter structs

namespace {

constexpr std::size_t kTileBytes = cuda::kFewPairs * sizeof(cuda::FewTile);

cuda::FewTiles few_tiles(const DeviceMemory& memory) {
  auto* const bytes = static_cast<std::byte*>(memory.get());
  return {reinterpret_cast<cuda::FewTile*>(bytes),
          reinterpret_cast<std::int32_t*>(bytes + kTileBytes)};
}

}  // namespace

CudaMegakernel::CudaMegakernel(const cudaDeviceProp& gpu, bool exact, int tokens,
                               const Stream& stream, Lists& lists)
    : exact_(exact),
      tokens_(std::min(tokens, cuda::kMegakernelRows)),
      blocks_(cuda::megakernel_blocks(gpu.multiProcessorCount)),
      stream_(stream),
      lists_(lists),
      sums_{CudaSpanSums(stream), CudaSpanSums(stream), CudaSpanSums(stream)} {
  if (tokens_ == 0) return;
  barrier_ = device_memory(sizeof(std::uint32_t));
  check(cudaMemsetAsync(barrier_.get(), 0, sizeof(std::uint32_t), stream.get()), "clear memory");
  tiles_ = device_memory(kTileBytes + sizeof(std::int32_t));
  stream_.puts_first([this] { start(); });
}

CudaMegakernel::~CudaMegakernel() {
  if (tokens_ > 0) stream_.puts_first({});
}

CudaMegakernel::Opened::Opened(CudaMegakernel& megakernel, int tokens) : megakernel_(megakernel) {
  megakernel_.open_ = tokens <= megakernel_.tokens_;
  megakernel_.turn_ = 0;  // a step that is repeated has the memory that it had
}

CudaMegakernel::Opened::~Opened() {
  megakernel_.open_ = false;
  megakernel_.grouped_ = nullptr;
  megakernel_.plan_.clear();
}

bool CudaMegakernel::norm(const RmsNormParams& p) {
  if (!open_ || !cuda::in_megakernel(p)) return false;
  plan_.norm(p);
  return true;
}

bool CudaMegakernel::kv_write(const KvWriteParams& p) {
  if (!open_) return false;
  plan_.add(cuda::kv_write_op(p));
  return true;
}

bool CudaMegakernel::kv_write_heads(const KvWriteHeadsParams& p) {
  if (!open_) return false;
  plan_.add(cuda::kv_write_heads_op(p));
  return true;
}

bool CudaMegakernel::rope_query(const RopeQueryParams& p) {
  if (!open_) return false;
  plan_.add(cuda::rope_query_op(p));
  return true;
}

bool CudaMegakernel::attention(const cuda::AttentionLaunch& launch) {
  if (!open_ || !cuda::in_megakernel(launch)) return false;
  plan_.add(cuda::splits_op(launch));
  plan_.add(cuda::merge_op(launch));
  return true;
}

bool CudaMegakernel::router(const RouterParams& p) {
  if (!open_ || !cuda::in_megakernel(p)) return false;
  plan_.route(p);
  return true;
}

bool CudaMegakernel::group_experts(const GroupExpertsParams& p) {
  grouped_ = nullptr;
  if (!open_ || !cuda::in_megakernel(p) || !plan_.group(p, few_tiles(tiles_))) return false;
  grouped_ = p.groups;
  return true;
}

bool CudaMegakernel::combine(const cuda::CombineParams& p) {
  if (!open_ || !cuda::in_megakernel(p)) return false;
  plan_.add(cuda::combine_op(p));
  return true;
}

bool CudaMegakernel::count_move(const cuda::CountMove& p) {
  if (!open_) return false;
  plan_.add(cuda::count_move_op(p));
  return true;
}

void CudaMegakernel::give_sums(cuda::Products& launch) {
  launch.spans_each =
      cuda::megakernel_spans_each(launch.spans, launch.panels * launch.tile_count, blocks_);
  if (launch.spans_each < launch.spans) sums_[turn_++ % sums_.size()].give(launch);
}

bool CudaMegakernel::products(const cuda::Products& launch,
                              std::span<const cuda::ProductTask> tasks) {
  if (!open_ || !cuda::in_megakernel(launch, tasks)) return false;
  cuda::MegakernelProducts of{.products = launch, .task = tasks.front()};
  give_sums(of.products);
  plan_.products(of, tasks);
  return true;
}

bool CudaMegakernel::expert_products(const cuda::ExpertTasks& tasks, const cuda::Products& launch,
                                     const GroupExpertsParams& routing, const PackedMatrix& first,
                                     int offset) {
  if (!open_ || grouped_ == nullptr || grouped_ != routing.groups) return false;
  const cuda::ExpertWeights experts =
      tasks.segmented != nullptr
          ? cuda::ExpertWeights{reinterpret_cast<const std::byte*>(&tasks.segmented->part[0].data),
                                sizeof(SegmentedMatrix)}
          : cuda::ExpertWeights{reinterpret_cast<const std::byte*>(&tasks.w->data),
                                sizeof(PackedMatrix)};
  cuda::MegakernelProducts of{
      .products = launch,
      .task = {.w = first, .x = tasks.x + offset, .y = tasks.y, .rows = routing.tokens},
      .experts = experts,
      .tiles = few_tiles(tiles_),
      .x_step = tasks.x_step,
      .y_step = tasks.y_step};
  of.products.tile_rows = cuda::kMegakernelRows;
  of.products.tile_count = cuda::most_expert_tiles(routing.tokens * routing.top_k, routing.experts,
                                                   cuda::kMegakernelRows);
  give_sums(of.products);
  plan_.products(of, {});
  return true;
}

void CudaMegakernel::give_back_scratch() {
  for (CudaSpanSums& sums : sums_) sums.give_back();
}

void CudaMegakernel::start() {
  if (plan_.empty()) return;
  const auto ops = plan_.take(blocks_);  // sending lists comes here again
  const cuda::MegakernelLaunch p{.ops = lists_.put(ops),
                                 .count = static_cast<int>(ops.size()),
                                 .blocks = blocks_,
                                 .exact = exact_,
                                 .barrier = static_cast<std::uint32_t*>(barrier_.get())};
  launch(lists_, [&] { cuda::megakernel(p, stream_.get()); });
}

}  // namespace dsm::device

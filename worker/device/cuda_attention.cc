#include "worker/device/cuda_attention.h"

#include <algorithm>

#include "kernels/cuda/splits.h"
#include "worker/device/table_lists.h"

namespace dsm::device {

using namespace kernels;  // parameter structs

namespace {

// What the splits' parts of the output may take at a time, unless one item needs more.
constexpr std::size_t kPartBytes = std::size_t{64} << 20;

// Of packed pasts at a time: two heads of 131,072 positions with keys and values of 128.
#ifndef DSM_CUDA_PACKED_BYTES
#define DSM_CUDA_PACKED_BYTES (std::int64_t{128} << 20)
#endif
constexpr std::int64_t kPackedBytes = DSM_CUDA_PACKED_BYTES;

}  // namespace

void CudaAttention::send_tables(const AttentionParams& p, std::vector<AttentionItem>& items) {
  TableLists tables(lists_);
  for (std::size_t i = items.size(); i-- > 0;) {
    AttentionItem& item = items[i];
    item.block_table = tables.put(item.block_table, cuda::last_position(p, item) / kKvBlock + 1);
  }
}

const AttentionItem* CudaAttention::send_items(const AttentionParams& p) {
  const std::size_t bytes = static_cast<std::size_t>(p.item_count) * sizeof *p.items;
  if (const auto* there = sent_.find(p.items, bytes)) {
    return reinterpret_cast<const AttentionItem*>(there);
  }
  items_.assign(p.items, p.items + p.item_count);
  send_tables(p, items_);
  return lists_.put(items_);
}

void CudaAttention::run(const AttentionParams& params) {
  int tokens = 0;
  for (int i = 0; i < params.item_count; ++i) {
    tokens = std::max(tokens, (params.items[i].row_end - 1) / params.heads + 1);
  }
  cuda::AttentionLaunch launch{.params = params, .exact = exact_};
  launch.params.places = lists_.put(params.places, static_cast<std::size_t>(tokens));
  // Steps that are repeated are those of decoding, whose items are the lists' and not the host's.
  if (graphs_.positions() > 0) return run_splits(params, launch);
  const bool wide = packs_ && params.selection.words == nullptr &&
                    tokens * params.heads >= cuda::kPackedRows &&
                    cuda::has_wide_attention(major_, params.kv);
  // All of it whenever it might be used: so the largest steps that are tried before the cache is
  // sized take what any other may.
  void* tiles = wide ? tiles_.at_least(kPackedBytes, stream_) : nullptr;
  cuda::plan_attention(params, processors_, shared_bytes_, exact_, plan_);
  if (plan_.prompts.empty()) return run_splits(params, launch);
  AttentionParams rest = params;
  rest.items = plan_.rest.data();
  rest.item_count = static_cast<int>(plan_.rest.size());
  if (rest.item_count > 0) run_splits(rest, launch);
  if (wide) {
    cuda::plan_wide_attention(params, kPackedBytes, plan_, wide_);
    const int width = params.kv.heads * params.heads * params.kv.value_dim;
    const NextProducts next = {params.for_products, params.taken};
    const int multiple = next.rounds() ? kScaleBlock : cuda::kWideInputs;
    const bool holds = plan_.rest.empty() && plan_.prompts.empty() &&
                       params.kv.value_dim % multiple == 0 &&
                       products_.may_hold(tokens, width, next);
    cuda::WideRows to;
    cuda::WideFp8Rows to_fp8;
    if (holds && next.rounds()) {
      to_fp8 = products_.hold_hidden_fp8(params.out, tokens, width, next);
    } else if (holds) {
      to = products_.hold_hidden(params.out, tokens, width, next);
    }
    run_wide(launch, tiles, to, to_fp8);
  }
  if (!plan_.prompts.empty()) run_prompts(params, launch);
}

void CudaAttention::run_wide(const cuda::AttentionLaunch& launch, void* tiles,
                             const cuda::WideRows& to, const cuda::WideFp8Rows& to_fp8) {
  if (wide_.parts.empty()) return;
  TableLists tables(lists_);
  for (std::size_t i = wide_.pasts.size(); i-- > 0;) {
    cuda::WidePast& past = wide_.pasts[i];
    past.block_table = tables.put(past.block_table, (past.positions + kKvBlock - 1) / kKvBlock);
  }
  const auto* pasts = lists_.put(wide_.pasts);
  const auto* items = lists_.put(wide_.items);
  lists_.send();
  for (const cuda::WideAttentionPart& part : wide_.parts) {
    const cuda::WideAttention parts_launch = {.params = launch.params,
                                              .tile = wide_.tile,
                                              .pasts = pasts + part.first_past,
                                              .past_count = part.past_count,
                                              .most_tiles = part.most_tiles,
                                              .items = items + part.first_item,
                                              .item_count = part.item_count,
                                              .tiles = tiles,
                                              .to = to,
                                              .to_fp8 = to_fp8};
    cuda::pack_pasts(parts_launch, stream_.get());
    cuda::wide_attention(parts_launch, stream_.get());
    check(cudaGetLastError(), "start a kernel");
  }
}

void CudaAttention::run_prompts(const AttentionParams& p, cuda::AttentionLaunch launch) {
  launch.items = static_cast<int>(plan_.prompts.size());
  send_tables(p, plan_.prompts);
  launch.params.items = lists_.put(plan_.prompts);
  lists_.send();
  cuda::attention_of_prompts(launch, stream_.get());
  check(cudaGetLastError(), "start a kernel");
}

void CudaAttention::run_splits(const AttentionParams& p, cuda::AttentionLaunch launch) {
  for (int i = 0; i < p.item_count; ++i) {
    const AttentionItem& item = p.items[i];
    launch.item_rows = std::max(launch.item_rows, item.row_end - item.row_begin);
    launch.splits =
        std::max(launch.splits, cuda::splits_of_positions(cuda::last_position(p, item) + 1));
  }
  if (graphs_.positions() > 0) launch.splits = cuda::splits_of_positions(graphs_.positions());
  launch.params.items = send_items(p);
  // Floats of an item: its part of the output, maxima and sums.
  const auto sums =
      static_cast<std::size_t>(launch.item_rows) * static_cast<std::size_t>(launch.splits);
  const auto width = static_cast<std::size_t>(p.kv.value_dim);
  const std::size_t item_floats = sums * (width + 2);
  const auto most_items = std::clamp<std::size_t>(kPartBytes / (item_floats * sizeof(float)), 1,
                                                  static_cast<std::size_t>(p.item_count));
  launch.partial =
      static_cast<float*>(parts_.at_least(most_items * item_floats * sizeof(float), stream_));
  launch.best = launch.partial + most_items * sums * width;
  launch.total = launch.best + most_items * sums;
  const int most = static_cast<int>(most_items);
  for (int begin = 0; begin < p.item_count; begin += most) {
    launch.first_item = begin;
    launch.items = std::min(most, p.item_count - begin);
    if (megakernel_.attention(launch)) continue;
    lists_.send();
    cuda::attention(launch, stream_.get());
    check(cudaGetLastError(), "start a kernel");
  }
}

}  // namespace dsm::device

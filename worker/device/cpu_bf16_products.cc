#include "worker/device/cpu_bf16_products.h"

#include <algorithm>
#include <new>
#include <span>

namespace dsm::device {
namespace {

using namespace kernels;  // parameter structs

constexpr std::align_val_t kAlignment{64};
// Operands that there are at a time (16 MiB), if one chunk's are not more.
constexpr std::int64_t kMostOperands = 8 << 20;
constexpr int kFewestRows = 64;  // of a chunk that is not a group's last
constexpr int kPackedTiles = 4;  // of a work item
constexpr int kPackItems = kItemRows / kTileRows / kPackedTiles;

// From how many rows of a group on average it pays. Weights that become BF16 on their way are more
// work than few rows are: on a Xeon 8 rows by 8192 x 4096 took 7.2 ms in BF16 (the table 10.6) and
// 8.4 in FP8 (9.3). Fewer rows by integers are integers (cpu_integer_products.h): a step of 64 took
// two thirds of the time, one of 512 half as much again.
constexpr int from_rows(DType dtype) {
  if (is_integer(dtype)) return 192;
  return dtype == DType::kBF16 ? 4 : 8;
}
bool pays(const PackedMatrix& w, int rows, int groups) {
  return takes_bf16_rows(w.dtype) && rows >= from_rows(w.dtype) * groups;
}

// Of attention. A cache in BF16 is read as it stands; one in FP32 becomes BF16 on its way.
constexpr int attended_from(DType dtype) {
  return dtype == DType::kBF16 ? 4 : 12;
}

// From so many rows on what gate_up gives is kept.
constexpr int kKeptRows = 16;

int rows_of(const Group& group) {
  return group.end - group.begin;
}

}  // namespace

void CpuBf16Products::Operands::Free::operator()(std::uint16_t* memory) const {
  ::operator delete[](memory, kAlignment);
}

std::uint16_t* CpuBf16Products::Operands::take(std::int64_t count) {
  if (count > count_) {
    memory_.reset();  // before there are more
    memory_.reset(new (kAlignment) std::uint16_t[static_cast<std::size_t>(count)]);
    count_ = count;
  }
  return memory_.get();
}

void CpuBf16Products::add_chunks(int which, int begin, int end, int steps, int rows_each) {
  for (; begin < end; begin += rows_each) {
    chunks_.push_back({which, begin, std::min(end, begin + rows_each), {.steps = steps}});
  }
}

int CpuBf16Products::rows_each(int rows, int groups, int panels) const {
  int each = kItemRows;
  while (each > kFewestRows && panels * groups * (rows / groups / each + 1) < 2 * pool_.threads()) {
    each /= 2;
  }
  return each;
}

std::size_t CpuBf16Products::take(std::size_t first) {
  const auto count_of = [](const Chunk& chunk) {
    return operands_of(tiles_of(chunk.end - chunk.begin), chunk.rows.steps);
  };
  std::int64_t count = count_of(chunks_[first]);
  std::size_t end = first + 1;
  while (end < chunks_.size() && count + count_of(chunks_[end]) <= kMostOperands) {
    count += count_of(chunks_[end++]);
  }
  std::uint16_t* at = operands_.take(count);
  for (std::size_t i = first; i < end; ++i) {
    chunks_[i].rows.data = at;
    at += count_of(chunks_[i]);
  }
  return end;
}

void CpuBf16Products::run(const Work& work) {
  if (work.made.data != nullptr) {
    for (Chunk& chunk : chunks_) chunk.rows.data = work.made.tile(chunk.begin / kTileRows);
    return multiply(work, chunks_);
  }
  std::size_t end = 0;
  for (std::size_t first = 0; first < chunks_.size(); first = end) {
    end = take(first);
    const std::span some(chunks_.data() + first, end - first);
    pool_.run(static_cast<int>(some.size()) * kPackItems, [&](int item) {
      const Chunk& chunk = some[static_cast<std::size_t>(item / kPackItems)];
      const int tile = item % kPackItems * kPackedTiles;
      const int tiles = tiles_of(chunk.end - chunk.begin);
      if (tile < tiles) ops_.pack(work.rows(chunk), tile, std::min(tiles, tile + kPackedTiles));
    });
    multiply(work, some);
  }
}

void CpuBf16Products::multiply(const Work& work, std::span<const Chunk> chunks) {
  // As many panels side by side as leave each thread several items, so that none waits long for
  // the others. Neighbouring items share weights.
  const int beside = work.in_turn ? 1 : static_cast<int>(chunks.size());
  const int each = std::clamp(work.panels * beside / (4 * pool_.threads()), 1, kItemPanels);
  const int parts = (work.panels + each - 1) / each;
  pool_.run(parts * beside, [&](int item) {
    const int panel = item / beside * each;
    const int panel_end = std::min(work.panels, panel + each);
    if (!work.in_turn) {
      return work.multiply(chunks[static_cast<std::size_t>(item % beside)], panel, panel_end);
    }
    for (const Chunk& chunk : chunks) work.multiply(chunk, panel, panel_end);
  });
}

OperandRows CpuBf16Products::keep(const GateUpParams& p, int panels) {
  const int rows = p.group_count == 1 ? p.groups[0].end : 0;
  const std::int64_t count = operands_of(tiles_of(rows), panels);
  // row_parallel takes them by weights of any type that for_products stands for.
  const bool taken = rows >= kKeptRows && p.groups[0].begin == 0 && count <= kMostOperands;
  if (p.for_products != 1 || p.taken != RowsTaken::kAsTheyAre || !taken) return {};
  kept_ = {p.h, rows, {kept_memory_.take(count), panels}};
  return kept_.operands;
}

OperandRows CpuBf16Products::in_segments(const Kept& kept, const SegmentedMatrix& w) {
  const OperandRows& from = kept.operands;
  bool as_they_are = true;
  for (int s = 0, step = 0; s < w.count; step += steps_of(w.part[s++].k)) {
    as_they_are = as_they_are && w.offset[s] == step * kStepInputs;
  }
  if (as_they_are && steps_of(w) == from.steps) return from;
  const int tiles = tiles_of(kept.rows);
  const OperandRows to{operands_.take(operands_of(tiles, steps_of(w))), steps_of(w)};
  const auto place = [](const OperandRows& rows, int tile, int row, int input) {
    return rows.tile(tile) + operands_of(1, input / kStepInputs) + row * kStepInputs +
           input % kStepInputs;
  };
  pool_.run(tiles, [&](int tile) {
    std::fill_n(to.tile(tile), operands_of(1, to.steps), std::uint16_t{0});
    for (int row = 0; row < kTileRows; ++row) {
      for (int s = 0, begin = 0; s < w.count; begin += steps_of(w.part[s++].k) * kStepInputs) {
        for (int i = 0; i < w.part[s].k; ++i) {
          *place(to, tile, row, begin + i) = *place(from, tile, row, w.offset[s] + i);
        }
      }
    }
  });
  return to;
}

bool CpuBf16Products::linear(const LinearParams& p) {
  if (!pays(p.w[0], p.rows, 1)) return false;
  chunks_.clear();
  const int each = rows_each(p.rows * p.batch, p.batch, panels_of(p.w[0]));
  for (int b = 0; b < p.batch; ++b) add_chunks(b, 0, p.rows, steps_of(p.w[0].k), each);
  run({.rows =
           [&](const Chunk& chunk) {
             return RowsToPack{.x = p.x + chunk.which * p.x_step + chunk.begin * p.ldx,
                               .ldx = p.ldx,
                               .rows = chunk.end - chunk.begin,
                               .k = p.w[0].k,
                               .to = chunk.rows};
           },
       .multiply =
           [&](const Chunk& chunk, int panel_begin, int panel_end) {
             ops_.linear(p, chunk.which, chunk.rows, chunk.begin, chunk.end, panel_begin,
                         panel_end);
           },
       .panels = panels_of(p.w[0])});
  return true;
}

bool CpuBf16Products::gate_up(const GateUpParams& p) {
  kept_ = {};
  chunks_.clear();
  int slots = 0;
  int groups = 0;
  int panels = 0;
  for (int g = 0; g < p.group_count; ++g) {
    if (rows_of(p.groups[g]) == 0) continue;
    slots += rows_of(p.groups[g]);
    ++groups;
    panels = std::max(panels, panels_of(p.w[g]));
  }
  if (groups == 0) return false;
  const int each = rows_each(slots, groups, panels);
  for (int g = 0; g < p.group_count; ++g) {
    add_chunks(g, p.groups[g].begin, p.groups[g].end, steps_of(p.w[g].k), each);
  }
  const bool taken = std::ranges::all_of(
      chunks_, [&](const Chunk& chunk) { return pays(p.w[chunk.which], slots, groups); });
  if (!taken) return false;
  const OperandRows kept = keep(p, panels);
  run({.rows =
           [&](const Chunk& chunk) {
             return RowsToPack{.x = p.x,
                               .ldx = p.ldx,
                               .index = p.token + chunk.begin,
                               .rows = chunk.end - chunk.begin,
                               .k = p.w[chunk.which].k,
                               .to = chunk.rows};
           },
       .multiply =
           [&](const Chunk& chunk, int panel_begin, int panel_end) {
             const int end = std::min(panel_end, panels_of(p.w[chunk.which]));
             if (panel_begin >= end) return;
             ops_.gate_up(p, chunk.which, chunk.rows, chunk.begin, chunk.end, panel_begin, end,
                          kept);
           },
       .panels = panels});
  return true;
}

bool CpuBf16Products::row_parallel(const RowParallelParams& p) {
  if (p.adapter_count > 0) return false;
  chunks_.clear();
  int slots = 0;
  int groups = 0;
  for (int g = 0; g < p.group_count; ++g) {
    if (rows_of(p.groups[g]) == 0) continue;
    slots += rows_of(p.groups[g]);
    ++groups;
  }
  if (groups == 0) return false;
  // Chunks of several groups are not side by side: they add to the same sums.
  const int each = groups > 1 ? kItemRows : rows_each(slots, 1, panels_of(p.w[0].part[0]));
  for (int g = 0; g < p.group_count; ++g) {
    add_chunks(g, p.groups[g].begin, p.groups[g].end, steps_of(p.w[g]), each);
  }
  const bool taken = std::ranges::all_of(chunks_, [&](const Chunk& chunk) {
    const SegmentedMatrix& w = p.w[chunk.which];
    return std::all_of(w.part, w.part + w.count,
                       [&](const PackedMatrix& part) { return pays(part, slots, groups); });
  });
  // Kept rows are nowhere else.
  const bool kept = kept_.of != nullptr && p.h == kept_.of;
  if (!taken && !kept) return false;
  OperandRows made;
  if (kept) made = in_segments(kept_, p.w[0]);
  kept_ = {};
  run({.rows =
           [&](const Chunk& chunk) {
             return RowsToPack{.x = p.h + chunk.begin * p.ldh,
                               .ldx = p.ldh,
                               .rows = chunk.end - chunk.begin,
                               .segments = &p.w[chunk.which],
                               .to = chunk.rows};
           },
       .multiply =
           [&](const Chunk& chunk, int panel_begin, int panel_end) {
             ops_.row_parallel(p, chunk.which, chunk.rows, chunk.begin, chunk.end, panel_begin,
                               panel_end);
           },
       .panels = panels_of(p.w[0].part[0]),
       .in_turn = groups > 1,
       .made = made});
  return true;
}

std::span<const CpuBf16Products::Attended> CpuBf16Products::attended(const AttentionParams& p) {
  attended_.clear();
  const bool takes = takes_bf16_rows(p.kv);
  for (int first = 0; first < p.item_count;) {
    const AttentionItem& begin = p.items[first];
    int end = first + 1;
    const auto fits = [&] {
      const AttentionItem& item = p.items[end];
      return item.block_table == begin.block_table && item.kv_head == begin.kv_head &&
             item.row_begin == p.items[end - 1].row_end &&
             item.row_end - begin.row_begin <= kAttendedRows;
    };
    while (takes && end < p.item_count && fits()) ++end;
    if (takes && p.items[end - 1].row_end - begin.row_begin >= attended_from(p.kv.dtype)) {
      attended_.push_back({first, end - first, true});
      first = end;
    } else {
      for (; first < end; ++first) attended_.push_back({first, 1, false});
    }
  }
  return attended_;
}

}  // namespace dsm::device

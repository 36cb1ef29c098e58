#include "worker/device/cpu_integer_products.h"

#include <algorithm>
#include <new>

namespace dsm::device {
namespace {

using namespace kernels;  // parameter structs

constexpr std::align_val_t kAlignment{64};
// Bytes of rows as integers that there are at a time, if those of one block of rows are not more.
constexpr std::int64_t kMostBytes = 16 << 20;
// Panels of a work item at most: what it reads of rows stays in the second-level cache for them.
constexpr int kItemPanels = 4;
// Inputs that the caller alone makes integers of, and multiply-adds that it does alone.
constexpr std::int64_t kForkInputs = 1 << 14;
constexpr std::int64_t kForkWork = 1 << 17;

int blocks_of(int rows) {
  return (rows + kRowBlock - 1) / kRowBlock;
}

// Of rows that are multiplied by some weights in integers; else 0.
int made_pieces(const PackedMatrix& w) {
  return is_integer(w.dtype) ? pieces_of(w) : 0;
}
int made_pieces(const SegmentedMatrix& w) {
  const bool some = std::any_of(w.part, w.part + w.count,
                                [](const PackedMatrix& part) { return is_integer(part.dtype); });
  return some ? pieces_of(w) : 0;
}

// Rows of so many bytes each that are made at a time: whole blocks.
int rows_at_once(std::int64_t bytes_each) {
  const std::int64_t most = kMostBytes / std::max<std::int64_t>(bytes_each, 1);
  return static_cast<int>(std::clamp<std::int64_t>(most / kRowBlock, 1, 1 << 14)) * kRowBlock;
}

}  // namespace

void CpuIntegerProducts::Free::operator()(std::byte* memory) const {
  ::operator delete[](memory, kAlignment);
}

template <class Work>
void CpuIntegerProducts::run(bool fork, int items, const Work& work) {
  if (fork) {
    pool_.run(items, work);
  } else {
    for (int item = 0; item < items; ++item) work(item);
  }
}

template <class Describe>
void CpuIntegerProducts::make(const Describe& describe) {
  constexpr int kItem = kMostTogether;
  // None where weights are of another type.
  const auto rows_of = [](const Rows& rows) { return rows.pieces > 0 ? rows.end - rows.begin : 0; };
  std::int64_t bytes = 0;
  std::size_t factors = 0;
  std::int64_t inputs = 0;
  int items = 0;
  made_.clear();
  for (const Rows& rows : rows_) {
    const int count = rows_of(rows);
    made_.push_back({.pieces = rows.pieces, .together = rows_together(count), .first = rows.begin});
    bytes += round_up(count, made_.back().together) * rows.pieces * kPieceBytes;
    factors += static_cast<std::size_t>(count) * static_cast<std::size_t>(rows.pieces);
    inputs += std::int64_t{count} * rows.pieces * kScaleBlock;
    items += (count + kItem - 1) / kItem;
  }
  if (bytes > bytes_) {
    numbers_.reset();  // before there are more
    numbers_.reset(new (kAlignment) std::byte[static_cast<std::size_t>(bytes)]);
    bytes_ = bytes;
  }
  if (factors > factors_.size()) factors_.resize(factors);
  std::byte* numbers = numbers_.get();
  PieceFactor* factor = factors_.data();
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    IntegerRows& made = made_[i];
    made.numbers = numbers;
    made.factors = factor;
    const int count = rows_of(rows_[i]);
    numbers += round_up(count, made.together) * made.pieces * kPieceBytes;
    factor += std::int64_t{count} * made.pieces;
  }
  run(inputs >= kForkInputs, items, [&](int item) {
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      const int count = rows_of(rows_[i]);
      const int here = (count + kItem - 1) / kItem;
      if (item < here) {
        RowsToIntegers rows = describe(rows_[i]);
        rows.rows = count;
        rows.to = made_[i];
        return ops_.make(rows, item * kItem, std::min(count, (item + 1) * kItem));
      }
      item -= here;
    }
  });
}

int CpuIntegerProducts::panels_each(int panels, int blocks) const {
  if (blocks < 2) return 1;
  return std::clamp(panels * blocks / (4 * pool_.threads()), 1, kItemPanels);
}

int CpuIntegerProducts::apart(int number, int items) const {
  const int each = items / pool_.threads();
  if (number >= each * pool_.threads()) return number;
  return number % pool_.threads() * each + number / pool_.threads();
}

void CpuIntegerProducts::slots_of(std::span<const Group> groups, const std::int32_t* token,
                                  int begin, int end) {
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const std::int32_t* const first = token + groups[g].begin;
    const std::int32_t* const last = token + groups[g].end;
    rows_[g].begin = static_cast<int>(std::lower_bound(first, last, begin) - token);
    rows_[g].end = static_cast<int>(std::lower_bound(first, last, end) - token);
  }
}

bool CpuIntegerProducts::linear(const LinearParams& p) {
  for (int b = 0; b < p.batch; ++b) {
    if (!is_integer(p.w[b].dtype)) return false;
  }
  rows_.clear();
  std::int64_t bytes_each = 0;
  for (int b = 0; b < p.batch; ++b) {
    rows_.push_back({.which = b, .pieces = pieces_of(p.w[b])});
    bytes_each += std::int64_t{rows_.back().pieces} * kPieceBytes;
  }
  const int at_once = rows_at_once(bytes_each);
  const int panels = panels_of(p.w[0]);
  for (int begin = 0; begin < p.rows; begin += at_once) {
    const int end = std::min(p.rows, begin + at_once);
    for (Rows& rows : rows_) {
      rows.begin = begin;
      rows.end = end;
    }
    make([&](const Rows& rows) {
      return RowsToIntegers{.x = p.x + rows.which * p.x_step + begin * p.ldx,
                            .ldx = p.ldx,
                            .matrix = &p.w[rows.which]};
    });
    const int blocks = blocks_of(end - begin);
    const int each = panels_each(panels * p.batch, blocks);
    const int parts = (panels + each - 1) / each;
    const std::int64_t work = std::int64_t{end - begin} * p.batch * p.w[0].n * p.w[0].k;
    // Neighbouring items share weights.
    run(work >= kForkWork, blocks * parts * p.batch, [&](int item) {
      const int b = item / blocks / parts;
      const int part = apart(item / blocks % parts, parts);
      const int row = begin + item % blocks * kRowBlock;
      for (int panel = part * each; panel < std::min(panels, (part + 1) * each); ++panel) {
        ops_.linear(p, b, made_[static_cast<std::size_t>(b)], row, std::min(end, row + kRowBlock),
                    panel);
      }
    });
  }
  return true;
}

bool CpuIntegerProducts::gate_up(const GateUpParams& p) {
  rows_.clear();
  std::int64_t bytes = 0;
  int tokens = 0;
  for (int g = 0; g < p.group_count; ++g) {
    const int slots = p.groups[g].end - p.groups[g].begin;
    rows_.push_back({.which = g});
    if (slots == 0) continue;
    rows_.back().pieces = made_pieces(p.w[g]);
    bytes += std::int64_t{slots} * rows_.back().pieces * kPieceBytes;
    tokens = std::max(tokens, p.token[p.groups[g].end - 1] + 1);
  }
  if (bytes == 0) return false;
  const int at_once = rows_at_once(bytes / tokens);
  for (int begin = 0; begin < tokens; begin += at_once) {
    slots_of({p.groups, static_cast<std::size_t>(p.group_count)}, p.token, begin,
             std::min(tokens, begin + at_once));
    make([&](const Rows& rows) {
      return RowsToIntegers{
          .x = p.x, .ldx = p.ldx, .index = p.token + rows.begin, .matrix = &p.w[rows.which]};
    });
    int panels = 0;
    std::int64_t work = 0;
    for (const Rows& rows : rows_) {
      if (rows.begin == rows.end) continue;
      panels += panels_of(p.w[rows.which]);
      work += std::int64_t{rows.end - rows.begin} * p.w[rows.which].n * p.w[rows.which].k;
    }
    const int each = panels_each(panels, blocks_of(rows_.front().end - rows_.front().begin));
    int items = 0;
    for (const Rows& rows : rows_) {
      if (rows.begin < rows.end) items += (panels_of(p.w[rows.which]) + each - 1) / each;
    }
    run(work >= kForkWork, items, [&](int item) {
      for (const Rows& rows : rows_) {
        if (rows.begin == rows.end) continue;
        const int parts = (panels_of(p.w[rows.which]) + each - 1) / each;
        if (item < parts) return multiply(p, rows, apart(item, parts) * each, each);
        item -= parts;
      }
    });
  }
  return true;
}

void CpuIntegerProducts::multiply(const GateUpParams& p, const Rows& rows, int panel,
                                  int count) const {
  const int end = std::min(panels_of(p.w[rows.which]), panel + count);
  for (int slot = rows.begin; slot < rows.end; slot += kRowBlock) {
    for (int i = panel; i < end; ++i) {
      ops_.gate_up(p, rows.which, made_[static_cast<std::size_t>(rows.which)], slot,
                   std::min(rows.end, slot + kRowBlock), i);
    }
  }
}

bool CpuIntegerProducts::row_parallel(const RowParallelParams& p) {
  rows_.clear();
  std::int64_t bytes = 0;
  for (int g = 0; g < p.group_count; ++g) {
    const int slots = p.groups[g].end - p.groups[g].begin;
    rows_.push_back({.which = g});
    if (slots == 0) continue;
    rows_.back().pieces = made_pieces(p.w[g]);
    bytes += std::int64_t{slots} * rows_.back().pieces * kPieceBytes;
  }
  if (bytes == 0) return false;
  const int at_once = rows_at_once(bytes / p.tokens);
  const int panels = panels_of(p.w[0].part[0]);
  for (int begin = 0; begin < p.tokens; begin += at_once) {
    const int end = std::min(p.tokens, begin + at_once);
    slots_of({p.groups, static_cast<std::size_t>(p.group_count)}, p.token, begin, end);
    make([&](const Rows& rows) {
      return RowsToIntegers{
          .x = p.h + rows.begin * p.ldh, .ldx = p.ldh, .segments = &p.w[rows.which]};
    });
    std::int64_t work = 0;
    for (const Rows& rows : rows_) {
      const std::int64_t pieces = pieces_of(p.w[rows.which]);
      work += std::int64_t{rows.end - rows.begin} * pieces * kScaleBlock * panels * kPanel;
    }
    const int blocks = blocks_of(end - begin);
    const int each = panels_each(panels, blocks);
    const int parts = (panels + each - 1) / each;
    run(work >= kForkWork, blocks * parts, [&](int item) {
      const int token = begin + item % blocks * kRowBlock;
      const int part = apart(item / blocks, parts);
      for (int panel = part * each; panel < std::min(panels, (part + 1) * each); ++panel) {
        ops_.row_parallel(p, made_.data(), token, std::min(end, token + kRowBlock), panel);
      }
    });
  }
  return true;
}

}  // namespace dsm::device

#include "worker/text/bpe.h"

#include <algorithm>
#include <bit>

namespace dsm::text {
namespace {

// Ids are not negative, so a key with all bits set stands for an empty slot.
constexpr std::uint64_t kEmpty = ~0ULL;

std::uint64_t key_of(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
         static_cast<std::uint32_t>(right);
}

// For std::push_heap, which keeps the greatest in front: the lowest rank, then the leftmost.
bool comes_later(const Bpe::Scratch::Candidate& a, const Bpe::Scratch::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.pos > b.pos;
}

}  // namespace

MergeTable::MergeTable(std::size_t size)
    : slots_(std::bit_ceil(size * 2 + 2), Slot{kEmpty, Merge{}}) {}

std::size_t MergeTable::slot_of(std::uint64_t key) const {
  std::size_t mask = slots_.size() - 1;
  std::size_t at = (key * 0x9E3779B97F4A7C15ULL >> 20) & mask;  // Fibonacci hashing
  while (slots_[at].key != key && slots_[at].key != kEmpty) at = (at + 1) & mask;
  return at;
}

void MergeTable::put(std::int32_t left, std::int32_t right, Merge merge) {
  std::uint64_t key = key_of(left, right);
  slots_[slot_of(key)] = Slot{key, merge};
}

MergeTable::Merge MergeTable::find(std::int32_t left, std::int32_t right) const {
  return slots_[slot_of(key_of(left, right))].merge;
}

void Bpe::encode(std::string_view piece, Scratch& scratch, std::vector<std::int32_t>& out) const {
  if (ignore_merges) {
    if (auto whole = tokens.find(piece); whole != tokens.end()) {
      out.push_back(whole->second);
      return;
    }
  }
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  symbols.clear();
  heap.clear();
  for (char c : piece) {
    std::int32_t id = byte_ids[static_cast<unsigned char>(c)];
    if (id < 0) continue;
    auto at = static_cast<std::int32_t>(symbols.size());
    symbols.push_back({id, at - 1, at + 1});
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;

  auto count = static_cast<std::int32_t>(symbols.size());
  for (std::int32_t i = 0; i + 1 < count; ++i) {
    MergeTable::Merge merge = merges.find(symbols[i].id, symbols[i + 1].id);
    if (merge.rank >= 0) heap.push_back({merge.rank, i, merge.id});
  }
  std::make_heap(heap.begin(), heap.end(), comes_later);

  auto consider = [&](std::int32_t pos, std::int32_t next) {
    MergeTable::Merge merge = merges.find(symbols[pos].id, symbols[next].id);
    if (merge.rank < 0) return;
    heap.push_back({merge.rank, pos, merge.id});
    std::push_heap(heap.begin(), heap.end(), comes_later);
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), comes_later);
    Scratch::Candidate top = heap.back();
    heap.pop_back();
    Scratch::Symbol& left = symbols[top.pos];
    // Stale: this symbol was merged into another, or its pair is a different one by now. HF asks
    // only whether the pair still becomes the same token, and so do we.
    if (left.id < 0 || left.next < 0) continue;
    Scratch::Symbol& right = symbols[left.next];
    if (merges.find(left.id, right.id).id != top.id) continue;
    left.id = top.id;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) symbols[left.next].prev = top.pos;
    if (left.prev >= 0) consider(left.prev, top.pos);
    if (left.next >= 0) consider(top.pos, left.next);
  }
  for (std::int32_t i = 0; i >= 0; i = symbols[i].next) out.push_back(symbols[i].id);
}

}  // namespace dsm::text

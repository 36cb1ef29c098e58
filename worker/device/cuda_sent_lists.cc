#include "worker/device/cuda_sent_lists.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace dsm::device {
namespace {

// Of the first buffer: lists of a step of a few hundred sequences.
constexpr std::size_t kRoom = std::size_t{1} << 20;
constexpr std::size_t kAlignment = 16;

constexpr std::size_t aligned(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

SentLists::SentLists(const Stream& stream) : stream_(stream) {
  make_room(kRoom);
}

void SentLists::keep(List list, DeviceArena& arena) {
  if (list.bytes == 0) return;
  void* to = arena.allocate(list.bytes, stream_);
  check(cudaMemcpyAsync(to, list.data, list.bytes, cudaMemcpyHostToDevice, stream_.get()),
        "copy a list");
  stream_.wait();
  const Sent sent{static_cast<const std::byte*>(list.data), list.bytes,
                  static_cast<const std::byte*>(to)};
  kept_.insert(std::ranges::upper_bound(kept_, sent.host, {}, &Sent::host), sent);
}

void SentLists::make_room(std::size_t bytes) {
  if (bytes <= room_) return;
  stream_.wait();
  stream_.memory_moves();
  stream_.let_go(std::move(host_));
  let_go(std::move(device_), stream_);
  host_ = host_memory(bytes);
  device_ = device_memory(bytes, stream_);
  room_ = bytes;
}

std::byte* SentLists::take(const void* host, std::size_t bytes) {
  staged_.push_back({static_cast<const std::byte*>(host), bytes,
                     static_cast<const std::byte*>(device_.get()) + used_});
  sizes_.push_back(bytes);
  std::byte* to = static_cast<std::byte*>(host_.get()) + used_;
  used_ += aligned(bytes);
  return to;
}

void SentLists::stage(std::span<const List> lists, std::span<const kernels::AttentionItem> items) {
  std::size_t needed = aligned(items.size_bytes());
  for (const List& list : lists) needed += aligned(list.bytes);
  if (needed > room_) make_room(std::max(needed, 2 * room_));
  copied_.wait();  // the last lists have left
  staged_.clear();
  sizes_.clear();
  used_ = 0;
  kernels::AttentionItem* to = nullptr;
  if (!items.empty()) {
    to = reinterpret_cast<kernels::AttentionItem*>(take(items.data(), items.size_bytes()));
  }
  for (const List& list : lists) {
    if (list.bytes > 0) std::memcpy(take(list.data, list.bytes), list.data, list.bytes);
  }
  if (used_ == 0) return;
  std::ranges::sort(staged_, {}, &Sent::host);  // for find()
  for (std::size_t i = 0; i < items.size(); ++i) {
    to[i] = items[i];
    const std::byte* table = find(items[i].block_table, sizeof *items[i].block_table);
    if (table == nullptr) throw std::logic_error("stage: an item's block table is not a list");
    to[i].block_table = reinterpret_cast<const std::int32_t*>(table);
  }
  check(cudaMemcpyAsync(device_.get(), host_.get(), used_, cudaMemcpyHostToDevice, stream_.get()),
        "copy a step's lists");
  copied_.record(stream_);
}

const std::byte* SentLists::find(const std::vector<Sent>& sent, const std::byte* from,
                                 std::size_t bytes) {
  const auto after = std::ranges::upper_bound(sent, from, {}, &Sent::host);
  if (after == sent.begin()) return nullptr;
  const Sent& list = *std::prev(after);
  const auto at = static_cast<std::size_t>(from - list.host);
  return at + bytes <= list.bytes ? list.device + at : nullptr;
}

const std::byte* SentLists::find(const void* from, std::size_t bytes) const {
  const auto* first = static_cast<const std::byte*>(from);
  const std::byte* staged = find(staged_, first, bytes);
  return staged != nullptr ? staged : find(kept_, first, bytes);
}

}  // namespace dsm::device

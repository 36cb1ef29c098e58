#include "worker/device/arena_plan.h"

#include <algorithm>

namespace dsm::device {
namespace {

constexpr std::size_t kAlignment = 256;
// What a GPU's memory is handed out in: the rest of an allocation's last one is nobody else's.
constexpr std::size_t kUnit = std::size_t{2} << 20;
// Chunks are a 128th of all of them: the last one, which may stay empty, is then little.
constexpr std::size_t kChunksOfAll = 128;
// A piece that leaves no more than a 64th of its units free shares with nobody.
constexpr std::size_t kFullEnough = 64;

constexpr std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (std::max<std::size_t>(bytes, 1) + unit - 1) / unit * unit;
}

}  // namespace

std::optional<ArenaPlan::Place> ArenaPlan::take(std::size_t bytes) {
  bytes = round_up(bytes, kAlignment);
  const auto found = free_ends_.lower_bound(bytes);
  if (found == free_ends_.end()) return std::nullopt;
  const auto [size, place] = *found;
  free_ends_.erase(found);
  free_ -= bytes;
  if (size > bytes) free_ends_.emplace(size - bytes, Place{place.chunk, place.offset + bytes});
  return place;
}

std::size_t ArenaPlan::chunk_for(std::size_t bytes) const {
  bytes = round_up(bytes, kAlignment);
  if (chunk_ == 0) return bytes;
  const std::size_t shared = round_up(std::max(chunk_, all_ / kChunksOfAll), kUnit);
  const std::size_t own = round_up(bytes, kUnit);
  const bool fills_it = bytes >= chunk_ / 2 && (own - bytes) * kFullEnough <= bytes;
  return bytes > shared / 2 || fills_it ? own : shared;
}

void ArenaPlan::add(std::size_t chunk) {
  all_ += chunk;
  free_ += chunk;
  free_ends_.emplace(chunk, Place{count_++, 0});
}

}  // namespace dsm::device

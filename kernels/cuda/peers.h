// Ranks whose GPUs write into each other's memory. A rank puts values into places in the others'
// memory and takes theirs out of its own; a place is empty or has a value, so the values themselves
// say that they are there, and nothing crosses the links but them.
//
// All ranks make the same calls in the same order, each with a kernel or several (all_reduce.h,
// peer_columns.h). In every call every rank hears from every other: so it knows that they have left
// the call before.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/params.h"

namespace dsm::kernels::cuda {

// A rank's places: kPeerPlaces for each of two calls in turn. A rank that is in a call has seen all
// others in the one before it, so they have left the one before that, whose places it uses.
inline constexpr std::int64_t kPeerPlaces = std::int64_t{1} << 20;
inline constexpr std::size_t kPeerBytes = 2 * kPeerPlaces * sizeof(float);
// Every byte of a place that is empty: as a number one of the NaNs that no operation gives.
inline constexpr int kEmptyByte = 0xff;

// Of a rank, in its GPU's memory; zero at first.
struct PeerState {
  std::uint32_t calls;   // that are done
  std::uint32_t blocks;  // of the call in work that are done
  std::uint32_t lost;    // not 0: some rank's values have not come
};

// Nothing in it changes from call to call, so calls can be recorded in a graph.
struct PeerParams {
  int rank = 0;
  int ranks = 0;                  // 2 .. kSegments
  float* places[kSegments] = {};  // of each rank, kPeerBytes
  float* own = nullptr;           // of this one
  PeerState* state = nullptr;
  // Of the host. Not 0: the ranks are lost, nobody is waited for any more; the host says so, or a
  // kernel that has waited for longer than `patience_ns`.
  std::uint32_t* lost = nullptr;
  std::int64_t patience_ns = 0;
};

}  // namespace dsm::kernels::cuda

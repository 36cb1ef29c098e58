// Sums over ranks whose GPUs write into each other's memory. A rank puts its values into places in
// the others' memory and takes theirs out of its own; a place is empty or has a value, so the
// values themselves say that they are there, and nothing crosses the links but them.
//
//   one shot    every rank sends all of its values to every other: one way across the links
//   two shots   every rank adds a part, and sends the others its sum: two ways, and of the traffic
//               2 / ranks
//
// Both add in the order of tree_sum(): the same bits on all ranks, and as tree_sum() of all ranks'
// values.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/launch.h"
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

struct AllReduceParams {
  const float* mine = nullptr;  // [count] aligned to 16 bytes
  float* y = nullptr;      // [count] likewise; the sum is added to it, NaN where ranks are lost
  std::int64_t count = 0;  // multiple of 4
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
// Before the first call: what is loaded when it is first used may have to wait for kernels that
// run, and these wait for each other.
void load_all_reduce();
// Collective, with the same count on all ranks; nothing in the parameters changes from call to
// call, so they can be recorded in a graph.
void all_reduce_one_shot(const AllReduceParams& params, Stream stream);
void all_reduce_two_shot(const AllReduceParams& params, Stream stream);

}  // namespace dsm::kernels::cuda

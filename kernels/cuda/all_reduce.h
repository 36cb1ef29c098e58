// Sums over ranks whose GPUs write into each other's memory (peers.h).
//
//   one shot    every rank sends all of its values to every other: one way across the links
//   two shots   every rank adds a part, and sends the others its sum: two ways, and of the traffic
//               2 / ranks
//
// Both add in the order of tree_sum(): the same bits on all ranks, and as tree_sum() of all ranks'
// values.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/peers.h"

namespace dsm::kernels::cuda {

struct AllReduceParams {
  const float* mine = nullptr;  // [count] aligned to 16 bytes
  float* y = nullptr;      // [count] likewise; the sum is added to it, NaN where ranks are lost
  std::int64_t count = 0;  // multiple of 4
  PeerParams peers;
};
// Before the first call: what is loaded when it is first used may have to wait for kernels that
// run, and these wait for each other.
void load_all_reduce();
// Collective, with the same count on all ranks.
void all_reduce_one_shot(const AllReduceParams& params, Stream stream);
void all_reduce_two_shot(const AllReduceParams& params, Stream stream);

}  // namespace dsm::kernels::cuda

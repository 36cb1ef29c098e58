// Columns of rows of which each rank has a part, side by side on rank 0, whose memory the others
// write to (peers.h): the logits of a vocabulary that ranks divide.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/peers.h"

namespace dsm::kernels::cuda {

struct PeerColumnsParams {
  const float* mine = nullptr;  // [rows, width] aligned to 16 bytes
  std::int64_t rows = 0;
  std::int64_t width = 0;
  // [rows, ranks * width] likewise, of rank 0 alone; NaN where ranks are lost.
  float* y = nullptr;
  PeerParams peers;
};
// As load_all_reduce().
void load_peer_columns();
// Collective, with the same rows and width on all ranks.
void peer_columns(const PeerColumnsParams& params, Stream stream);

}  // namespace dsm::kernels::cuda

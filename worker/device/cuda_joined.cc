#include "worker/device/cuda_joined.h"

#include <cstddef>
#include <stdexcept>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/sampling.h"
#include "worker/device/cuda_launch.h"

namespace dsm::device {

using namespace kernels;  // parameter structs

// What they put on the stream comes after what was put off.
CudaRanks& CudaJoined::joined() const {
  if (ranks_ == nullptr) throw std::logic_error("CUDA backend: the ranks have not been joined");
  stream_.put_first();
  return *ranks_;
}

void CudaJoined::leave() {
  stream_.waits_by({});
  ranks_.reset();
}

std::string CudaJoined::join(comm::Communicator& ranks, const JoinOptions& options) {
  leave();
  if (ranks.size() == 1) return {};
  stream_.synchronise();  // what a lost epoch left there
  ranks_ = join_ranks(ranks, options, stream_);
  stream_.waits_by([this] { ranks_->wait(); });
  return ranks_->name();
}

void CudaJoined::add(comm::Communicator& ranks, const RankSumParams& p) {
  if (p.count == 0) return;
  if (ranks.size() > 1) return joined().add(p);
  launch(lists_, [&] { cuda::tree_sum({p.mine, 1, p.count, p.y, p.y}, stream_.get()); });
}

void CudaJoined::gather(comm::Communicator& ranks, const RankGatherParams& p) {
  if (p.count == 0) return;
  const auto count = static_cast<std::size_t>(p.count);
  if (ranks.size() > 1) return joined().all_gather(p.mine, p.parts, count);
  check(cudaMemcpyAsync(p.parts, p.mine, count * sizeof(float), cudaMemcpyDefault, stream_.get()),
        "copy");
}

void CudaJoined::gather_columns(comm::Communicator& ranks, const RankColumnsParams& p) {
  if (p.rows == 0 || ranks.size() == 1) return;
  if (joined().put_columns(p)) return;
  joined().all_gather(p.mine, p.parts,
                      static_cast<std::size_t>(p.rows) * static_cast<std::size_t>(p.width));
  if (ranks.rank() != 0) return;
  launch(lists_,
         [&] { cuda::join_columns({p.parts, p.y, ranks.size(), p.rows, p.width}, stream_.get()); });
}

}  // namespace dsm::device

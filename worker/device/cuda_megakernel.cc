#include "worker/device/cuda_megakernel.h"

#include <algorithm>
#include <utility>

#include "worker/device/cuda_launch.h"

namespace dsm::device {

using namespace kernels;  // parameter structs

CudaMegakernel::CudaMegakernel(const cudaDeviceProp& gpu, bool exact, int tokens,
                               const Stream& stream, Lists& lists)
    : exact_(exact),
      tokens_(std::min(tokens, cuda::kMegakernelRows)),
      blocks_(cuda::megakernel_blocks(gpu.multiProcessorCount)),
      stream_(stream),
      lists_(lists) {
  if (tokens_ == 0) return;
  barrier_ = device_memory(sizeof(std::uint32_t));
  check(cudaMemsetAsync(barrier_.get(), 0, sizeof(std::uint32_t), stream.get()), "clear memory");
  stream_.puts_first([this] { start(); });
}

CudaMegakernel::~CudaMegakernel() {
  if (tokens_ > 0) stream_.puts_first({});
}

CudaMegakernel::Opened::Opened(CudaMegakernel& megakernel, int tokens) : megakernel_(megakernel) {
  megakernel_.open_ = tokens <= megakernel_.tokens_;
}

CudaMegakernel::Opened::~Opened() {
  megakernel_.open_ = false;
  megakernel_.norm_ = {};
  megakernel_.ops_.clear();
}

void CudaMegakernel::put_norm_off() {
  if (norm_.rows == 0) return;
  const cuda::MegakernelOp op = cuda::norm_op(std::exchange(norm_, {}));
  put_off(op);
}

void CudaMegakernel::put_off(cuda::MegakernelOp op, bool waits) {
  put_norm_off();
  op.waits = waits && !ops_.empty();
  ops_.push_back(op);
}

bool CudaMegakernel::norm(const RmsNormParams& p) {
  if (!open_ || !cuda::in_megakernel(p)) return false;
  put_norm_off();
  if (cuda::may_be_of_product(p)) {
    norm_ = p;
  } else {
    put_off(cuda::norm_op(p));
  }
  return true;
}

bool CudaMegakernel::kv_write_heads(const KvWriteHeadsParams& p) {
  if (!open_) return false;
  put_off(cuda::kv_write_heads_op(p));
  return true;
}

// It reads nothing that the writing of keys and values before it writes, and the other way round.
bool CudaMegakernel::rope_query(const RopeQueryParams& p) {
  if (!open_) return false;
  const bool beside = !ops_.empty() && ops_.back().kind == cuda::MegakernelKind::kKvWriteHeads;
  put_off(cuda::rope_query_op(p), !beside);
  return true;
}

bool CudaMegakernel::attention(const cuda::AttentionLaunch& launch) {
  if (!open_ || !cuda::in_megakernel(launch)) return false;
  put_off(cuda::splits_op(launch));
  put_off(cuda::merge_op(launch));
  return true;
}

// Nothing else reads or writes what it does, so a norm that waits for its product waits on.
bool CudaMegakernel::count_move(const cuda::CountMove& p) {
  if (!open_) return false;
  const RmsNormParams norm = std::exchange(norm_, {});
  put_off(cuda::count_move_op(p), false);
  norm_ = norm;
  return true;
}

bool CudaMegakernel::has(const cuda::Products& launch, DType dtype) const {
  return open_ && cuda::in_megakernel(launch, dtype);
}

int CudaMegakernel::spans_each(const cuda::Products& launch) const {
  return cuda::megakernel_spans_each(launch.spans, launch.panels, blocks_);
}

void CudaMegakernel::product(const cuda::Products& launch, const cuda::ProductTask& task) {
  const bool normed = norm_.rows > 0 && cuda::is_of_product(norm_, launch, task);
  const RmsNormParams norm = normed ? std::exchange(norm_, {}) : RmsNormParams{};
  put_off(cuda::product_op(launch, task, norm));
}

void CudaMegakernel::start() {
  put_norm_off();
  if (ops_.empty()) return;
  started_.clear();
  std::swap(started_, ops_);  // sending lists comes here again
  cuda::link_ops(started_, blocks_);
  const cuda::MegakernelLaunch p{.ops = lists_.put(started_),
                                 .count = static_cast<int>(started_.size()),
                                 .blocks = blocks_,
                                 .exact = exact_,
                                 .barrier = static_cast<std::uint32_t*>(barrier_.get())};
  launch(lists_, [&] { cuda::megakernel(p, stream_.get()); });
}

}  // namespace dsm::device

#include "worker/device/virtual_ranks.h"

#include <utility>

namespace dsm::device {
namespace {

void copy(float* to, const float* from, std::size_t bytes, const Stream& stream) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream.get()), "copy between ranks");
}

}  // namespace

VirtualRanks::VirtualRanks(comm::Communicator& ranks, std::vector<std::shared_ptr<VirtualRank>> all,
                           const Stream& stream)
    : ranks_(ranks),
      all_(std::move(all)),
      own_(*all_[static_cast<std::size_t>(ranks.rank())]),
      stream_(stream) {}

// The last one to go frees memory: whoever goes first has no copy of another's in work.
VirtualRanks::~VirtualRanks() {
  cudaStreamSynchronize(stream_.get());
}

void VirtualRanks::all_gather(const float* mine, float* parts, std::size_t count) {
  const std::size_t bytes = count * sizeof(float);
  half_ ^= 1U;
  VirtualRank::Half& own = own_.halves[half_];
  for (const auto& rank : all_) rank->halves[half_].read.hold(stream_);
  auto* part = static_cast<float*>(own.memory.at_least(bytes, stream_));
  copy(part, mine, bytes, stream_);
  own.part = part;
  own.written.record(stream_);
  ranks_.barrier();  // all have recorded that theirs is written
  for (const auto& rank : all_) {
    const VirtualRank::Half& half = rank->halves[half_];
    half.written.hold(stream_);
    copy(parts, half.part, bytes, stream_);
    parts += count;
  }
  own.read.record(stream_);
}

void VirtualRanks::add(const RankSumParams& p) {
  all_gather(p.mine, p.parts, static_cast<std::size_t>(p.count));
  add_parts({p.parts, ranks_.size(), p.count, p.y, p.y}, stream_);
}

// What a stream waits for is on another one already: it comes, whoever is lost.
void VirtualRanks::wait() {
  stream_.synchronise();
}

}  // namespace dsm::device

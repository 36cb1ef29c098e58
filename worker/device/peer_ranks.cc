#include "worker/device/peer_ranks.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

namespace dsm::device {
namespace {

#ifndef DSM_SUM_ROUNDS
#define DSM_SUM_ROUNDS 20
#endif
constexpr std::int64_t kMostRounds = DSM_SUM_ROUNDS;
#ifndef DSM_SUM_VALUES
#define DSM_SUM_VALUES (1 << 20)
#endif
constexpr std::int64_t kMostValues = DSM_SUM_VALUES;  // of a larger size as many are timed

// Sums that are timed: more of the quick ones.
std::int64_t rounds_of(std::int64_t count) {
  return std::clamp((std::int64_t{4} << 20) / count, std::int64_t{1}, kMostRounds);
}

}  // namespace

// A place among the work on a stream, with the time when it was reached.
class TimedMark {
 public:
  TimedMark() { check(cudaEventCreateWithFlags(&event_, cudaEventDefault), "create an event"); }
  TimedMark(const TimedMark&) = delete;
  TimedMark& operator=(const TimedMark&) = delete;
  ~TimedMark() { cudaEventDestroy(event_); }

  void record(const Stream& stream) { check(cudaEventRecord(event_, stream.get()), "mark work"); }
  // Both have been reached.
  float milliseconds_since(const TimedMark& begin) const {
    float time = 0;
    check(cudaEventElapsedTime(&time, begin.event_, event_), "take a time");
    return time;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

PeerRanks::PeerRanks(comm::Communicator& ranks, std::unique_ptr<CudaRanks> library,
                     std::unique_ptr<PeerSum> peers, const Stream& stream, bool peers_alone)
    : ranks_(ranks),
      stream_(stream),
      peers_(std::move(peers)),
      library_(std::move(library)),
      steps_(ranks),
      ways_(measured(peers_alone)) {}

// What is still on the stream may wait for ranks that are lost: either end lets go of its own.
PeerRanks::~PeerRanks() {
  peers_->give_up();
  library_.reset();
}

std::string PeerRanks::name() const {
  return "sums: " + ways_.text() + "; library: " + library_->name();
}

void PeerRanks::all_gather(const float* mine, float* parts, std::size_t count) {
  library_->all_gather(mine, parts, count);
}

void PeerRanks::add(const RankSumParams& params) {
  add_by(way_of(params.count), params);
}

bool PeerRanks::put_columns(const RankColumnsParams& p) {
  if (!steps_.in_step()) return false;
  peers_->put_columns(p.mine, p.rows, p.width, p.y);
  return true;
}

void PeerRanks::wait() {
  library_->wait();
  peers_->check();
}

SumWay PeerRanks::way_of(std::int64_t count) {
  if (!steps_.in_step()) return ways_.of(count);
  const SumWay way = ways_.recorded(count);
  if (way == SumWay::kLibrary) steps_.stay_plain();
  return way;
}

void PeerRanks::add_by(SumWay way, const RankSumParams& params) {
  if (way == SumWay::kLibrary) return library_->add(params);
  peers_->add(params.mine, params.y, params.count, way);
}

float PeerRanks::time_of(SumWay way, const RankSumParams& params, TimedMark& begin,
                         TimedMark& end) {
  add_by(way, params);  // a library may connect ranks when it first sends
  wait();
  ranks_.barrier();
  const std::int64_t rounds = rounds_of(params.count);
  begin.record(stream_);
  for (std::int64_t i = 0; i < rounds; ++i) add_by(way, params);
  end.record(stream_);
  wait();
  return end.milliseconds_since(begin) * 1000 / static_cast<float>(rounds);
}

// Kernels of ranks wait for each other between the two meetings alone: what is taken or freed there
// might wait for them (peer_sum.h).
SumWays PeerRanks::measured(bool peers_alone) {
  const std::vector<float> all = times(peers_alone);
  ranks_.barrier();
  return SumWays(all);
}

std::vector<float> PeerRanks::times(bool peers_alone) {
  const auto most = static_cast<std::size_t>(kSumSizes.back());
  const auto parts = peers_alone ? 0 : static_cast<std::size_t>(ranks_.size());
  const std::size_t bytes = (2 + parts) * most * sizeof(float);
  const DeviceMemory memory = device_memory(bytes);
  check(cudaMemsetAsync(memory.get(), 0, bytes, stream_.get()), "clear memory");
  stream_.synchronise();
  TimedMark begin;
  TimedMark end;
  ranks_.barrier();
  auto* values = static_cast<float*>(memory.get());
  std::vector<float> own;
  for (const std::int64_t count : kSumSizes) {
    const std::int64_t timed = std::min(count, kMostValues);
    for (const SumWay way : kSumWays) {
      if (way == SumWay::kLibrary && peers_alone) {
        own.push_back(std::numeric_limits<float>::infinity());
        continue;
      }
      own.push_back(time_of(
          way, {.mine = values, .parts = values + 2 * most, .count = timed, .y = values + most},
          begin, end));
    }
  }
  std::vector<float> all(own.size() * static_cast<std::size_t>(ranks_.size()));
  ranks_.all_gather(own, all);
  return all;
}

}  // namespace dsm::device

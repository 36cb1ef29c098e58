// Ranks on one GPU that add up by kernels of their own, and choose when to.
#include "worker/device/peer_ranks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <barrier>
#include <functional>
#include <thread>
#include <vector>

#include "worker/comm/thread_comm.h"
#include "worker/device/cuda_backend.h"
#include "worker/device/virtual_ranks.h"

namespace dsm::device {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr int kRanks = 2;

void run(const std::function<void(comm::Communicator&)>& body) {
  const auto comms = comm::make_thread_communicators(kRanks);
  std::vector<std::thread> threads;
  threads.reserve(comms.size());
  for (const auto& comm : comms) threads.emplace_back([&] { body(*comm); });
  for (std::thread& thread : threads) thread.join();
}

float value_of(int rank, std::int64_t i) {
  return 1.0F / static_cast<float>(i + 3 * rank + 1);
}

// What a backend has after each rank has added its values to zero. On one GPU taking memory may
// wait for kernels that run, and ranks' kernels wait for each other: so all meet before they add,
// and take or free nothing until every rank's sum is done.
std::vector<float> sum_of(Backend& backend, comm::Communicator& ranks, std::int64_t count) {
  const auto n = static_cast<std::size_t>(count);
  auto* mine = allocate<float>(backend, n);
  auto* parts = allocate<float>(backend, n * kRanks);
  auto* y = allocate<float>(backend, n);
  std::vector<float> values;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(value_of(ranks.rank(), i));
  backend.write(mine, values.data(), n * sizeof(float));
  Results results;
  results.at_least(backend, n);
  ranks.barrier();
  backend.add_over_ranks(ranks, {.mine = mine, .parts = parts, .count = count, .y = y});
  backend.copy(results.data(), y, n);
  backend.wait();
  ranks.barrier();
  return {results.data(), results.data() + n};
}

TEST(PeerRanks, OfABackendHaveTheBitsOfItsOtherRanks) {
  run([&](comm::Communicator& ranks) {
    const auto own = make_cuda_backend(1, true, 0, nullptr, AllReduce::kPeer);
    const auto others = make_cuda_backend(1, true, 0, nullptr, AllReduce::kNccl);
    for (int epoch = 0; epoch < 2; ++epoch) {
      EXPECT_THAT(own->join(ranks), AllOf(StartsWith("sums: "), Not(HasSubstr("then library"))));
      EXPECT_EQ(others->join(ranks), "copies on one GPU");
      for (const std::int64_t count : {16, 4096, 7168}) {
        EXPECT_EQ(sum_of(*own, ranks, count), sum_of(*others, ranks, count)) << count;
      }
    }
    ranks.barrier();
  });
}

TEST(PeerRanks, TakeTheSameWayOnAllRanks) {
  std::vector<std::string> names(kRanks);
  std::barrier<> all_done(kRanks);
  run([&](comm::Communicator& ranks) {
    Stream stream;
    std::vector<std::shared_ptr<VirtualRank>> all;
    for (const auto& rank : ranks.share(std::make_shared<VirtualRank>())) {
      all.push_back(std::static_pointer_cast<VirtualRank>(rank));
    }
    auto peers = PeerSum::join(ranks, std::vector<int>(kRanks, 0), stream, std::chrono::minutes(1));
    ASSERT_NE(peers, nullptr);
    PeerRanks made(ranks, std::make_unique<VirtualRanks>(ranks, std::move(all), stream),
                   std::move(peers), stream, false);
    names[static_cast<std::size_t>(ranks.rank())] = made.name();
    const DeviceMemory memory = device_memory(4 * 4096 * sizeof(float));
    auto* values = static_cast<float*>(memory.get());
    check(cudaMemsetAsync(values, 0, 4 * 4096 * sizeof(float), stream.get()), "clear memory");
    ranks.barrier();
    for (const std::int64_t count : {16, 4096}) {
      made.add({.mine = values, .parts = values + 2 * 4096, .count = count, .y = values + 4096});
    }
    made.all_gather(values, values + 2 * 4096, 4096);
    EXPECT_NO_THROW(made.wait());
    all_done.arrive_and_wait();
    ranks.abort();
    EXPECT_THROW(made.wait(), comm::CommError);
  });
  EXPECT_THAT(names[0], HasSubstr("; library: copies on one GPU"));
  EXPECT_EQ(names[0], names[1]);
}

}  // namespace
}  // namespace dsm::device

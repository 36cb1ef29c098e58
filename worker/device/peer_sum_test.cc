// Sums and columns by kernels that write into other ranks' memory, of ranks that are threads on one
// GPU: bits, and what becomes of those who wait for a rank that is lost.
#include "worker/device/peer_sum.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <barrier>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <thread>

#include "worker/device/cuda_store.h"
#include "worker/device/ranks_fixture.h"

namespace dsm::device {
namespace {

using namespace std::chrono_literals;

constexpr std::chrono::nanoseconds kPatience = 60s;

// On a GPU kernels of many streams do not all run side by side.
#ifdef DSM_CUDA_EMULATED
constexpr int kSizes[] = {2, 3, 4, 5, 8};
#else
constexpr int kSizes[] = {2, 3, 4};
#endif
constexpr std::array kOwnWays{SumWay::kOneShot, SumWay::kTwoShot};

std::unique_ptr<PeerSum> join(comm::Communicator& ranks, const Stream& stream,
                              std::chrono::nanoseconds patience = kPatience) {
  const std::vector<int> gpus(static_cast<std::size_t>(ranks.size()), 0);
  return PeerSum::join(ranks, gpus, stream, patience);
}

// Values on the GPU. Memory is taken and filled before all ranks meet, and nobody adds before that:
// on a GPU both may wait for kernels that run, and ranks' kernels wait for each other. The emulated
// one waits there, too.
class Values {
 public:
  explicit Values(std::vector<float> values)
      : values_(std::move(values)), memory_(device_memory(values_.size() * sizeof(float))) {}
  float* get() const { return static_cast<float*>(memory_.get()); }
  void send(const Stream& stream) {
    device::check(cudaMemcpyAsync(get(), values_.data(), values_.size() * sizeof(float),
                                  cudaMemcpyHostToDevice, stream.get()),
                  "copy");
    stream.synchronise();
  }
  const std::vector<float>& fetch(const Stream& stream) {
    stream.synchronise();
    device::check(cudaMemcpyAsync(values_.data(), get(), values_.size() * sizeof(float),
                                  cudaMemcpyDeviceToHost, stream.get()),
                  "copy");
    stream.synchronise();
    return values_;
  }

 private:
  std::vector<float> values_;
  DeviceMemory memory_;
};

// What a rank has, or, with another `seed`, what is there before: of many magnitudes, so that no
// two orders of additions give the same.
std::vector<float> random_values(std::int64_t count, int seed) {
  std::mt19937 random(static_cast<unsigned>(seed));
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) {
    const auto bits = static_cast<std::uint32_t>(random());
    value = std::ldexp(static_cast<float>(static_cast<std::int32_t>(bits)),
                       -31 - static_cast<int>(bits % 13));
  }
  return values;
}

// residual + the tree of kernels/params.h
float added(float residual, std::vector<float> part) {
  const std::size_t ranks = part.size();
  part.resize(kernels::kSegments);
  for (std::size_t step = 1; step < ranks; step *= 2) {
    for (std::size_t r = 0; r < part.size(); r += 2 * step) part[r] += part[r + step];
  }
  return residual + part[0];
}

// What each rank gives.
std::vector<std::vector<float>> values_of_ranks(int ranks, std::int64_t count, int seed) {
  std::vector<std::vector<float>> all(static_cast<std::size_t>(ranks));
  for (std::size_t r = 0; r < all.size(); ++r) {
    all[r] = random_values(count, seed + static_cast<int>(r));
  }
  return all;
}

std::vector<float> reference(int ranks, std::int64_t count, int seed, int times = 1) {
  const auto all = values_of_ranks(ranks, count, seed);
  std::vector<float> y = random_values(count, seed + 100);
  for (std::size_t i = 0; i < y.size(); ++i) {
    std::vector<float> part(all.size());
    for (std::size_t r = 0; r < all.size(); ++r) part[r] = all[r][i];
    for (int t = 0; t < times; ++t) y[i] = added(y[i], part);
  }
  return y;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return std::ranges::equal(a, b, [](float x, float y) {
    return std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y);
  });
}

TEST(PeerSum, OfAnyCountHasTheBitsOfTheTree) {
  const std::vector<std::int64_t> counts{4, 12, 1020, 1024, 1028, 4100, 7168};
  for (const int size : kSizes) {
    SCOPED_TRACE(size);
    run(size, [&](comm::Communicator& ranks) {
      Stream stream;
      const auto sum = join(ranks, stream);
      ASSERT_NE(sum, nullptr);
      // All are on the stream before any is looked at.
      std::vector<Values> results;
      std::vector<Values> mine;
      for (const std::int64_t count : counts) {
        for ([[maybe_unused]] const SumWay way : kOwnWays) {
          const int seed = static_cast<int>(count);
          mine.emplace_back(random_values(count, seed + ranks.rank())).send(stream);
          results.emplace_back(random_values(count, seed + 100)).send(stream);
        }
      }
      ranks.barrier();
      for (std::size_t i = 0; i < results.size(); ++i) {
        sum->add(mine[i].get(), results[i].get(), counts[i / kOwnWays.size()],
                 kOwnWays[i % kOwnWays.size()]);
      }
      ranks.barrier();
      for (std::size_t i = 0; i < results.size(); ++i) {
        const std::int64_t count = counts[i / kOwnWays.size()];
        EXPECT_TRUE(
            same_bits(results[i].fetch(stream), reference(size, count, static_cast<int>(count))))
            << count << ", way " << i % kOwnWays.size();
      }
      sum->check();
    });
  }
}

TEST(PeerSum, OfMoreThanThereArePlacesForIsAddedPieceByPiece) {
  const std::int64_t count = kernels::cuda::kPeerPlaces / 2 + 4;
  const std::vector<float> wanted = reference(2, count, 7);
  run(2, [&](comm::Communicator& ranks) {
    Stream stream;
    const auto sum = join(ranks, stream);
    Values mine(random_values(count, 7 + ranks.rank()));
    mine.send(stream);
    for (const SumWay way : kOwnWays) {
      Values y(random_values(count, 107));
      y.send(stream);
      ranks.barrier();
      sum->add(mine.get(), y.get(), count, way);
      EXPECT_TRUE(same_bits(y.fetch(stream), wanted));
      ranks.barrier();
    }
  });
}

// Ranks that are ahead by a call or behind, over places that many calls before have used.
TEST(PeerSum, OfManyCallsNeedsNoPaceInCommon) {
  constexpr int kCalls = 60;
  const std::array<std::int64_t, 3> counts{64, 1028, 2048};
  run(4, [&](comm::Communicator& ranks) {
    Stream stream;
    const auto sum = join(ranks, stream);
    std::mt19937 random(static_cast<unsigned>(ranks.rank()));
    std::vector<Values> mine;
    std::vector<Values> y;
    for (const std::int64_t count : counts) {
      const int seed = static_cast<int>(count);
      mine.emplace_back(random_values(count, seed + ranks.rank())).send(stream);
      y.emplace_back(random_values(count, seed + 100)).send(stream);
    }
    ranks.barrier();
    for (int call = 0; call < kCalls; ++call) {
      for (unsigned i = random() % 16; i > 0; --i) std::this_thread::yield();
      const auto which = static_cast<std::size_t>(call) % counts.size();
      sum->add(mine[which].get(), y[which].get(), counts[which],
               kOwnWays[static_cast<std::size_t>(call / 2) % kOwnWays.size()]);
      if (random() % 3 == 0) stream.synchronise();
    }
    for (std::size_t i = 0; i < counts.size(); ++i) {
      EXPECT_TRUE(same_bits(y[i].fetch(stream), reference(4, counts[i], static_cast<int>(counts[i]),
                                                          kCalls / counts.size())));
    }
  });
}

struct Columns {
  int rows;
  int width;
  std::int64_t values() const { return std::int64_t{rows} * width; }
};

std::vector<float> side_by_side(int ranks, const Columns& of, int seed) {
  const auto all = values_of_ranks(ranks, of.values(), seed);
  std::vector<float> y;
  for (int row = 0; row < of.rows; ++row) {
    for (const std::vector<float>& mine : all) {
      const auto begin = mine.begin() + std::ptrdiff_t{row} * of.width;
      y.insert(y.end(), begin, begin + of.width);
    }
  }
  return y;
}

// Of widths that packets end with, and of others; between sums, at no pace in common.
TEST(PeerColumns, StandSideBySideOnTheFirstRank) {
  const std::vector<Columns> shapes{{1, 4}, {1, 1028}, {3, 20}, {5, 7}, {2, 1}, {64, 130}};
  for (const int size : kSizes) {
    SCOPED_TRACE(size);
    run(size, [&](comm::Communicator& ranks) {
      Stream stream;
      const auto sum = join(ranks, stream);
      ASSERT_NE(sum, nullptr);
      std::mt19937 random(static_cast<unsigned>(ranks.rank()));
      std::vector<Values> mine;
      std::vector<Values> results;
      for (const Columns& of : shapes) {
        const int seed = static_cast<int>(of.values());
        mine.emplace_back(random_values(of.values(), seed + ranks.rank())).send(stream);
        const auto values = static_cast<std::size_t>(of.values() * size);
        results.emplace_back(std::vector<float>(values)).send(stream);
      }
      Values part(random_values(1028, 9 + ranks.rank()));
      Values y(random_values(1028, 109));
      part.send(stream);
      y.send(stream);
      ranks.barrier();
      for (int time = 0; time < 2; ++time) {
        for (std::size_t i = 0; i < shapes.size(); ++i) {
          for (unsigned n = random() % 16; n > 0; --n) std::this_thread::yield();
          sum->put_columns(mine[i].get(), shapes[i].rows, shapes[i].width,
                           ranks.rank() == 0 ? results[i].get() : nullptr);
          if (i % 2 == 0) sum->add(part.get(), y.get(), 1028, kOwnWays[i / 2 % 2]);
          if (random() % 3 == 0) stream.synchronise();
        }
      }
      EXPECT_TRUE(same_bits(y.fetch(stream), reference(size, 1028, 9, 6)));
      for (std::size_t i = 0; ranks.rank() == 0 && i < shapes.size(); ++i) {
        const int seed = static_cast<int>(shapes[i].values());
        EXPECT_TRUE(same_bits(results[i].fetch(stream), side_by_side(size, shapes[i], seed))) << i;
      }
      sum->check();
    });
  }
}

TEST(PeerColumns, OfMoreThanThereArePlacesForComePieceByPiece) {
  const Columns of{3, static_cast<int>(kernels::cuda::kPeerPlaces / 5)};
  ASSERT_GT(2 * of.values(), kernels::cuda::kPeerPlaces);
  const std::vector<float> wanted = side_by_side(2, of, 7);
  run(2, [&](comm::Communicator& ranks) {
    Stream stream;
    const auto sum = join(ranks, stream);
    Values mine(random_values(of.values(), 7 + ranks.rank()));
    Values y(std::vector<float>(static_cast<std::size_t>(2 * of.values())));
    mine.send(stream);
    ranks.barrier();
    sum->put_columns(mine.get(), of.rows, of.width, ranks.rank() == 0 ? y.get() : nullptr);
    stream.synchronise();
    if (ranks.rank() == 0) {
      EXPECT_TRUE(same_bits(y.fetch(stream), wanted));
    }
    ranks.barrier();
  });
}

TEST(PeerSum, OfWhatIsNoNumberIsNone) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float empty = std::bit_cast<float>(0xffffffffU);  // as a place that nobody has written
  run(2, [&](comm::Communicator& ranks) {
    Stream stream;
    const auto sum = join(ranks, stream);
    for (const SumWay way : kOwnWays) {
      Values mine({empty, kInfinity, ranks.rank() == 0 ? 1.0F : empty, -0.0F});
      Values y({1, 1, 1, -0.0F});
      mine.send(stream);
      y.send(stream);
      ranks.barrier();
      sum->add(mine.get(), y.get(), 4, way);
      const std::vector<float>& got = y.fetch(stream);
      EXPECT_TRUE(std::isnan(got[0]));
      EXPECT_EQ(got[1], kInfinity);
      EXPECT_TRUE(std::isnan(got[2]));
      EXPECT_TRUE(got[3] == 0 && std::signbit(got[3]));
      sum->check();
      ranks.barrier();
    }
  });
}

TEST(PeerSum, IsRecordedOnceAndRepeated) {
  constexpr int kRepeats = 20;
  constexpr std::int64_t kCount = 1540;
  const std::vector<float> wanted = reference(3, kCount, 11, 2 * kRepeats);
  run(3, [&](comm::Communicator& ranks) {
    Stream stream;
    const auto sum = join(ranks, stream);
    Values mine(random_values(kCount, 11 + ranks.rank()));
    Values y(random_values(kCount, 111));
    Values columns(std::vector<float>(3 * kCount));
    mine.send(stream);
    y.send(stream);
    device::check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal), "record");
    for (const SumWay way : kOwnWays) sum->add(mine.get(), y.get(), kCount, way);
    sum->put_columns(mine.get(), 4, kCount / 4, columns.get());
    cudaGraph_t steps = nullptr;
    device::check(cudaStreamEndCapture(stream.get(), &steps), "record");
    cudaGraphExec_t graph = nullptr;
    device::check(cudaGraphInstantiate(&graph, steps, 0), "prepare");
    // Its first start would do this, beside kernels that wait.
    device::check(cudaGraphUpload(graph, stream.get()), "send a graph");
    stream.synchronise();
    ranks.barrier();
    for (int i = 0; i < kRepeats; ++i) device::check(cudaGraphLaunch(graph, stream.get()), "start");
    EXPECT_TRUE(same_bits(y.fetch(stream), wanted));
    if (ranks.rank() == 0) {
      EXPECT_TRUE(same_bits(columns.fetch(stream), side_by_side(3, {4, kCount / 4}, 11)));
    }
    ranks.barrier();
    cudaGraphExecDestroy(graph);
    cudaGraphDestroy(steps);
  });
}

std::string error_of(const PeerSum& sum) {
  try {
    sum.check();
  } catch (const comm::CommError& e) {
    return e.what();
  }
  return "nothing was thrown";
}

TEST(PeerSum, EndsWithoutARankThatDoesNotCome) {
  run(3, [&](comm::Communicator& ranks) {
    Stream stream;
    const auto sum = join(ranks, stream, 50ms);
    Values mine(random_values(1024, 1));
    Values y(random_values(1024, 2));
    mine.send(stream);
    ranks.barrier();
    if (ranks.rank() != 2) {
      for (const SumWay way : kOwnWays) {
        y.send(stream);
        sum->add(mine.get(), y.get(), 1024, way);
        for (const float value : y.fetch(stream)) ASSERT_TRUE(std::isnan(value));
        EXPECT_EQ(error_of(*sum), "GPUs: the other ranks' part of a sum did not come within 50 ms");
      }
      Values columns(std::vector<float>(3 * 1024));
      columns.send(stream);
      sum->put_columns(mine.get(), 1, 1024, columns.get());
      const std::vector<float>& got = columns.fetch(stream);
      if (ranks.rank() == 0) {
        for (std::size_t i = 1024; i < got.size(); ++i) ASSERT_TRUE(std::isnan(got[i]));
      }
    }
    ranks.barrier();
  });
}

TEST(PeerSum, EndsWhenTheEpochIsAborted) {
  std::barrier<> both(2);
  run(2, [&](comm::Communicator& ranks) {
    Stream stream;
    const auto sum = join(ranks, stream, 1h);
    EXPECT_EQ(error_of(*sum), "nothing was thrown");
    both.arrive_and_wait();
    if (ranks.rank() == 1) return ranks.abort();
    Values mine(random_values(1024, 1));
    mine.send(stream);
    sum->add(mine.get(), mine.get(), 1024, SumWay::kOneShot);
    stream.synchronise();
    EXPECT_EQ(error_of(*sum), "GPUs: the epoch was aborted");
  });
}

// In the middle of a step, while another rank's kernel waits for this rank.
TEST(PeerSum, IsNotStoppedByMemoryThatGrows) {
  constexpr int kTimes = 50;
  const std::vector<float> wanted = reference(2, 1024, 3);
  run(2, [&](comm::Communicator& ranks) {
    Stream stream;
    CudaStore store(0, false, stream);
    Scratch scratch;
    scratch.at_least(1, stream);
    const auto sum = join(ranks, stream);
    Values mine(random_values(1024, 3 + ranks.rank()));
    Values y(random_values(1024, 103));
    mine.send(stream);
    y.send(stream);
    std::vector<SharedMemory> results;
    for (std::size_t i = 1; i <= kTimes; ++i) results.push_back(store.share(i * 1024));
    results.clear();
    stream.waits_by([&] { stream.synchronise(); });
    ranks.barrier();
    if (ranks.rank() == 1) {
      for (std::size_t i = 1; i <= kTimes; ++i) {
        void* memory = scratch.at_least(i * 4096, stream);
        device::check(cudaMemsetAsync(memory, 0, i * 4096, stream.get()), "clear memory");
        store.share(i * 1024);
      }
    }
    sum->add(mine.get(), y.get(), 1024, SumWay::kOneShot);
    EXPECT_TRUE(same_bits(y.fetch(stream), wanted));
    EXPECT_NO_THROW(sum->check());
    stream.waits_by({});
  });
}

TEST(PeerSum, IsForGpusThatReachEachOther) {
  run(2, [&](comm::Communicator& ranks) {
    Stream stream;
    // Rank 0 sees two ranks on its GPU, rank 1 one on a GPU that is not there.
    const std::array gpus{ranks.rank() == 0 ? 0 : 77, 0};
    EXPECT_EQ(PeerSum::join(ranks, gpus, stream, kPatience), nullptr);
  });
}

}  // namespace
}  // namespace dsm::device

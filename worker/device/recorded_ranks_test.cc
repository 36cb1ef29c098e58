// Steps of ranks on one GPU that are recorded with their sums and columns: what they give, and who
// records when.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <barrier>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "worker/comm/thread_comm.h"
#include "worker/device/cuda_backend.h"
#include "worker/device/weights_fixture.h"

namespace dsm::device {
namespace {

using ::testing::ElementsAre;

constexpr int kRanks = 2;
constexpr int kRows = 4;
constexpr int kWidth = 16;
constexpr int kValues = kRows * kWidth;
constexpr int kInputs = 3000;  // of a product whose sums meet in scratch memory

float value_of(int rank, int i) {
  return 1.0F / static_cast<float>(i + 3 * rank + 1);
}

// The sum of all ranks' values, once for each rank.
std::vector<float> wanted_columns() {
  std::vector<float> wanted;
  for (int row = 0; row < kRows; ++row) {
    for (int rank = 0; rank < kRanks; ++rank) {
      for (int i = 0; i < kWidth; ++i) {
        wanted.push_back(value_of(0, row * kWidth + i) + value_of(1, row * kWidth + i));
      }
    }
  }
  return wanted;
}

// A rank with a step that repeats. On one GPU taking memory, and a kernel's first use, may wait for
// kernels that run, and ranks' kernels wait for each other: all is taken and used before ranks
// meet.
class Rank {
 public:
  explicit Rank(int rank)
      : rank_(rank),
        weight_(plain_weight(kValues, kInputs, kernels::DType::kBF16, 3)),
        side_{make_cuda_backend(1, true, 0, nullptr, AllReduce::kPeer)} {
    std::vector<float> values;
    values.reserve(kValues);
    for (int i = 0; i < kValues; ++i) values.push_back(value_of(rank, i));
    mine_ = side_.put(values);
    const auto floats = [&](int count) { return allocate<float>(*side_.backend, size(count)); };
    parts_ = floats(kRanks * kValues);
    sum_ = floats(kValues);
    columns_ = floats(kRanks * kValues);
    inputs_ = floats(kMostRows * kInputs);
    products_ = floats(kMostRows * kValues);
    matrix_ = load(side_, weight_);
    host_ = allocate_shared<float>(*side_.backend, size(kRanks * kValues));
    product(1);
    side_.backend->wait();
  }

  void join(comm::Communicator& ranks) {
    ranks_ = &ranks;
    side_.backend->join(ranks);
  }
  // Scratch memory that steps have used is another one from here on.
  void move_memory() {
    product(kMostRows);
    side_.backend->wait();
  }
  // Whether the operators were called in it.
  bool step() {
    side_.backend->stage({}, {});
    bool called = false;
    side_.backend->repeat({.tokens = 1, .positions = 1024}, [&] {
      called = true;
      side_.backend->clear(sum_, kValues);
      product(1);
      side_.backend->add_over_ranks(*ranks_,
                                    {.mine = mine_, .parts = parts_, .count = kValues, .y = sum_});
      side_.backend->gather_columns(*ranks_, {.mine = sum_,
                                              .parts = parts_,
                                              .rows = kRows,
                                              .width = kWidth,
                                              .y = rank_ == 0 ? columns_ : nullptr});
    });
    side_.backend->copy(host_, columns_, size(kRanks * kValues));
    side_.backend->wait();
    if (rank_ == 0) {
      EXPECT_EQ(std::vector<float>(host_, host_ + kRanks * kValues), wanted_columns());
    }
    return called;
  }
  std::vector<bool> steps(int count) {
    std::vector<bool> called;
    called.reserve(size(count));
    for (int i = 0; i < count; ++i) called.push_back(step());
    return called;
  }

 private:
  static constexpr int kMostRows = 70;

  void product(int rows) {
    side_.backend->linear({.x = inputs_,
                           .ldx = kInputs,
                           .w = &matrix_,
                           .y = products_,
                           .ldy = kValues,
                           .rows = rows});
  }

  const int rank_;
  const Weight weight_;
  const Side side_;
  comm::Communicator* ranks_ = nullptr;
  kernels::PackedMatrix matrix_;
  float* mine_ = nullptr;
  float* parts_ = nullptr;
  float* sum_ = nullptr;
  float* columns_ = nullptr;
  float* inputs_ = nullptr;
  float* products_ = nullptr;
  float* host_ = nullptr;
};

void run(const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  threads.reserve(kRanks);
  for (int rank = 0; rank < kRanks; ++rank) threads.emplace_back([&body, rank] { body(rank); });
  for (std::thread& thread : threads) thread.join();
}

TEST(RecordedRanks, StartAStepThatTheyHaveRecorded) {
  const auto comms = comm::make_thread_communicators(kRanks);
  run([&](int number) {
    Rank rank(number);
    rank.join(*comms[size(number)]);
    EXPECT_THAT(rank.steps(5), ElementsAre(true, true, false, false, false));
    comms[size(number)]->barrier();
  });
}

// One rank's step runs plainly beside the other's graph, then both record anew.
TEST(RecordedRanks, DropWhatTheyHaveRecordedTogether) {
  const auto comms = comm::make_thread_communicators(kRanks);
  run([&](int number) {
    comm::Communicator& comm = *comms[size(number)];
    Rank rank(number);
    rank.join(comm);
    EXPECT_THAT(rank.steps(3), ElementsAre(true, true, false));
    comm.barrier();
    if (number == 1) rank.move_memory();
    comm.barrier();
    EXPECT_THAT(rank.steps(5), ElementsAre(number == 1, true, true, false, false));
    comm.barrier();
  });
}

// It has moved when both are about to record.
TEST(RecordedRanks, RecordWhereMemoryHasMovedAndDropThat) {
  const auto comms = comm::make_thread_communicators(kRanks);
  run([&](int number) {
    comm::Communicator& comm = *comms[size(number)];
    Rank rank(number);
    rank.join(comm);
    EXPECT_THAT(rank.steps(1), ElementsAre(true));
    comm.barrier();
    if (number == 0) rank.move_memory();
    comm.barrier();
    EXPECT_THAT(rank.steps(5), ElementsAre(true, true, true, false, false));
    comm.barrier();
  });
}

// A rank is lost while the graph of the other waits for it; in the next epoch nothing is left of
// what was recorded.
TEST(RecordedRanks, EndAStepWithoutARankThatIsLost) {
  const auto first = comm::make_thread_communicators(kRanks);
  const auto second = comm::make_thread_communicators(kRanks);
  std::barrier<> all(kRanks);
  run([&](int number) {
    comm::Communicator& comm = *first[size(number)];
    Rank rank(number);
    rank.join(comm);
    EXPECT_THAT(rank.steps(3), ElementsAre(true, true, false));
    all.arrive_and_wait();
    if (number == 1) {
      comm.abort();
    } else {
      EXPECT_THROW(rank.step(), comm::CommError);
    }
    rank.join(*second[size(number)]);
    EXPECT_THAT(rank.steps(4), ElementsAre(true, true, false, false));
    second[size(number)]->barrier();
  });
}

// What a rank alone has recorded, as when it looks what steps take, is without the others' part.
TEST(RecordedRanks, ForgetWhatOneAloneHasRecorded) {
  const auto alone = comm::make_thread_communicators(1);
  const auto comms = comm::make_thread_communicators(kRanks);
  run([&](int number) {
    Side side{make_cuda_backend(1, true, 0, nullptr, AllReduce::kPeer)};
    auto* mine = side.put({1, 2, 3, 4});
    auto* parts = allocate<float>(*side.backend, size(4 * kRanks));
    auto* y = allocate<float>(*side.backend, size(4));
    auto* host = allocate_shared<float>(*side.backend, size(4));
    const auto step = [&](comm::Communicator& ranks) {
      side.backend->stage({}, {});
      side.backend->repeat({.tokens = 1, .positions = 1024}, [&] {
        side.backend->clear(y, 4);
        side.backend->add_over_ranks(ranks, {.mine = mine, .parts = parts, .count = 4, .y = y});
        side.backend->gather_columns(
            ranks, {.mine = y, .parts = parts, .rows = 1, .width = 4, .y = parts});
      });
      side.backend->copy(host, y, 4);
      side.backend->wait();
      return std::vector<float>(host, host + 4);
    };
    if (number == 0) {
      for (int i = 0; i < 3; ++i) {
        EXPECT_THAT(step(*alone[0]), ElementsAre(1, 2, 3, 4));
      }
    }
    side.backend->join(*comms[size(number)]);
    for (int i = 0; i < 3; ++i) {
      EXPECT_THAT(step(*comms[size(number)]), ElementsAre(2, 4, 6, 8));
    }
    comms[size(number)]->barrier();
  });
}

}  // namespace
}  // namespace dsm::device

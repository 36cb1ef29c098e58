// How ranks use NCCL: its states as the fake goes through them. That the real library does what the
// fake does at size 1, a test on a GPU shows (worker/device/nccl_gpu_test.cc).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <barrier>
#include <functional>
#include <thread>
#include <vector>

#include "worker/comm/fake_nccl.h"
#include "worker/comm/nccl_comm.h"
#include "worker/comm/thread_comm.h"

namespace dsm::comm {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr Millis kTimeout{60'000};

// What a CommError says that `body` throws.
std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const CommError& e) {
    return e.what();
  }
  return "nothing was thrown";
}

class NcclCommTest : public ::testing::Test {
 protected:
  // As NcclComm's, on the fake.
  NcclComm connect(Communicator& ranks) { return {FakeNccl::api(), ranks, clock_, kTimeout}; }

  // Runs `body` as every rank, each on its own thread.
  void run(int size, const std::function<void(Communicator&)>& body) {
    const auto comms = make_thread_communicators(size);
    std::vector<std::thread> threads;
    threads.reserve(comms.size());
    for (const auto& comm : comms) threads.emplace_back([&] { body(*comm); });
    for (std::thread& thread : threads) thread.join();
  }

  void wait_for_a_poll() { nccl_.polls.wait(0); }

  FakeNccl nccl_;
  ManualClock clock_;
};

TEST_F(NcclCommTest, AllRanksGetThePartsAndTheSumOfAll) {
  run(4, [&](Communicator& host) {
    NcclComm comm = connect(host);
    const float r = static_cast<float>(host.rank());
    for (int round = 0; round < 50; ++round) {
      const std::vector<float> mine{r, r + 0.5F, static_cast<float>(round)};
      std::vector<float> parts(12, -1);
      comm.all_gather(mine.data(), parts.data(), mine.size(), nullptr);
      for (int i = 0; i < 4; ++i) {
        const auto part = static_cast<std::size_t>(i) * 3;
        ASSERT_EQ(parts[part], static_cast<float>(i));
        ASSERT_EQ(parts[part + 2], static_cast<float>(round));
      }
      std::vector<float> sum = mine;
      comm.all_reduce(sum.data(), sum.data(), sum.size(), nullptr);
      ASSERT_EQ(sum, (std::vector<float>{6, 8, 4 * static_cast<float>(round)}));
    }
    host.barrier();
  });
  EXPECT_EQ(nccl_.ids, 1) << "rank 0 makes it for all";
  EXPECT_FALSE(nccl_.blocking);
  EXPECT_EQ(nccl_.living, 0);
}

TEST_F(NcclCommTest, EachEpochHasCommunicatorsOfItsOwn) {
  const auto epoch = [&](Communicator& host) {
    NcclComm comm = connect(host);
    float sum = 1;
    comm.all_reduce(&sum, &sum, 1, nullptr);
    EXPECT_EQ(sum, 2);
    host.barrier();
  };
  run(2, epoch);
  run(2, epoch);
  EXPECT_EQ(nccl_.ids, 2);
}

TEST_F(NcclCommTest, ARankAloneNeedsNobody) {
  run(1, [&](Communicator& host) {
    NcclComm comm = connect(host);
    float sum = 3;
    comm.all_reduce(&sum, &sum, 1, nullptr);
    EXPECT_EQ(sum, 3);
  });
}

TEST_F(NcclCommTest, ConnectingEndsWhenTheEpochIsAborted) {
  run(2, [&](Communicator& host) {
    if (host.rank() == 0) {
      EXPECT_EQ(error_of([&] { connect(host); }), "NCCL: the epoch was aborted");
      return;
    }
    // This one hears of the id, and never connects.
    std::vector<std::byte> id(sizeof(NcclApi::Id));
    host.broadcast(id, 0);
    wait_for_a_poll();
    host.abort();
  });
  EXPECT_EQ(nccl_.aborts, 1);
  EXPECT_EQ(nccl_.living, 0);
}

TEST_F(NcclCommTest, ConnectingEndsWhenItsTimeIsOver) {
  run(2, [&](Communicator& host) {
    if (host.rank() == 0) {
      EXPECT_EQ(error_of([&] { connect(host); }), "NCCL: cannot connect the ranks within 60000 ms");
      return;
    }
    std::vector<std::byte> id(sizeof(NcclApi::Id));
    host.broadcast(id, 0);
    wait_for_a_poll();
    clock_.advance(kTimeout);
  });
  EXPECT_EQ(nccl_.living, 0);
}

TEST_F(NcclCommTest, AnOperationEndsWhenTheEpochIsAborted) {
  run(2, [&](Communicator& host) {
    NcclComm comm = connect(host);
    host.barrier();
    if (host.rank() == 0) {
      nccl_.polls = 0;
      host.barrier();
      float sum = 1;
      const auto add = [&] { comm.all_reduce(&sum, &sum, 1, nullptr); };
      EXPECT_EQ(error_of(add), "NCCL: the epoch was aborted");
      EXPECT_EQ(error_of(add), "NCCL: the ranks are lost") << "once lost, always lost";
    } else {
      host.barrier();
      wait_for_a_poll();  // rank 0 waits for this one's part
      host.abort();
    }
  });
  EXPECT_EQ(nccl_.aborts, 2) << "each once";
}

TEST_F(NcclCommTest, AnErrorOfNcclIsToldByItsName) {
  std::barrier<> both(2);
  run(2, [&](Communicator& host) {
    NcclComm comm = connect(host);
    both.arrive_and_wait();
    if (host.rank() == 1) nccl_.error_of_rank = 1;
    both.arrive_and_wait();
    if (host.rank() == 1) {
      float sum = 1;
      EXPECT_EQ(error_of([&] { comm.all_reduce(&sum, &sum, 1, nullptr); }),
                "NCCL: cannot add: remote error");
      host.abort();  // as the group does then
      return;
    }
    float part = 1;
    std::vector<float> parts(2);
    error_of([&] { comm.all_gather(&part, parts.data(), 1, nullptr); });
  });
  EXPECT_EQ(nccl_.living, 0);
}

TEST_F(NcclCommTest, NoRankWaitsWhenThereIsNoId) {
  nccl_.refuses_id = true;
  run(2, [&](Communicator& host) {
    const std::string error = error_of([&] { NcclComm comm = connect(host); });
    if (host.rank() == 0) {
      EXPECT_EQ(error, "NCCL: cannot make an id for the ranks: remote error");
      wait_for_a_poll();  // the other one goes on with what it was sent
      host.abort();
    } else {
      EXPECT_EQ(error, "NCCL: the epoch was aborted");
    }
  });
}

TEST_F(NcclCommTest, WaitingForAStreamEndsWithTheRanks) {
  std::barrier<> both(2);
  run(2, [&](Communicator& host) {
    NcclComm comm = connect(host);
    both.arrive_and_wait();
    if (host.rank() == 1) return host.abort();
    EXPECT_EQ(error_of([&] { comm.wait([] { return false; }, "finish a step"); }),
              "NCCL: the epoch was aborted");
    int looks = 0;
    comm.wait([&] { return ++looks == 3; }, "finish a step");
    EXPECT_EQ(looks, 3) << "what was on the stream is waited for all the same";
  });
}

TEST(NcclComm, LooksLessOftenTheLongerItWaits) {
  EXPECT_EQ(pause_after(Millis(9)), Millis(0));
  EXPECT_EQ(pause_after(Millis(20)), std::chrono::microseconds(200));
  EXPECT_EQ(pause_after(Millis(5000)), Millis(1));
}

TEST(Nccl, SaysWhatIsMissing) {
  EXPECT_THAT(load_nccl("libno-such-library.so").error().message,
              StartsWith("NCCL, over which GPUs add up, cannot be loaded: "));
  EXPECT_THAT(load_nccl("libc.so.6").error().message,
              AllOf(StartsWith("libc.so.6 has no ncclGetVersion, "),
                    HasSubstr(": NCCL 2.14.0 or later is needed")));
}

}  // namespace
}  // namespace dsm::comm

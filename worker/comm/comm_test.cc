// One test body for every kind of communicator: threads of one process and Gloo over loopback.
#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <functional>
#include <numeric>
#include <thread>

#include "worker/comm/gloo_comm.h"
#include "worker/comm/thread_comm.h"

namespace dsm::comm {
namespace {

enum class Kind { kThreads, kGloo };

struct Param {
  Kind kind;
  int size;
};

std::string name(const ::testing::TestParamInfo<Param>& info) {
  return (info.param.kind == Kind::kThreads ? "Threads" : "Gloo") + std::to_string(info.param.size);
}

class CommunicatorTest : public ::testing::TestWithParam<Param> {
 protected:
  // Runs `body` as every rank, each on its own thread with its own communicator.
  void run(const std::function<void(Communicator&)>& body) {
    const int size = GetParam().size;
    auto threads_comms = make_thread_communicators(size);
    Rendezvous rendezvous;
    std::barrier all_done(size);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank) {
      threads.emplace_back([&, rank] {
        if (GetParam().kind == Kind::kThreads) {
          body(*threads_comms[static_cast<std::size_t>(rank)]);
          return;
        }
        GlooCommunicator comm({.rank = rank, .size = size, .host = "127.0.0.1"});
        comm.connect(rendezvous);
        body(comm);
        all_done.arrive_and_wait();  // one that leaves early breaks the others' last operation
      });
    }
    for (std::thread& t : threads) {
      t.join();
    }
  }
};

std::vector<float> part_of(int rank, std::size_t size, int round) {
  std::vector<float> part(size);
  std::iota(part.begin(), part.end(), static_cast<float>(rank * 1000 + round));
  return part;
}

TEST_P(CommunicatorTest, AllGatherGivesEveryRankAllParts) {
  run([](Communicator& comm) {
    int round = 0;
    for (const std::size_t size : {std::size_t{1}, std::size_t{256}, std::size_t{4096},
                                   std::size_t{100'000}, std::size_t{0}, std::size_t{3}}) {
      const auto send = part_of(comm.rank(), size, ++round);
      std::vector<float> recv(size * static_cast<std::size_t>(comm.size()), -1);
      comm.all_gather(send, recv);
      for (int r = 0; r < comm.size(); ++r) {
        const auto expected = part_of(r, size, round);
        ASSERT_TRUE(std::equal(expected.begin(), expected.end(),
                               recv.begin() + r * static_cast<std::ptrdiff_t>(size)));
      }
    }
  });
}

TEST_P(CommunicatorTest, GatherGivesTheRootAllPartsAndNeedsNoRoomElsewhere) {
  run([](Communicator& comm) {
    for (int root = 0; root < comm.size(); ++root) {
      for (const std::size_t size : {std::size_t{5}, std::size_t{70'000}}) {
        const auto send = part_of(comm.rank(), size, root);
        std::vector<float> recv;
        if (comm.rank() == root) {
          recv.resize(size * static_cast<std::size_t>(comm.size()));
        }
        comm.gather(send, recv, root);
        for (int r = 0; comm.rank() == root && r < comm.size(); ++r) {
          const auto expected = part_of(r, size, root);
          ASSERT_TRUE(std::equal(expected.begin(), expected.end(),
                                 recv.begin() + r * static_cast<std::ptrdiff_t>(size)));
        }
      }
    }
  });
}

TEST_P(CommunicatorTest, BroadcastGivesEveryRankTheRootsBytes) {
  run([](Communicator& comm) {
    for (int root = 0; root < comm.size(); ++root) {
      for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{600'000}}) {
        std::vector<std::byte> data(size);
        if (comm.rank() == root) {
          std::fill(data.begin(), data.end(), std::byte(root + 1));
        }
        comm.broadcast(data, root);
        ASSERT_EQ(data, std::vector<std::byte>(size, std::byte(root + 1)));
      }
    }
  });
}

// Ranks run ahead of each other as far as the operations allow; no message may be overwritten.
TEST_P(CommunicatorTest, KeepsManySmallOperationsApart) {
  run([](Communicator& comm) {
    std::vector<float> send(8);
    std::vector<float> recv(8 * static_cast<std::size_t>(comm.size()));
    for (int round = 0; round < 300; ++round) {
      std::fill(send.begin(), send.end(), static_cast<float>(round * 10 + comm.rank()));
      if (round % 7 == 3) {
        comm.gather(send, recv, round % comm.size());
        continue;
      }
      comm.all_gather(send, recv);
      for (std::size_t i = 0; i < recv.size(); ++i) {
        ASSERT_EQ(recv[i], static_cast<float>(round * 10 + static_cast<int>(i / 8)));
      }
    }
  });
}

TEST_P(CommunicatorTest, BarrierIsPassedTogether) {
  std::atomic<int> arrived{0};
  run([&](Communicator& comm) {
    ++arrived;
    comm.barrier();
    EXPECT_EQ(arrived, comm.size());
    comm.barrier();
  });
}

TEST_P(CommunicatorTest, AbortEndsTheWaitingOfEveryRank) {
  std::atomic<int> threw{0};
  std::atomic<int> waiting{0};
  run([&](Communicator& comm) {
    comm.barrier();
    if (comm.rank() == 0) {
      // All others are in the next operation or about to enter it; rank 0 will not come.
      while (waiting < comm.size() - 1) {
        std::this_thread::yield();
      }
      comm.abort();
      EXPECT_THROW(comm.barrier(), CommError);
    } else {
      ++waiting;
      EXPECT_THROW(comm.barrier(), CommError);
      EXPECT_THROW(comm.barrier(), CommError) << "once broken, always broken";
    }
    ++threw;
  });
  EXPECT_EQ(threw, GetParam().size);
}

TEST_P(CommunicatorTest, ItsAbortIsKnownAlsoAfterItsEnd) {
  run([](Communicator& comm) {
    comm.barrier();
    EXPECT_FALSE(comm.aborted().stop_requested());
    comm.barrier();
  });
  std::stop_token aborted;
  run([&](Communicator& comm) {
    if (comm.rank() != 0) return;
    aborted = comm.aborted();
    comm.abort();
  });
  EXPECT_TRUE(aborted.stop_requested());
}

INSTANTIATE_TEST_SUITE_P(Kinds, CommunicatorTest,
                         ::testing::Values(Param{Kind::kThreads, 2}, Param{Kind::kThreads, 4},
                                           Param{Kind::kThreads, 8}, Param{Kind::kGloo, 2},
                                           Param{Kind::kGloo, 4}, Param{Kind::kGloo, 8}),
                         name);

TEST(ThreadCommunicator, WorksAlone) {
  const auto comms = make_thread_communicators(1);
  std::vector<float> recv(2);
  comms[0]->all_gather(std::vector<float>{1, 2}, recv);
  EXPECT_EQ(recv, (std::vector<float>{1, 2}));
  comms[0]->barrier();
}

TEST(ThreadCommunicator, GivesEveryRankWhatEachSharesAndLetsItGo) {
  const auto comms = make_thread_communicators(3);
  std::vector<std::thread> threads;
  threads.reserve(comms.size());
  for (const auto& comm : comms) {
    threads.emplace_back([&] {
      for (int round = 0; round < 100; ++round) {
        const auto mine = std::make_shared<int>(10 * round + comm->rank());
        auto all = comm->share(mine);
        ASSERT_EQ(all.size(), 3U);
        for (int r = 0; r < 3; ++r) {
          EXPECT_EQ(*std::static_pointer_cast<int>(all[static_cast<std::size_t>(r)]),
                    10 * round + r);
        }
        all.clear();
        comm->barrier();
        EXPECT_EQ(mine.use_count(), 1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Two connected Gloo ranks whose lifetimes the test decides.
struct GlooPair {
  explicit GlooPair(Millis timeout) : timeout_(timeout) {
    std::thread other([&] { b = make(1); });
    a = make(0);
    other.join();
  }
  std::unique_ptr<GlooCommunicator> make(int rank) {
    auto comm = std::make_unique<GlooCommunicator>(
        GlooOptions{.rank = rank, .size = 2, .host = "127.0.0.1", .timeout = timeout_});
    comm->connect(rendezvous_);
    return comm;
  }

  Millis timeout_;
  Rendezvous rendezvous_;
  std::unique_ptr<GlooCommunicator> a;
  std::unique_ptr<GlooCommunicator> b;
};

TEST(GlooCommunicator, SaysThatAPeerIsLost) {
  GlooPair pair(std::chrono::minutes(1));
  std::thread waiter([&] { EXPECT_THROW(pair.a->barrier(), CommError); });
  pair.b.reset();
  waiter.join();
}

TEST(GlooCommunicator, DoesNotWaitLongerThanItsTimeOut) {
  GlooPair pair(Millis(50));
  EXPECT_THROW(pair.a->barrier(), CommError);
}

TEST(GlooCommunicator, CanBeAbortedByItsOwnProcessInTheMiddleOfAnOperation) {
  GlooPair pair(std::chrono::minutes(1));
  std::atomic<bool> in_operation{false};
  std::thread waiter([&] {
    in_operation = true;
    EXPECT_THROW(pair.a->barrier(), CommError);
  });
  while (!in_operation) {
    std::this_thread::yield();
  }
  pair.a->abort();
  waiter.join();
}

TEST(GlooCommunicator, CanBeAbortedWhileItWaitsForOthers) {
  Rendezvous rendezvous;
  GlooCommunicator comm({.rank = 0, .size = 2, .host = "127.0.0.1"});
  std::thread waiter([&] { EXPECT_THROW(comm.connect(rendezvous), CommError); });
  rendezvous.abort();
  comm.abort();
  waiter.join();
}

TEST(GlooCommunicator, CanBeAbortedWhileItConnects) {
  Rendezvous rendezvous;
  GlooCommunicator comm({.rank = 0, .size = 2, .host = "127.0.0.1"});
  // The address of a peer that will never talk to us.
  GlooCommunicator silent({.rank = 1, .size = 2, .host = "127.0.0.1"});
  Rendezvous others;
  std::thread publisher([&] { EXPECT_THROW(silent.connect(others), CommError); });
  const std::string address = others.get("gloo/1/0");
  std::thread waiter([&] { EXPECT_THROW(comm.connect(rendezvous), CommError); });
  const std::string mine = rendezvous.get("gloo/0/1");
  EXPECT_FALSE(mine.empty());
  others.abort();
  rendezvous.abort();
  comm.abort();
  publisher.join();
  waiter.join();
  EXPECT_FALSE(address.empty());
}

TEST(GlooCommunicator, RefusesAnAddressThatIsNotOurs) {
  EXPECT_THROW(GlooCommunicator({.rank = 0, .size = 2, .host = "192.0.2.1"}), CommError);
}

}  // namespace
}  // namespace dsm::comm

// For tests: whole groups over loopback. Leader, followers and the engine are real, the model is
// arithmetic.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "worker/engine/engine.h"
#include "worker/engine/fake_model.h"
#include "worker/group/adapters.h"
#include "worker/group/channel.h"
#include "worker/group/follower.h"
#include "worker/group/leader.h"

namespace dsm::group {

using engine::FakeModel;
using engine::FinishReason;
using engine::TokenId;

// Waits until the condition holds. It is asked often; the limit is for a test that fails.
inline ::testing::AssertionResult eventually(const std::function<bool()>& condition) {
  const auto limit = std::chrono::steady_clock::now() + Seconds(60);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > limit) {
      return ::testing::AssertionFailure() << "did not happen within a minute";
    }
    std::this_thread::sleep_for(Millis(2));
  }
  return ::testing::AssertionSuccess();
}

// What the test does to the ranks, and what it sees of them.
struct Controls {
  std::atomic<int> loads{0};
  std::atomic<int> steps{0};
  std::atomic<int> throw_on_rank{-1};  // once
  std::atomic<int> fail_device_of_rank{-1};
  std::atomic<int> hang_on_rank{-1};  // while it is set
  std::atomic<int> fail_load_of_rank{-1};
  std::atomic<int> fail_join_of_rank{-1};  // once
  std::atomic<int> joins{0};
  Millis join_takes{0};                // before start()
  std::atomic<bool> no_memory{false};  // to load
  std::atomic<bool> no_device{false};  // to load onto
  std::atomic<bool> hold_load{false};
  std::atomic<bool> hold_adapters{false};  // their loading, that is
  std::atomic<bool> refuse_adapters{false};
  std::atomic<int> adapter_loads{0};

  void enter(const AdapterPointer& adapter) {
    const std::lock_guard lock(mutex);
    adapters[adapter->id] = adapter;
  }
  bool has(engine::AdapterId id) {
    const std::lock_guard lock(mutex);
    return !adapters[id].expired();
  }
  std::mutex mutex;
  std::map<engine::AdapterId, std::weak_ptr<const engine::Adapter>> adapters;  // in memory
  std::atomic<int> asleep{0};          // ranks that have given their memory back
  std::atomic<bool> hold_wake{false};  // notify who waits for its end
  std::atomic<bool> no_memory_to_wake{false};
  std::atomic<int> kv_room{0};  // blocks that its ranks say they have room for
  std::atomic<int> kv_made{0};  // blocks that its ranks made last
};

// Every rank computes the same tokens and compares them with the others', so that a rank that was
// sent another batch, or none, is found.
class FakeRank final : public RankExecutor {
 public:
  FakeRank(int rank, std::shared_ptr<Controls> controls)
      : rank_(rank), controls_(std::move(controls)) {}

  void join(comm::Communicator& comm) override {
    ++controls_->joins;
    int expected = rank_;
    if (controls_->fail_join_of_rank.compare_exchange_strong(expected, -1)) {
      throw comm::CommError("this rank cannot connect its device");
    }
    take_time(controls_->join_takes, comm.aborted());
    comm.barrier();
  }

  engine::Samples execute(const engine::Batch& batch, comm::Communicator& comm) override {
    ++controls_->steps;
    int expected = rank_;
    if (controls_->throw_on_rank.compare_exchange_strong(expected, -1)) {
      throw std::logic_error("this batch is poison");
    }
    if (controls_->fail_device_of_rank == rank_) throw DeviceError("no memory for a step");
    while (controls_->hang_on_rank == rank_) {
      std::this_thread::sleep_for(Millis(1));
    }
    for (const engine::Row& row : batch.rows) {
      if (row.adapter != engine::kNoAdapter && !controls_->has(row.adapter)) {
        throw std::logic_error("rank " + std::to_string(rank_) + " has no such adapter");
      }
    }
    engine::Samples samples = model_.run(batch);
    std::vector<float> mine{static_cast<float>(batch.id)};
    for (const engine::Sample& s : samples.samples) {
      mine.push_back(static_cast<float>(s.tokens.at(0)));
    }
    std::vector<float> all(mine.size() * static_cast<std::size_t>(comm.size()));
    comm.all_gather(mine, all);
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (all[i] != mine[i % mine.size()]) {
        throw std::logic_error("the ranks disagree");
      }
    }
    return samples;
  }

  void sleep() override {
    ++controls_->asleep;
    model_.forget();
  }
  void wake() override {
    controls_->hold_wake.wait(true);
    if (controls_->no_memory_to_wake) throw DeviceError("not enough memory to wake");
    --controls_->asleep;
  }

  int kv_room() const override { return cache_ > 0 ? cache_ : controls_->kv_room.load(); }
  void make_cache(int blocks) override {
    if (blocks > kv_room()) throw DeviceError("no room for the cache");
    if (cache_ == 0) cache_ = blocks;
    controls_->kv_made = cache_;
  }

 private:
  // As a device that is slow; ends early, with an error, when the epoch does.
  static void take_time(Millis time, const std::stop_token& aborted) {
    std::mutex mutex;
    std::condition_variable_any never;
    std::unique_lock lock(mutex);
    never.wait_for(lock, aborted, time, [] { return false; });
    if (aborted.stop_requested()) throw comm::CommError("given up");
  }

  int rank_;
  std::shared_ptr<Controls> controls_;
  int cache_ = 0;  // blocks
  FakeModel model_{32};
};

inline RankLoader loader(const std::shared_ptr<Controls>& controls) {
  return
      [controls](int rank, const LoadProgress& progress) -> Result<std::unique_ptr<RankExecutor>> {
        progress(50, 100);
        while (controls->hold_load) {
          std::this_thread::sleep_for(Millis(1));
        }
        if (controls->fail_load_of_rank == rank) {
          return fail(ErrorKind::kNotFound, "no such checkpoint");
        }
        if (controls->no_memory) throw std::bad_alloc();
        if (controls->no_device) throw DeviceError("GPU: cannot copy to it: it is gone");
        ++controls->loads;
        progress(100, 100);
        return std::make_unique<FakeRank>(rank, controls);
      };
}

// The adapters of a pod that is not the leader.
inline std::shared_ptr<HeldAdapters> held_adapters(const std::shared_ptr<Controls>& controls) {
  return std::make_shared<HeldAdapters>(
      [controls](const SharedAdapter& wanted) -> Result<AdapterPointer> {
        ++controls->adapter_loads;
        while (controls->hold_adapters) {
          std::this_thread::sleep_for(Millis(1));
        }
        if (controls->refuse_adapters) {
          return fail(ErrorKind::kNotFound, wanted.path + ": no such folder");
        }
        auto adapter = std::make_shared<const engine::Adapter>(
            engine::Adapter{.id = wanted.id, .name = wanted.name});
        controls->enter(adapter);
        return adapter;
      });
}

inline GroupOptions options(int tensor_parallel, int ranks_per_pod, int pod = 0,
                            std::uint16_t port = 0) {
  GroupOptions o;
  o.tensor_parallel = tensor_parallel;
  o.ranks_per_pod = ranks_per_pod;
  o.pod_index = pod;
  o.leader_host = "127.0.0.1";
  o.bind_host = "127.0.0.1";
  o.control_port = port;
  o.token = "a secret";
  o.revision = "r1";
  o.model_digest = "digest";
  o.heartbeat = Millis(50);
  o.heartbeat_timeout = Millis(20'000);
  o.step_timeout = Millis(20'000);
  o.reconnect_min = Millis(5);
  o.reconnect_max = Millis(50);
  return o;
}

// A request in work, with its tokens.
class Request {
 public:
  Request(engine::Engine& engine, std::vector<TokenId> prompt, int max_tokens,
          AdapterPointer adapter = nullptr) {
    engine::GenerateRequest r;
    r.adapter = std::move(adapter);
    r.prompt = std::move(prompt);
    r.max_tokens = max_tokens;
    const auto id = engine.submit(std::move(r), [state = state_](const engine::TokenEvent& event) {
      const std::lock_guard lock(state->mutex);
      state->tokens.insert(state->tokens.end(), event.tokens.begin(), event.tokens.end());
      state->finished = event.finished;
      state->error = event.error ? event.error->message : "";
    });
    EXPECT_TRUE(id);
  }
  std::size_t received() const {
    const std::lock_guard lock(state_->mutex);
    return state_->tokens.size();
  }
  std::optional<FinishReason> finished() const {
    const std::lock_guard lock(state_->mutex);
    return state_->finished;
  }
  std::vector<TokenId> tokens() const {
    const std::lock_guard lock(state_->mutex);
    return state_->tokens;
  }
  std::string error() const {
    const std::lock_guard lock(state_->mutex);
    return state_->error;
  }

 private:
  struct State {
    std::mutex mutex;
    std::vector<TokenId> tokens;
    std::optional<FinishReason> finished;
    std::string error;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

// A group with its engine. Each pod has its own controls.
class TestGroup {
 public:
  TestGroup(int tensor_parallel, int ranks_per_pod,
            const std::function<void(GroupOptions&)>& change = {})
      : tensor_parallel_(tensor_parallel), ranks_per_pod_(ranks_per_pod), change_(change) {
    for (int pod = 0; pod < tensor_parallel / ranks_per_pod; ++pod) {
      controls.push_back(std::make_shared<Controls>());
    }
    followers.resize(controls.size());
  }

  void start_leader() {
    shared = with_adapters ? std::make_shared<SharedAdapters>() : nullptr;
    leader =
        std::make_unique<LeaderGroup>(with_change(0), loader(controls[0]), clock, Logger(), shared);
    ASSERT_TRUE(leader->start());
    port = leader->control_port();
    engine = std::make_unique<engine::Engine>(
        engine::SchedulerConfig{.max_num_seqs = 4, .max_batch_tokens = 64, .num_blocks = 32},
        *leader, clock, Logger());
  }
  void stop_leader() {
    engine.reset();
    leader.reset();
  }
  void start_follower(std::size_t pod) {
    followers[pod] = std::make_unique<FollowerGroup>(
        with_change(static_cast<int>(pod)), loader(controls[pod]), clock, Logger(),
        with_adapters ? held_adapters(controls[pod]) : nullptr);
  }
  void start() {
    start_leader();
    for (std::size_t pod = 1; pod < followers.size(); ++pod) {
      start_follower(pod);
    }
  }
  ::testing::AssertionResult becomes_ready() {
    return eventually([&] { return leader->state().ready(); });
  }
  ::testing::AssertionResult answers(const std::vector<TokenId>& prompt, int count) {
    Request r(*engine, prompt, count);
    if (auto done = eventually([&] { return r.finished().has_value(); }); !done) {
      return done;
    }
    if (r.tokens() != FakeModel::answer(prompt, count)) {
      return ::testing::AssertionFailure() << "wrong tokens: " << r.error();
    }
    return ::testing::AssertionSuccess();
  }

  SystemClock clock;
  bool with_adapters = false;  // the pods tell each other of them; before start()
  std::vector<std::shared_ptr<Controls>> controls;
  std::uint16_t port = 0;
  std::shared_ptr<SharedAdapters> shared;
  std::unique_ptr<LeaderGroup> leader;
  std::unique_ptr<engine::Engine> engine;
  std::vector<std::unique_ptr<FollowerGroup>> followers;  // the first stays empty

 private:
  GroupOptions with_change(int pod) const {
    GroupOptions o = options(tensor_parallel_, ranks_per_pod_, pod, port);
    if (change_) {
      change_(o);
    }
    return o;
  }

  int tensor_parallel_;
  int ranks_per_pod_;
  std::function<void(GroupOptions&)> change_;
};

}  // namespace dsm::group

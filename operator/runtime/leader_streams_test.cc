#include "operator/runtime/leader_streams.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>

#include "base/http/server.h"

namespace dsm::runtime {
namespace {

// A leader on loopback that writes lines when the test says so.
class FakeLeader {
 public:
  FakeLeader() : server_({.host = "127.0.0.1", .threads = 1}, Logger()) {
    server_.route_async(
        "GET", "/internal/status", [this](std::shared_ptr<http::Exchange> exchange) {
          std::lock_guard lock(mutex_);
          authorization_ = exchange->request().header("Authorization");
          exchange->start(200, {});
          exchange->write("{\"phase\":\"Ready\",\"queueDepth\":" + std::to_string(depth_) + "}\n");
          exchange_ = exchange;
        });
    EXPECT_TRUE(server_.start());
  }

  void say(int depth) {
    std::lock_guard lock(mutex_);
    depth_ = depth;
    exchange_->write("not json\n{\"phase\":\"Ready\",\"queueDepth\":" + std::to_string(depth) +
                     "}\n");
  }
  void hang_up() {
    std::lock_guard lock(mutex_);
    exchange_->finish();
  }
  std::string authorization() {
    std::lock_guard lock(mutex_);
    return authorization_;
  }
  std::uint16_t port() const { return server_.port(); }

 private:
  std::mutex mutex_;
  std::shared_ptr<http::Exchange> exchange_;
  std::string authorization_;
  int depth_ = 0;
  http::Server server_;
};

class LeaderStreamsTest : public testing::Test {
 protected:
  // Waits until the streams say so; on_change wakes it.
  template <typename Condition>
  bool eventually(Condition condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, Seconds(20), condition);
  }
  long depth() {
    const auto all = streams_.statuses("ns/m");
    return all.contains("uid-1") ? all.at("uid-1").queue_depth : -1;
  }

  FakeLeader leader_;
  ManualClock clock_;
  http::Client client_;
  std::mutex mutex_;
  std::condition_variable changed_;
  LeaderStreams streams_{client_, clock_, leader_.port(), [this](const std::string& key) {
                           EXPECT_EQ(key, "ns/m");
                           std::lock_guard lock(mutex_);
                           changed_.notify_all();
                         }};
  const LeaderTarget target_{.pod_uid = "uid-1", .address = "127.0.0.1", .token = "secret"};
};

TEST_F(LeaderStreamsTest, RemembersTheNewestLineAndSkipsWhatIsNoStatus) {
  streams_.watch("ns/m", {target_});
  ASSERT_TRUE(eventually([this] { return depth() == 0; }));
  EXPECT_EQ(leader_.authorization(), "Bearer secret");
  leader_.say(7);
  EXPECT_TRUE(eventually([this] { return depth() == 7; }));
}

TEST_F(LeaderStreamsTest, ForgetsALeaderThatIsNoLongerWatched) {
  streams_.watch("ns/m", {target_});
  ASSERT_TRUE(eventually([this] { return depth() == 0; }));
  streams_.watch("ns/m", {});
  EXPECT_EQ(depth(), -1);
  EXPECT_EQ(streams_.open_streams(), 0U);
}

TEST_F(LeaderStreamsTest, OpensAnEndedStreamAgainAfterItsPause) {
  streams_.watch("ns/m", {target_});
  ASSERT_TRUE(eventually([this] { return depth() == 0; }));
  leader_.say(3);
  ASSERT_TRUE(eventually([this] { return depth() == 3; }));
  leader_.hang_up();
  while (streams_.open_streams() > 0) std::this_thread::yield();
  streams_.reopen_due();
  EXPECT_EQ(streams_.open_streams(), 0U) << "the pause is not over";
  clock_.advance(Seconds(1));
  streams_.reopen_due();
  EXPECT_EQ(streams_.open_streams(), 1U);
  leader_.say(4);
  EXPECT_TRUE(eventually([this] { return depth() == 4; }));
}

}  // namespace
}  // namespace dsm::runtime

// Messages pushed to a real HTTP server on loopback that plays the leader.
#include "operator/runtime/leader_pushes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>

#include "base/http/server.h"

namespace dsm::runtime {
namespace {

using testing::ElementsAre;

class LeaderPushesTest : public testing::Test {
 protected:
  LeaderPushesTest() : server_({.host = "127.0.0.1", .port = 0, .threads = 1}, Logger()) {
    server_.route("PUT", "/internal/keys", [this](const http::Request& request) {
      const std::lock_guard lock(mutex_);
      bodies_.push_back(request.body);
      http::Response answer;
      answer.status = request.header("Authorization") == "Bearer secret" ? 200 : 401;
      changed_.notify_all();
      return answer;
    });
    for (const char* path : {"/internal/sleep", "/internal/wake"}) {
      server_.route("POST", path, [this](const http::Request& request) {
        const std::lock_guard lock(mutex_);
        bodies_.push_back(request.path);
        changed_.notify_all();
        http::Response answer;
        answer.status = 202;
        return answer;
      });
    }
    EXPECT_TRUE(server_.start());
    pushes_ = std::make_unique<LeaderPushes>(
        clock_, server_.port(),
        [this](const std::string& model, Millis delay) {
          const std::lock_guard lock(mutex_);
          EXPECT_EQ(model, "ns/r1");
          delays_.push_back(delay);
          changed_.notify_all();
        },
        Logger());
  }
  ~LeaderPushesTest() override {
    pushes_.reset();
    server_.stop();
  }

  // The leader reports `keys`, in a line that has come just now.
  void tell(const std::string& digest, const std::string& keys,
            const std::string& token = "secret") {
    plan::LeaderStatus status;
    status.keys = keys;
    status.received = clock_.wall_now();
    pushes_->tell("ns/r1", {{"u1", "127.0.0.1"}}, {{"u1", status}}, token,
                  keys_message({digest, "body " + digest}));
  }
  // The leader reports whether it was told to sleep.
  void tell_sleep(bool wanted, bool reported) {
    plan::LeaderStatus status;
    status.told_to_sleep = reported;
    status.received = clock_.wall_now();
    pushes_->tell("ns/r1", {{"u1", "127.0.0.1"}}, {{"u1", status}}, "secret",
                  sleep_message(wanted));
  }
  std::vector<std::string> await_bodies(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return bodies_.size() >= count; });
    return bodies_;
  }
  Millis await_delay(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return delays_.size() >= count; });
    return delays_.back();
  }

  ManualClock clock_;
  http::Server server_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> bodies_;
  std::vector<Millis> delays_;
  std::unique_ptr<LeaderPushes> pushes_;
};

TEST_F(LeaderPushesTest, ALeaderThatReportsSomethingElseIsToldOnce) {
  tell("d1", "awaited");
  EXPECT_THAT(await_bodies(1), ElementsAre("body d1"));
  // Whether its answer has come or not, a line that is no newer asks for no second message.
  tell("d1", "awaited");
  tell("d1", "d1");
  tell("d2", "d1");
  EXPECT_THAT(await_bodies(2), ElementsAre("body d1", "body d2"));
}

TEST_F(LeaderPushesTest, ALeaderThatHasForgottenIsToldAgain) {
  tell("d1", "awaited");
  await_bodies(1);
  tell("d1", "d1");
  // Restarted: until the answer has been seen here, the second message may be put off.
  for (std::size_t bodies = 1; bodies < 2;) {
    clock_.advance(Millis(1));
    tell("d1", "awaited");
    const std::lock_guard lock(mutex_);
    bodies = bodies_.size();
  }
  EXPECT_EQ(await_bodies(2).back(), "body d1");
}

TEST_F(LeaderPushesTest, ALeaderThatSaidNothingIsNotTold) {
  pushes_->tell("ns/r1", {{"u1", "127.0.0.1"}}, {}, "secret", keys_message({"d1", "body d1"}));
  tell("d2", "");
  EXPECT_THAT(await_bodies(1), ElementsAre("body d2"));
}

TEST_F(LeaderPushesTest, ARefusalIsTriedAgainEverMoreSeldom) {
  tell("d1", "awaited", "wrong");
  EXPECT_EQ(await_delay(1), LeaderPushes::kFirstRetry);
  clock_.advance(LeaderPushes::kFirstRetry);
  tell("d1", "awaited", "wrong");
  EXPECT_EQ(await_delay(2), LeaderPushes::kFirstRetry * 2);
  // New keys do not wait for that.
  tell("d2", "awaited");
  EXPECT_THAT(await_bodies(3), ElementsAre("body d1", "body d1", "body d2"));
}

TEST_F(LeaderPushesTest, ALeaderIsToldToSleepAndToWake) {
  tell_sleep(false, false);
  tell_sleep(true, false);
  EXPECT_THAT(await_bodies(1), ElementsAre("/internal/sleep"));
  tell_sleep(true, true);
  tell_sleep(false, true);
  EXPECT_THAT(await_bodies(2), ElementsAre("/internal/sleep", "/internal/wake"));
}

TEST_F(LeaderPushesTest, AModelThatIsGoneIsForgotten) {
  tell("d1", "awaited");
  await_bodies(1);
  pushes_->forget("ns/r1");
  tell("d1", "awaited");
  EXPECT_THAT(await_bodies(2), ElementsAre("body d1", "body d1"));
}

}  // namespace
}  // namespace dsm::runtime

// Status streams against a real HTTP server on loopback that plays the worker.
#include "operator/runtime/status_streams.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/http/server.h"

namespace dsm::runtime {
namespace {

// A worker's /internal/status: keeps the open exchanges and lets the test write lines.
class Worker {
 public:
  Worker() : server_({.host = "127.0.0.1", .port = 0, .threads = 1}, Logger()) {
    server_.route_async("GET", "/internal/status",
                        [this](std::shared_ptr<http::Exchange> exchange) {
                          if (exchange->request().header("Authorization") != "Bearer secret") {
                            http::Response refusal;
                            refusal.status = 401;
                            return exchange->respond(std::move(refusal));
                          }
                          exchange->start(200, {{"Content-Type", "application/x-ndjson"}});
                          const std::lock_guard lock(mutex_);
                          open_.push_back(std::move(exchange));
                          ++streams_;
                          changed_.notify_all();
                        });
    EXPECT_TRUE(server_.start());
  }
  ~Worker() { server_.stop(); }

  std::uint16_t port() const { return server_.port(); }
  void await_streams(int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return streams_ >= count; });
  }
  void say(const std::string& line) {
    const std::lock_guard lock(mutex_);
    for (const auto& exchange : open_) exchange->write(line + "\n");
  }
  void hang_up() {
    const std::lock_guard lock(mutex_);
    for (const auto& exchange : open_) exchange->finish();
    open_.clear();
  }

 private:
  http::Server server_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<http::Exchange>> open_;
  int streams_ = 0;
};

class StatusStreamsTest : public ::testing::Test {
 protected:
  StatusStreamsTest()
      : streams_(
            clock_, worker_.port(),
            [this](const std::string& model, StreamNews news) {
              const std::lock_guard lock(mutex_);
              EXPECT_EQ(model, "ns/r1");
              news_.push_back(news);
              changed_.notify_all();
            },
            Logger()) {}

  // The next news, waiting for it.
  StreamNews next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !news_.empty(); });
    const StreamNews news = news_.front();
    news_.erase(news_.begin());
    return news;
  }
  void follow(const std::string& token = "secret") {
    streams_.set("ns/r1", {{"u1", "127.0.0.1"}}, token);
  }

  Worker worker_;
  SystemClock clock_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<StreamNews> news_;
  StatusStreams streams_;
};

TEST_F(StatusStreamsTest, LinesBecomeTheLeadersStatusAndNewsByTheirWeight) {
  follow();
  worker_.await_streams(1);
  worker_.say(R"({"phase":"Loading","loadedBytes":1})");
  EXPECT_EQ(next(), StreamNews::kState);
  worker_.say(R"({"phase":"Loading","loadedBytes":2})");
  EXPECT_EQ(next(), StreamNews::kNumbers);
  worker_.say(R"({"phase":"Loading","loadedBytes":2})");
  worker_.say(R"({"phase":"Ready","loadedBytes":2,"queueDepth":5})");
  EXPECT_EQ(next(), StreamNews::kState) << "a line that says the same is no news";
  const auto latest = streams_.latest("ns/r1");
  ASSERT_TRUE(latest.contains("u1"));
  EXPECT_EQ(latest.at("u1").phase, "Ready");
  EXPECT_EQ(latest.at("u1").queue_depth, 5);
  EXPECT_EQ(streams_.connected(), 1u);
}

TEST_F(StatusStreamsTest, ALineWithAnotherTimeIsNoNewsButIsHeard) {
  follow();
  worker_.await_streams(1);
  worker_.say(R"({"phase":"Ready","queueDepth":5,"time":"2026-01-01T00:00:00Z"})");
  EXPECT_EQ(next(), StreamNews::kState);
  const WallTime first = streams_.latest("ns/r1").at("u1").received;
  worker_.say(R"({"phase":"Ready","queueDepth":5,"time":"2026-01-01T00:00:02Z"})");
  worker_.say(R"({"phase":"Ready","queueDepth":6,"time":"2026-01-01T00:00:04Z"})");
  EXPECT_EQ(next(), StreamNews::kNumbers) << "of the third line";
  EXPECT_EQ(streams_.latest("ns/r1").at("u1").queue_depth, 6);
  EXPECT_GT(streams_.latest("ns/r1").at("u1").received, first);
}

TEST_F(StatusStreamsTest, ALineThatCannotBeReadIsSkipped) {
  follow();
  worker_.await_streams(1);
  worker_.say("{broken");
  worker_.say(R"({"phase":"Ready"})");
  EXPECT_EQ(next(), StreamNews::kState);
  EXPECT_EQ(streams_.latest("ns/r1").at("u1").phase, "Ready");
}

TEST_F(StatusStreamsTest, ABrokenStreamIsBegunAgain) {
  follow();
  worker_.await_streams(1);
  worker_.say(R"({"phase":"Ready"})");
  EXPECT_EQ(next(), StreamNews::kState);
  worker_.hang_up();
  EXPECT_EQ(next(), StreamNews::kState);
  worker_.await_streams(2);
  worker_.say(R"({"phase":"Draining"})");
  EXPECT_EQ(next(), StreamNews::kState);
  EXPECT_EQ(streams_.latest("ns/r1").at("u1").phase, "Draining");
}

TEST_F(StatusStreamsTest, ARefusedTokenIsToldAndANewOneTried) {
  follow("wrong");
  EXPECT_EQ(next(), StreamNews::kRefused);
  follow("secret");
  worker_.await_streams(1);
  worker_.say(R"({"phase":"Ready"})");
  StreamNews news = next();
  while (news == StreamNews::kRefused) news = next();
  EXPECT_EQ(news, StreamNews::kState);
}

TEST_F(StatusStreamsTest, ALeaderThatIsNotNamedAnyMoreIsForgotten) {
  follow();
  worker_.await_streams(1);
  worker_.say(R"({"phase":"Ready"})");
  EXPECT_EQ(next(), StreamNews::kState);
  follow();  // the same again keeps the stream
  EXPECT_EQ(streams_.latest("ns/r1").size(), 1u);
  streams_.set("ns/other", {}, "");
  EXPECT_EQ(streams_.latest("ns/r1").size(), 1u);
  streams_.set("ns/r1", {}, "secret");
  EXPECT_TRUE(streams_.latest("ns/r1").empty());
}

}  // namespace
}  // namespace dsm::runtime

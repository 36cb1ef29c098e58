#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <streambuf>
#include <thread>

#include "ctl/testing/fake_cluster.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;
using testing::FakeCluster;

// A stream that another thread can wait on.
class Screen : public std::streambuf {
 public:
  void await(const std::string& text) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return shown_.find(text) != std::string::npos; });
  }
  std::string text() {
    const std::lock_guard lock(mutex_);
    return shown_;
  }

 protected:
  std::streamsize xsputn(const char* bytes, std::streamsize count) override {
    const std::lock_guard lock(mutex_);
    shown_.append(bytes, static_cast<std::size_t>(count));
    changed_.notify_all();
    return count;
  }
  int_type overflow(int_type byte) override {
    const char c = static_cast<char>(byte);
    xsputn(&c, 1);
    return byte;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string shown_;
};

TEST(Watch, shows_each_change_until_it_is_stopped) {
  FakeCluster fake;
  Screen screen;
  std::ostream out(&screen);
  Io io{fake.in, out, {}, false};
  SystemClock clock;  // the pause between two pictures
  kube::Client client(fake.transport, clock, {});
  Cluster cluster(client, "team-a");
  Result<int> code = kExitFailed;
  std::jthread watching([&](const std::stop_token& stop) {
    code = watch_status({.model = "r1", .watch = true}, cluster, io, stop);
  });
  screen.await("queue 3");
  fake.transport.await_streams(FakeCluster::kModels, 1);
  json changed = fake.example.model;
  changed["status"]["queueDepth"] = 7;
  changed["metadata"]["resourceVersion"] = "8";
  fake.transport.feed(FakeCluster::kModels,
                      json{{"type", "MODIFIED"}, {"object", changed}}.dump() + "\n");
  screen.await("queue 7");
  watching.request_stop();
  watching.join();
  ASSERT_TRUE(code) << code.error().message;
  EXPECT_EQ(*code, kExitDone);
}

TEST(Watch, a_model_that_is_not_there_is_said_at_once) {
  FakeCluster fake;
  const auto code = watch_status({.model = "r2", .watch = true}, fake.cluster, fake.io, {});
  ASSERT_FALSE(code);
  EXPECT_EQ(code.error().kind, ErrorKind::kNotFound);
}

}  // namespace
}  // namespace dsm::ctl

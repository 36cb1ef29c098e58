#include "kube/watcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>

#include "kube/testing/scripted_transport.h"

namespace dsm::kube {
namespace {

using ::testing::HasSubstr;
using testing::json_answer;
using testing::ScriptedTransport;
using Kind = WatchEvent::Kind;

constexpr const char* kPath = "/api/v1/namespaces/ns/pods";

// Events as they arrive, for a test thread to wait on.
class Sink {
 public:
  void take(std::vector<WatchEvent> events) {
    const std::lock_guard lock(mutex_);
    for (WatchEvent& event : events) events_.push_back(std::move(event));
    changed_.notify_all();
  }
  void await(Kind kind, std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] {
      return static_cast<std::size_t>(std::ranges::count(events_, kind, &WatchEvent::kind)) >=
             count;
    });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<WatchEvent> events_;
};

HttpResponse list_of(const std::string& version) {
  return json_answer(200, {{"kind", "PodList"},
                           {"apiVersion", "v1"},
                           {"metadata", {{"resourceVersion", version}}},
                           {"items", Json::array()}});
}

TEST(Watcher, ListsWatchesAndListsAgainWhenTheServerHasForgotten) {
  ScriptedTransport transport;
  transport.on_request([](const HttpRequest&) { return list_of("5"); });
  SystemClock clock;
  Client client(transport, clock, {});
  Sink sink;
  WatcherOptions options{kPods, "ns", "a=b"};
  Watcher watcher(client, options, [&](auto events) { sink.take(std::move(events)); }, Logger());
  transport.await_streams(kPath, 1);
  transport.feed(kPath,
                 R"({"type":"ADDED","object":{"metadata":{"name":"p","resourceVersion":"6"}}})"
                 "\n");
  sink.await(Kind::kApply, 1);
  transport.feed(kPath, R"({"type":"ERROR","object":{"kind":"Status","code":410}})"
                        "\n");
  transport.await_streams(kPath, 2);
  sink.await(Kind::kInitDone, 2);
  const auto requests = transport.requests();
  EXPECT_EQ(requests[0].target, std::string(kPath) + "?labelSelector=a%3Db&limit=100");
  EXPECT_THAT(requests[1].target, HasSubstr("watch=true"));
  EXPECT_THAT(requests[1].target, HasSubstr("labelSelector=a%3Db"));
  EXPECT_THAT(requests[1].target, HasSubstr("resourceVersion=5"));
}

TEST(Watcher, StopsPromptlyInTheMiddleOfAWatchAndOfAWait) {
  ScriptedTransport transport;
  transport.on_request([](const HttpRequest&) { return list_of("5"); });
  SystemClock clock;
  Client client(transport, clock, {});
  {
    Watcher watcher(client, {kPods, "ns", ""}, [](auto) {}, Logger());
    transport.await_streams(kPath, 1);
  }
  ManualClock frozen;
  Client waiting(transport, frozen, {});
  std::atomic<bool> failed = false;
  transport.on_request([&](const HttpRequest&) -> Result<HttpResponse> {
    failed = true;
    failed.notify_all();
    return fail(ErrorKind::kTransient, "down");
  });
  {
    Watcher watcher(waiting, {kPods, "ns", ""}, [](auto) {}, Logger());
    failed.wait(false);
  }
  SUCCEED() << "both destructors returned";
}

}  // namespace
}  // namespace dsm::kube

#include "kube/optional_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>

#include "kube/testing/scripted_transport.h"

namespace dsm::kube {
namespace {

using ::testing::ElementsAre;
using testing::json_answer;
using testing::ScriptedTransport;
using testing::status_answer;
using Kind = WatchEvent::Kind;

constexpr const char* kVersion = "/apis/scheduling.x-k8s.io/v1alpha1";
constexpr const char* kPath = "/apis/scheduling.x-k8s.io/v1alpha1/podgroups";

HttpResponse kinds(const std::vector<std::string>& names) {
  Json list = {{"kind", "APIResourceList"}, {"resources", Json::array()}};
  for (const std::string& name : names) list["resources"].push_back({{"name", name}});
  return json_answer(200, list);
}

class OptionalWatchTest : public ::testing::Test {
 protected:
  OptionalWatchTest() {
    transport_.on_request([this](const HttpRequest& request) -> Result<HttpResponse> {
      const std::lock_guard lock(mutex_);
      if (request.target != kVersion) {
        return json_answer(200, {{"kind", "PodGroupList"},
                                 {"apiVersion", "scheduling.x-k8s.io/v1alpha1"},
                                 {"metadata", {{"resourceVersion", "5"}}},
                                 {"items", Json::array()}});
      }
      ++asked_;
      changed_.notify_all();
      return discovery_;
    });
  }
  void start() {
    watch_ = std::make_unique<OptionalWatch>(
        client_, WatcherOptions{kPodGroups, "", "a=b"},
        [this](const std::vector<WatchEvent>& events) {
          const std::lock_guard lock(mutex_);
          for (const WatchEvent& event : events) {
            if (event.kind == Kind::kInitDone) said_.emplace_back("list");
            if (event.kind == Kind::kApply) said_.emplace_back("event");
          }
          changed_.notify_all();
        },
        [this](bool there) {
          const std::lock_guard lock(mutex_);
          said_.emplace_back(there ? "there" : "not there");
          changed_.notify_all();
        },
        Logger());
  }
  // What the server says of the group's version from now on.
  void discovery(Result<HttpResponse> answer) {
    const std::lock_guard lock(mutex_);
    discovery_ = std::move(answer);
  }
  // Time passes until discovery was asked so often in all.
  void await_asked(int times) {
    std::unique_lock lock(mutex_);
    let_time_pass(lock, [&] { return asked_ >= times; });
  }
  std::vector<std::string> await_said(std::size_t count) {
    std::unique_lock lock(mutex_);
    let_time_pass(lock, [&] { return said_.size() >= count; });
    return said_;
  }
  template <typename Done>
  void let_time_pass(std::unique_lock<std::mutex>& lock, Done done) {
    while (!changed_.wait_for(lock, Millis(5), done)) {
      clock_.advance(Seconds(1));
      passed_ += Seconds(1);
    }
  }

  ScriptedTransport transport_;
  ManualClock clock_;
  Client client_{transport_, clock_, {}};
  std::mutex mutex_;
  std::condition_variable changed_;
  Result<HttpResponse> discovery_ = HttpResponse{404, {}, "404 page not found\n"};
  int asked_ = 0;
  Seconds passed_{0};
  std::vector<std::string> said_;
  std::unique_ptr<OptionalWatch> watch_;
};

TEST_F(OptionalWatchTest, AKindThatIsNotThereIsAskedForSeldomAndToldOnce) {
  start();
  await_asked(4);
  EXPECT_GE(passed_, 3 * OptionalKind::kAskEvery);
  EXPECT_THAT(await_said(1), ElementsAre("not there"));
  for (const HttpRequest& request : transport_.requests()) EXPECT_EQ(request.target, kVersion);
}

TEST_F(OptionalWatchTest, AKindThatComesIsWatchedAndOneThatGoesIsNot) {
  start();
  await_said(1);
  discovery(kinds({"elasticquotas", "podgroups", "podgroups/status"}));
  EXPECT_THAT(await_said(3), ElementsAre("not there", "list", "there"));
  transport_.await_streams(kPath, 1);
  transport_.feed(kPath,
                  R"({"type":"ADDED","object":{"metadata":{"name":"g","resourceVersion":"6"}}})"
                  "\n");
  await_said(4);
  // Another list is no news of the kind.
  transport_.feed(kPath, R"({"type":"ERROR","object":{"kind":"Status","code":410}})"
                         "\n");
  transport_.await_streams(kPath, 2);
  discovery(kinds({"elasticquotas"}));
  EXPECT_THAT(await_said(6),
              ElementsAre("not there", "list", "there", "event", "list", "not there"));
}

TEST_F(OptionalWatchTest, AServerThatDoesNotAnswerSaysNothing) {
  discovery(fail(ErrorKind::kTransient, "connection refused"));
  start();
  await_asked(1);
  discovery(kinds({"podgroups"}));
  EXPECT_THAT(await_said(2), ElementsAre("list", "there"));
  discovery(status_answer(500, "InternalError"));
  await_asked(4);
  watch_.reset();
  EXPECT_THAT(await_said(2), ElementsAre("list", "there"));
}

TEST_F(OptionalWatchTest, WhoMayNotAskDoesWithout) {
  discovery(status_answer(403, "Forbidden"));
  start();
  EXPECT_THAT(await_said(1), ElementsAre("not there"));
}

TEST_F(OptionalWatchTest, StrangeAnswersAreNoKind) {
  for (const char* strange : {"", "[]", "{}", R"({"resources": {}})", R"({"resources": [1, {}]})",
                              R"({"resources": [{"name": 3}]})"}) {
    transport_.next(HttpResponse{200, {}, strange});
    const auto served = is_served(client_, kPodGroups);
    EXPECT_TRUE(served && !*served) << strange;
  }
}

}  // namespace
}  // namespace dsm::kube

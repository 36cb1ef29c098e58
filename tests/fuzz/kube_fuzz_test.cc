// A server that answers anything at all: the watch machine goes on, and keeps what it promises
// about its events.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "kube/config.h"
#include "kube/watch.h"
#include "tests/fuzz/mutate.h"

namespace dsm::kube {
namespace {

using fuzz::mutate;
using fuzz::Random;

HttpResponse answer(Random& random) {
  static constexpr int kStatuses[] = {200, 200, 200, 200, 200, 401, 403,
                                      404, 409, 410, 429, 500, 503, 0};
  static constexpr std::string_view kBodies[] = {
      R"({"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"a"}}]})",
      R"({"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"9","continue":"t"},"items":[]})",
      R"({"kind":"Status","apiVersion":"v1","status":"Failure","code":410,"reason":"Expired","message":"too old"})"};
  HttpResponse response;
  response.status = random.pick(kStatuses);
  response.body = std::string(random.pick(kBodies));
  if (random.chance(40)) response.body = mutate(response.body, random);
  if (random.chance(20)) response.headers["retry-after"] = std::string(random.pick(fuzz::kNasty));
  return response;
}

std::string lines(Random& random) {
  static constexpr std::string_view kLines[] = {
      R"({"type":"ADDED","object":{"metadata":{"name":"b","resourceVersion":"11"}}})",
      R"({"type":"DELETED","object":{"metadata":{"name":"b","resourceVersion":"12"}}})",
      R"({"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"13"}}})",
      R"({"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}})"};
  std::string text;
  for (std::size_t n = random.below(4); n > 0; --n) {
    std::string line(random.pick(kLines));
    text += (random.chance(25) ? mutate(line, random) : line) + "\n";
  }
  // A chunk ends anywhere.
  if (random.chance(40)) text.resize(random.below(text.size() + 1));
  return text;
}

TEST(WatchFuzz, WhateverTheServerSaysTheMachineGoesOnAndKeepsItsPromises) {
  using Do = WatchAction::Kind;
  using Event = WatchEvent::Kind;
  std::uint64_t lists = 0;
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    Random random(seed);
    TimePoint now{};
    WatchState state;
    bool listing = false;  // between kInit and kInitDone
    bool synced = false;   // a whole list was seen
    WatchStep result = step(std::move(state), watch_input::Begin{}, now, 0.5);
    for (int i = 0; i < 200; ++i) {
      for (const WatchEvent& event : result.events) {
        switch (event.kind) {
          case Event::kInit:
            listing = true;
            break;
          case Event::kInitApply:
            EXPECT_TRUE(listing);
            break;
          case Event::kInitDone:
            EXPECT_TRUE(listing);
            listing = false;
            synced = true;
            ++lists;
            break;
          case Event::kApply:
          case Event::kDelete:
            EXPECT_TRUE(synced && !listing);
            EXPECT_TRUE(event.object.is_object());
            break;
        }
      }
      now += Millis{static_cast<long>(random.below(5000))};
      double random_number = static_cast<double>(random.below(1000)) / 1000.0;
      state = std::move(result.state);
      switch (result.action.kind) {
        case Do::kWait:
          EXPECT_GE(result.action.delay.count(), 0);
          EXPECT_LE(result.action.delay, 2 * kWatchLongestDelay);
          result = step(std::move(state), watch_input::Begin{}, now, random_number);
          break;
        case Do::kList:
          result =
              random.chance(10)
                  ? step(std::move(state), watch_input::Listed{fail(ErrorKind::kTransient, "lost")},
                         now, random_number)
                  : step(std::move(state), watch_input::Listed{answer(random)}, now, random_number);
          break;
        case Do::kWatch:
        case Do::kRead:
          if (random.chance(70)) {
            std::string text = lines(random);
            result = step(std::move(state), watch_input::Bytes{text}, now, random_number);
          } else if (random.chance(50)) {
            result = step(std::move(state), watch_input::Ended{fail(ErrorKind::kTransient, "cut")},
                          now, random_number);
          } else {
            result = step(std::move(state), watch_input::Ended{answer(random)}, now, random_number);
          }
          break;
      }
    }
  }
  EXPECT_GT(lists, 300U);
}

TEST(KubeconfigFuzz, ABrokenFileIsRefusedWithASentence) {
  std::string good = R"(apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: c, user: u, namespace: n}}]
clusters: [{name: c, cluster: {server: "https://127.0.0.1:6443", certificate-authority-data: "YWJj"}}]
users: [{name: u, user: {token: secret}}]
)";
  ASSERT_TRUE(parse_kubeconfig(good, "/").has_value());
  Random random(1);
  int accepted = 0;
  for (int i = 0; i < 4000; ++i) {
    Result<ClientConfig> config = parse_kubeconfig(mutate(good, random), "/");
    if (config) {
      ++accepted;
      EXPECT_FALSE(config->server.empty());
    } else {
      EXPECT_FALSE(config.error().message.empty());
      EXPECT_EQ(config.error().message.find("secret"), std::string::npos);
    }
  }
  EXPECT_GT(accepted, 100);
}

}  // namespace
}  // namespace dsm::kube

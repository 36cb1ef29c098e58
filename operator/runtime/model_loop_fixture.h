// A ModelLoop one look at a time: lists come from the test, what is asked of the API server is
// kept. For tests.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "kube/testing/scripted_transport.h"
#include "operator/runtime/model_loop.h"

namespace dsm::runtime {

// Nobody to listen to. What the loop said last stays.
class KeptLines final : public LeaderLines {
 public:
  void set(const std::string&, const std::vector<Leader>&, const std::string& now) override {
    token = now;
  }
  std::map<std::string, plan::LeaderStatus> latest(const std::string&) const override { return {}; }
  void tell_keys(const std::string&, const std::vector<Leader>&, const std::string&,
                 const plan::KeyMessage&) override {}
  void tell_sleep(const std::string&, const std::vector<Leader>&, const std::string&,
                  bool) override {}
  void forget(const std::string&) override {}

  std::string token;
};

class ModelLoopFixture : public ::testing::Test {
 protected:
  // Lists of all kinds, these and otherwise empty ones.
  void list(const std::vector<Json>& models, const std::vector<Json>& pods = {}) {
    using Kind = kube::WatchEvent::Kind;
    for (Feed& feed : feeds_) {
      std::vector<kube::WatchEvent> events = {{Kind::kInit, nullptr}};
      const auto add = [&](const std::vector<Json>& objects) {
        for (const Json& one : objects) events.push_back({Kind::kInitApply, one});
      };
      if (feed.resource.kind == kube::kDeepSeekModels.kind) add(models);
      if (feed.resource.kind == kube::kPods.kind) add(pods);
      events.push_back({Kind::kInitDone, {{"metadata", {{"resourceVersion", "100"}}}}});
      feed.take(std::move(events));
    }
    ASSERT_TRUE(loop_.synced());
  }
  // All that is due now.
  void look() {
    while (loop_.step()) {
    }
  }

  kube::testing::ScriptedTransport transport_;
  ManualClock clock_;
  MetricsRegistry registry_;
  kube::Client client_{transport_, clock_, {}};
  kube::EventRecorder events_{client_, "deepseek-operator", "op-1", Logger()};
  ControllerMetrics metrics_{registry_, "deepseekmodel", 1};
  KeptLines lines_;
  ModelLoop loop_{{}, client_, client_, events_, metrics_, lines_, Logger()};
  std::vector<Feed> feeds_ = loop_.feeds();
};

}  // namespace dsm::runtime

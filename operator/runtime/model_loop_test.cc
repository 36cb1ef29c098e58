// The loop one look at a time: lists come from the test, what is asked of the API server is kept.
#include "operator/runtime/model_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kube/testing/scripted_transport.h"

namespace dsm::runtime {
namespace {

using kube::testing::ScriptedTransport;
using kube::testing::status_answer;
using ::testing::HasSubstr;

class NoLines final : public LeaderLines {
 public:
  void set(const std::string&, const std::vector<Leader>&, const std::string&) override {}
  std::map<std::string, plan::LeaderStatus> latest(const std::string&) const override { return {}; }
  void tell_keys(const std::string&, const std::vector<Leader>&, const std::string&,
                 const plan::KeyMessage&) override {}
  void tell_sleep(const std::string&, const std::vector<Leader>&, const std::string&,
                  bool) override {}
  void forget(const std::string&) override {}
};

Json model(const std::string& name, int generation, int observed) {
  return {{"apiVersion", "deepseek-operator.io/v1alpha1"},
          {"kind", "DeepSeekModel"},
          {"metadata",
           {{"name", name},
            {"namespace", "ns"},
            {"uid", "u-" + name},
            {"generation", generation},
            {"resourceVersion", "50"}}},
          {"spec", {{"model", {{"uri", "image:///models/tiny"}}}}},
          {"status", {{"observedGeneration", observed}}}};
}

class ModelLoopTest : public ::testing::Test {
 protected:
  // The first lists of all kinds; of models these.
  void list(const std::vector<Json>& models) {
    using Kind = kube::WatchEvent::Kind;
    for (ModelLoop::Feed& feed : loop_.feeds()) {
      std::vector<kube::WatchEvent> events = {{Kind::kInit, nullptr}};
      if (feed.resource.kind == kube::kDeepSeekModels.kind) {
        for (const Json& one : models) events.push_back({Kind::kInitApply, one});
      }
      events.push_back({Kind::kInitDone, {{"metadata", {{"resourceVersion", "100"}}}}});
      feed.take(std::move(events));
    }
    ASSERT_TRUE(loop_.synced());
  }

  ScriptedTransport transport_;
  SystemClock clock_;
  MetricsRegistry registry_;
  kube::Client client_{transport_, clock_, {}};
  kube::EventRecorder events_{client_, "deepseek-operator", "op-1", Logger()};
  ControllerMetrics metrics_{registry_, "deepseekmodel", 1};
  NoLines lines_;
  ModelLoop loop_{{}, client_, client_, events_, metrics_, lines_, Logger()};
};

TEST_F(ModelLoopTest, WhoBeginsToLeadLooksFirstAtWhatWasEditedWhileNobodyLed) {
  transport_.on_request([](const kube::HttpRequest&) { return status_answer(404, "NotFound"); });
  list({model("a", 1, 1), model("b", 1, 1), model("c", 2, 1), model("d", 1, 1)});
  while (loop_.step()) {
  }
  ASSERT_TRUE(transport_.requests().empty());
  loop_.lead(true);
  ASSERT_TRUE(loop_.step());
  ASSERT_FALSE(transport_.requests().empty());
  EXPECT_THAT(transport_.requests().front().target, HasSubstr("/deepseekmodels/c"));
}

}  // namespace
}  // namespace dsm::runtime

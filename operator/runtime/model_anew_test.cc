// A model that is deleted and made anew under its name, as a replica sees it that does not lead and
// was told both at once.
#include <gtest/gtest.h>

#include "kube/testing/scripted_transport.h"
#include "operator/api/names.h"
#include "operator/runtime/model_loop.h"

namespace dsm::runtime {
namespace {

using kube::testing::json_answer;
using kube::testing::ScriptedTransport;

class LastToken final : public LeaderLines {
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

Json owner(const std::string& uid) {
  return Json::array({{{"apiVersion", kube::kDeepSeekModels.api_version()},
                       {"kind", kube::kDeepSeekModels.kind},
                       {"name", "m"},
                       {"uid", uid},
                       {"controller", true}}});
}

Json model(const std::string& uid) {
  return {
      {"apiVersion", kube::kDeepSeekModels.api_version()},
      {"kind", kube::kDeepSeekModels.kind},
      {"metadata", {{"name", "m"}, {"namespace", "ns"}, {"uid", uid}, {"resourceVersion", "50"}}},
      {"spec", {{"model", {{"uri", "image:///models/tiny"}}}}}};
}

Json leader_of(const std::string& uid) {
  return {{"metadata",
           {{"name", "m-r1-0-0"},
            {"namespace", "ns"},
            {"uid", "pod-" + uid},
            {"resourceVersion", "50"},
            {"labels",
             {{std::string(api::kManagedByLabel), std::string(api::kManagedByValue)},
              {std::string(api::kModelLabel), "m"},
              {std::string(api::kRevisionLabel), "r1"},
              {std::string(api::kGroupLabel), "0"},
              {std::string(api::kPodIndexLabel), "0"}}},
            {"ownerReferences", owner(uid)}}},
          {"status",
           {{"phase", "Running"},
            {"podIP", "10.0.0.1"},
            {"containerStatuses",
             Json::array({{{"name", "worker"}, {"state", {{"running", Json::object()}}}}})}}}};
}

class ModelAnewTest : public ::testing::Test {
 protected:
  ModelAnewTest() {
    transport_.on_request([this](const kube::HttpRequest&) {
      ++reads_;
      return json_answer(
          200, {{"kind", "Secret"},
                {"metadata",
                 {{"name", "m-internal"}, {"namespace", "ns"}, {"ownerReferences", owner(uid_)}}},
                {"data", {{"token", uid_ == "u-1" ? "b25l" : "dHdv"}}}});
    });
  }

  // Lists of all kinds bring the model with this uid and its leader; then what is due is done.
  void list(const std::string& uid) {
    using Kind = kube::WatchEvent::Kind;
    uid_ = uid;
    for (Feed& feed : feeds_) {
      std::vector<kube::WatchEvent> events = {{Kind::kInit, nullptr}};
      const std::string kind(feed.resource.kind);
      if (kind == kube::kDeepSeekModels.kind) events.push_back({Kind::kInitApply, model(uid)});
      if (kind == kube::kPods.kind) events.push_back({Kind::kInitApply, leader_of(uid)});
      events.push_back({Kind::kInitDone, {{"metadata", {{"resourceVersion", "100"}}}}});
      feed.take(std::move(events));
    }
    clock_.advance(Seconds(1));
    while (loop_.step()) {
    }
  }

  std::string uid_;
  int reads_ = 0;
  ScriptedTransport transport_;
  ManualClock clock_;
  MetricsRegistry registry_;
  kube::Client client_{transport_, clock_, {}};
  kube::EventRecorder events_{client_, "deepseek-operator", "op-1", Logger()};
  ControllerMetrics metrics_{registry_, "deepseekmodel", 1};
  LastToken lines_;
  ModelLoop loop_{{}, client_, client_, events_, metrics_, lines_, Logger()};
  std::vector<Feed> feeds_ = loop_.feeds();
};

TEST_F(ModelAnewTest, ItsLeadersAreHeardWithItsOwnToken) {
  list("u-1");
  EXPECT_EQ(lines_.token, "one");
  list("u-2");
  EXPECT_EQ(lines_.token, "two");
  list("u-2");
  EXPECT_EQ(reads_, 2) << "one that is its own is kept";
}

}  // namespace
}  // namespace dsm::runtime

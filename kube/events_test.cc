#include "kube/events.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kube/testing/scripted_transport.h"

namespace dsm::kube {
namespace {

using testing::json_answer;
using testing::ScriptedTransport;

const Json kModel = {{"apiVersion", "deepseek-operator.io/v1alpha1"},
                     {"kind", "DeepSeekModel"},
                     {"metadata", {{"name", "r1"}, {"namespace", "ns"}, {"uid", "u1"}}}};

class Events : public ::testing::Test {
 protected:
  Events() {
    transport_.on_request([](const HttpRequest&) { return json_answer(200, Json::object()); });
  }
  void record(const std::string& note) { recorder_.record(kModel, {false, "Ready", "Roll", note}); }

  ScriptedTransport transport_;
  ManualClock clock_;
  Client client_{transport_, clock_, {}};
  EventRecorder recorder_{client_, "deepseek-operator", "op-1", Logger()};
};

TEST_F(Events, ANewNoteBecomesAnEventAboutItsObject) {
  recorder_.record(kModel, {true, "CrashLoop", "Replacing", "rank 1 of group 0 crashed"});
  const auto requests = transport_.requests();
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_EQ(requests[0].method, "POST");
  EXPECT_EQ(requests[0].target,
            "/apis/events.k8s.io/v1/namespaces/ns/events?fieldManager=deepseek-operator");
  const Json event = Json::parse(requests[0].body);
  EXPECT_EQ(event["type"], "Warning");
  EXPECT_EQ(event["reason"], "CrashLoop");
  EXPECT_EQ(event["note"], "rank 1 of group 0 crashed");
  EXPECT_EQ(event["regarding"]["uid"], "u1");
  EXPECT_EQ(event["reportingController"], "deepseek-operator");
}

TEST_F(Events, TheSameWordsAreCountedInOneSeriesAtMostEachMinute) {
  record("a");
  record("a");
  record("a");
  EXPECT_EQ(transport_.requests().size(), 1u);
  clock_.advance(Seconds(61));
  record("a");
  const auto requests = transport_.requests();
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[1].method, "PATCH");
  EXPECT_EQ(Json::parse(requests[1].body)["series"]["count"], 4);
  EXPECT_TRUE(requests[1].target.find(
                  Json::parse(requests[0].body)["metadata"]["name"].get<std::string>()) !=
              std::string::npos);
  clock_.advance(std::chrono::minutes(11));
  record("a");
  EXPECT_EQ(transport_.requests().back().method, "POST");
}

TEST_F(Events, AnObjectThatSaysTooMuchIsCutShort) {
  for (int i = 0; i < 100; ++i) record(std::to_string(i));
  EXPECT_EQ(transport_.requests().size(), 25u);
  clock_.advance(std::chrono::minutes(10));
  for (int i = 100; i < 200; ++i) record(std::to_string(i));
  EXPECT_EQ(transport_.requests().size(), 27u);
}

TEST_F(Events, LongNotesAreCutAtAWholeCharacter) {
  std::string note(1023, 'x');
  note += "ü and more";
  record(note);
  const Json event = Json::parse(transport_.requests()[0].body);
  EXPECT_EQ(event["note"], std::string(1023, 'x'));
}

}  // namespace
}  // namespace dsm::kube

// The simulated autoscaler follows what it is told, and does not scale down by what it is not told.
#include "operator/faults/hpa_controller.h"

#include <gtest/gtest.h>

#include "operator/plan/autoscaler.h"

namespace dsm::faults {
namespace {

class HpaControllerTest : public ::testing::Test {
 protected:
  HpaControllerTest() {
    server_.make_model("ns", "m", {{"replicas", 1}});
    api::Scaling scaling;
    scaling.max_replicas = 9;
    scaling.scale_down_window_seconds = 30;
    const Json& model = *server_.objects().find(kube::kDeepSeekModels, "ns/m");
    Json autoscaler = plan::autoscaler_json({"m", "ns", model["metadata"]["uid"]}, scaling,
                                            plan::MetricSource::kExternal, /*cold_start_s=*/60);
    autoscaler["metadata"]["uid"] = "hpa";
    server_.objects().put(kube::kAutoscalers, std::move(autoscaler));
  }
  // Its replicas after so many seconds. What it asks for is there at once.
  int after(int seconds) {
    for (int i = 0; i < seconds; ++i) {
      clock_.advance(Seconds(1));
      server_.pass_second();
      hpa_.pass_second();
      Json model = *server_.objects().find(kube::kDeepSeekModels, "ns/m");
      model["status"]["replicas"] = model["spec"]["replicas"];
      server_.objects().put(kube::kDeepSeekModels, std::move(model));
    }
    return (*server_.objects().find(kube::kDeepSeekModels, "ns/m"))["spec"]["replicas"];
  }

  ManualClock clock_;
  ApiServer server_{clock_};
  Result<double> waiting_ = 0.0;
  HpaController hpa_{server_,
                     {.ask = [this](const std::string&, const std::string&) { return waiting_; },
                      .scales = [](const std::string&, int, int) {}}};
};

TEST_F(HpaControllerTest, ItAddsWhatIsAllowedInAPeriodAndRemovesAfterTheWindow) {
  waiting_ = 45;
  EXPECT_EQ(after(16), 5) << "four more in a minute";
  EXPECT_EQ(after(30), 5);
  EXPECT_EQ(after(45), 9);
  waiting_ = 5;
  EXPECT_EQ(after(15), 9);
  EXPECT_EQ(after(45), 1);
}

TEST_F(HpaControllerTest, WithoutANumberItStaysAndBoundsHoldAllTheSame) {
  waiting_ = 20;
  EXPECT_EQ(after(16), 4);
  waiting_ = fail(ErrorKind::kTransient, "not known");
  EXPECT_EQ(after(120), 4);
  server_.edit_model("ns/m", {{"replicas", 12}});
  EXPECT_EQ(after(15), 9);
  server_.edit_model("ns/m", {{"replicas", 0}});
  EXPECT_EQ(after(60), 0) << "turned off by zero";
}

}  // namespace
}  // namespace dsm::faults

#include "operator/metrics_api/series.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dsm::metrics_api {
namespace {

using testing::HasSubstr;
using testing::Not;

class Series : public testing::Test {
 protected:
  static plan::ModelLoad load(const std::string& model, long queue,
                              const std::string& unknown = "") {
    plan::ModelLoad one;
    one.model = model;
    one.unknown = unknown;
    one.queue_depth = queue;
    one.queue_age_s = 9;
    one.running = 4;
    one.kv_used = 123;
    one.kv_total = 1000;
    return one;
  }
  std::string text() const { return metrics_text(registry); }

  MetricsRegistry registry;
  LoadSeries series{registry};
};

TEST_F(Series, are_the_four_numbers_of_each_model) {
  series.update({{"a", {load("r1", 7), load("v3", 0)}}, {"b", {load("r1", 2)}}});
  for (const char* line : {"dsm_queue_depth{model=\"r1\",namespace=\"a\"} 7\n",
                           "dsm_queue_depth{model=\"v3\",namespace=\"a\"} 0\n",
                           "dsm_queue_depth{model=\"r1\",namespace=\"b\"} 2\n",
                           "dsm_queue_age_seconds{model=\"r1\",namespace=\"a\"} 9\n",
                           "dsm_requests_running{model=\"r1\",namespace=\"a\"} 4\n",
                           "dsm_kv_cache_usage_ratio{model=\"r1\",namespace=\"a\"} 0.123\n"}) {
    EXPECT_THAT(text(), HasSubstr(line));
  }
  series.update({{"a", {load("r1", 8)}}});
  EXPECT_THAT(text(), HasSubstr("dsm_queue_depth{model=\"r1\",namespace=\"a\"} 8\n"));
}

TEST_F(Series, end_with_their_model) {
  series.update({{"a", {load("r1", 7), load("v3", 1)}}});
  series.update({{"a", {load("v3", 1)}}});
  EXPECT_THAT(text(), Not(HasSubstr("r1")));
  EXPECT_THAT(text(), HasSubstr("v3"));
  series.update({});
  EXPECT_THAT(text(), Not(HasSubstr("{")));
}

TEST_F(Series, are_not_there_while_the_number_is_not_known) {
  series.update({{"a", {load("r1", 0, "its leader is silent")}}});
  EXPECT_THAT(text(), Not(HasSubstr("r1")));
  series.update({{"a", {load("r1", 3)}}});
  EXPECT_THAT(text(), HasSubstr("dsm_queue_depth{model=\"r1\",namespace=\"a\"} 3\n"));
  series.update({{"a", {load("r1", 3, "its leader is silent")}}});
  EXPECT_THAT(text(), Not(HasSubstr("r1")));
}

TEST_F(Series, are_as_many_as_there_are_models) {
  for (int i = 0; i < 50; ++i) series.update({{"a", {load("m" + std::to_string(i), i)}}});
  std::size_t lines = 0;
  for (const auto& family : registry.Collect()) lines += family.metric.size();
  EXPECT_EQ(lines, kNumberCount);
}

}  // namespace
}  // namespace dsm::metrics_api

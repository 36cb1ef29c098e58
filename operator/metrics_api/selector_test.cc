#include "operator/metrics_api/selector.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dsm::metrics_api {
namespace {

using testing::HasSubstr;

bool selects(const char* text, const std::map<std::string, std::string>& labels) {
  const auto selector = parse_selector(text);
  EXPECT_TRUE(selector) << text;
  return selector && matches(*selector, labels);
}

TEST(Selector, says_which_labels_are_meant) {
  const std::map<std::string, std::string> r1 = {{"model", "r1"}};
  for (const char* text : {"", " ", "model=r1", "model == r1", "model in (v3, r1)", "model",
                           "model!=v3", "model notin (v3)", "!team", "model=r1,!team", "team!=a"}) {
    EXPECT_TRUE(selects(text, r1)) << text;
  }
  for (const char* text : {"model=v3", "model in (v3)", "!model", "model!=r1",
                           "model notin (r1,v3)", "team", "team=a", "model=r1,team", "model="}) {
    EXPECT_FALSE(selects(text, r1)) << text;
  }
}

TEST(Selector, that_cannot_be_read_says_where) {
  for (const char* text : {"=", "model=r1,", ",", "model in", "model in (", "model in (a",
                           "model>3", "model r1", "model=r1 team", "!", "model=\"r1\""}) {
    const auto selector = parse_selector(text);
    ASSERT_FALSE(selector) << text;
    EXPECT_EQ(selector.error().kind, ErrorKind::kInvalid);
  }
  EXPECT_THAT(parse_selector("model>3").error().message, HasSubstr("at \">3\""));
  EXPECT_FALSE(parse_selector(std::string(5000, 'a')));
}

}  // namespace
}  // namespace dsm::metrics_api

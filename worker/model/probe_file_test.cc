// probe.json: what is taken, and what is refused by name.
#include "worker/model/probe_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dsm::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ProbeFile, HasAPromptAndItsAnswer) {
  const auto probe = parse_probe_file(R"({"prompt": [0, 99], "answer": [5]})", 100, 64);
  ASSERT_TRUE(probe) << probe.error().message;
  EXPECT_THAT(probe->prompt, ElementsAre(0, 99));
  EXPECT_THAT(probe->answer, ElementsAre(5));
}

TEST(ProbeFile, IsRefusedByField) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "not a JSON object"},
      {"[1]", "not a JSON object"},
      {R"({"answer": [5]})", "field prompt is missing"},
      {R"({"prompt": [5], "answer": []})", "field answer is not a list"},
      {R"({"prompt": "hello", "answer": [5]})", "field prompt is not a list"},
      {R"({"prompt": [100], "answer": [5]})", "field prompt has 100"},
      {R"({"prompt": [-1], "answer": [5]})", "field prompt has -1"},
      {R"({"prompt": [1.5], "answer": [5]})", "field prompt has 1.5"},
      {R"({"prompt": [1, 2, 3], "answer": [5, 6]})", "more than 4 tokens"},
  };
  for (const auto& [text, words] : cases) {
    const auto probe = parse_probe_file(text, 100, 4);
    ASSERT_FALSE(probe) << text;
    EXPECT_EQ(probe.error().kind, ErrorKind::kInvalid);
    EXPECT_THAT(probe.error().message, HasSubstr(words));
  }
}

TEST(ProbeFile, NeedNotBeThere) {
  const auto none = load_probe_file("/nowhere", 100, 64);
  ASSERT_TRUE(none);
  EXPECT_FALSE(*none);
}

TEST(ProbeFile, IsThereBesideTheTestModel) {
  const auto probe = load_probe_file("models/deepseek-tiny", 1536, 64);
  ASSERT_TRUE(probe) << probe.error().message;
  EXPECT_TRUE(*probe);
}

}  // namespace
}  // namespace dsm::model

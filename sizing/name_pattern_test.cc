#include "sizing/name_pattern.h"

#include <gtest/gtest.h>

#include <string>

namespace dsm::sizing {
namespace {

bool matches(std::string_view pattern, std::string_view name) {
  const auto parsed = NamePattern::parse(pattern);
  EXPECT_TRUE(parsed) << pattern;
  return parsed && parsed->matches(name);
}

TEST(NamePattern, is_matched_from_the_beginning_of_a_name) {
  EXPECT_TRUE(matches("lm_head", "lm_head"));
  EXPECT_TRUE(matches("lm", "lm_head")) << "as re.match has it";
  EXPECT_FALSE(matches("head", "lm_head"));
  EXPECT_TRUE(matches(".*head", "lm_head"));
  EXPECT_FALSE(matches("lm_head$", "lm_heads"));
  EXPECT_TRUE(matches("^lm_head$", "lm_head"));
  EXPECT_TRUE(matches("", "anything"));
}

TEST(NamePattern, has_what_configurations_have) {
  const std::string gate = "model.layers.12.mlp.gate";
  EXPECT_TRUE(matches(R"(.*mlp\.gate$)", gate));
  EXPECT_FALSE(matches(R"(.*mlp\.gate$)", gate + "_proj"));
  EXPECT_TRUE(matches(R"(.*mlp\.(gate|up|gate_up|down)_proj.*)", gate + "_proj"));
  EXPECT_FALSE(matches(R"(.*mlp\.(gate|up|gate_up|down)_proj.*)", gate));
  EXPECT_TRUE(matches(R"(model\.layers\.(0|12)\..*)", gate));
  EXPECT_FALSE(matches(R"(model\.layers\.(0|1)\..*)", gate));
  EXPECT_TRUE(matches(R"(model\.layers\.\d+\.mlp)", gate));
  EXPECT_TRUE(matches(R"(model\.layers\.[0-9][0-9]\.mlp)", gate));
  EXPECT_FALSE(matches(R"(model\.layers\.[^0-9])", gate));
  EXPECT_TRUE(matches("(?:model.)?layers", "layers.1"));
  EXPECT_TRUE(matches("(?:model.)?layers", "model.layers.1"));
  EXPECT_TRUE(matches("(a|b)+?c", "ababc"));
  EXPECT_FALSE(matches("(a|b)+c", "c"));
  EXPECT_TRUE(matches(R"([\w.-]+$)", gate));
  EXPECT_TRUE(matches("[]a]+$", "a]a"));
}

TEST(NamePattern, that_is_wrong_or_not_known_is_none) {
  for (const char* pattern :
       {"(", ")", "a)", "*a", "[a", "[", "\\", "a{2}", "(?!a)", "(?i)a", "\\b", "\\1", "[a-\\d]"}) {
    EXPECT_FALSE(NamePattern::parse(pattern)) << pattern;
  }
  EXPECT_FALSE(NamePattern::parse(std::string(NamePattern::kLongest + 1, 'a')));
}

// A matcher that tries one way after the other would take 2^60 steps.
TEST(NamePattern, that_has_many_ways_to_fail_costs_no_more_than_its_length) {
  std::string nested = "a";
  for (int i = 0; i < 60; ++i) nested = "(" + nested + "|a)*";
  EXPECT_FALSE(matches(nested + "b$", std::string(100, 'a')));
  EXPECT_TRUE(NamePattern::parse(std::string(200, '(') + std::string(200, ')')));
}

}  // namespace
}  // namespace dsm::sizing

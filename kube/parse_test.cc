#include "kube/parse.h"

#include <gtest/gtest.h>

namespace dsm::kube {
namespace {

using nlohmann::json;

TEST(ParseAnswer, LeavesOutWhoWroteWhichField) {
  const json object = parse_answer(
      R"({"type":"ADDED","object":{"metadata":{"managedFields":[{"fieldsV1":{"f:spec":{".":{}}}},2],)"
      R"("name":"a","labels":{"x":"y"}},"spec":{"list":[1,{"b":null}]}}})");
  EXPECT_EQ(object,
            json::parse(R"({"type":"ADDED","object":{"metadata":{"name":"a","labels":{"x":"y"}},)"
                        R"("spec":{"list":[1,{"b":null}]}}})"));
}

TEST(ParseAnswer, LeavesItOutOfEachItemOfAList) {
  const json list = parse_answer(
      R"({"items":[{"metadata":{"name":"a","managedFields":[{}]}},{"metadata":{"name":"b"}}]})");
  EXPECT_EQ(list,
            json::parse(R"({"items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}]})"));
}

TEST(ParseAnswer, WhatIsNotJsonIsDiscarded) {
  EXPECT_TRUE(parse_answer("{\"a\":").is_discarded());
  EXPECT_TRUE(parse_answer("").is_discarded());
  EXPECT_TRUE(parse_answer("{\"managedFields\":[}").is_discarded());
}

TEST(Member, IsNullWhereThereIsNone) {
  const json object = {{"a", "x"}, {"b", 1}};
  EXPECT_EQ(member(object, "a"), "x");
  EXPECT_EQ(&member(object, "b"), &object["b"]);
  EXPECT_TRUE(member(object, "c").is_null());
  EXPECT_TRUE(member(json(), "a").is_null());
  EXPECT_TRUE(member(json::array({1}), "a").is_null());
  EXPECT_EQ(text_of(object, "a"), "x");
  EXPECT_EQ(text_of(object, "b"), "");
  EXPECT_EQ(text_of(object, "c"), "");
}

}  // namespace
}  // namespace dsm::kube

// Values as the client wrote them, found in the text.
#include "worker/server/json_slice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dsm::server {
namespace {

using ::testing::ElementsAre;

TEST(JsonSlice, a_member_is_its_text) {
  const char* object = R"( { "a" : [1, {"b": "}"}] , "b":{"z": 1,
    "a":2}, "c":-1.5e3 , "d":"x\"}" ,"e":null} )";
  EXPECT_EQ(member_text(object, "a"), R"([1, {"b": "}"}])");
  EXPECT_EQ(member_text(object, "b"), "{\"z\": 1,\n    \"a\":2}");
  EXPECT_EQ(member_text(object, "c"), "-1.5e3");
  EXPECT_EQ(member_text(object, "d"), R"("x\"}")");
  EXPECT_EQ(member_text(object, "e"), "null");
  EXPECT_EQ(member_text(object, "f"), "");
  EXPECT_EQ(member_text("{}", "a"), "");
  EXPECT_EQ(member_text("[]", "a"), "");
}

TEST(JsonSlice, of_members_with_one_name_the_last_counts_as_for_the_parser) {
  EXPECT_EQ(member_text(R"({"a": 1, "a": 2})", "a"), "2");
  EXPECT_EQ(member_text(R"({"a": 1, "\u0061": 3})", "a"), "3");
}

TEST(JsonSlice, elements_are_their_texts) {
  EXPECT_THAT(element_texts(R"([ {"a": [1]} , "x,]" ,3,[] ])"),
              ElementsAre(R"({"a": [1]})", R"("x,]")", "3", "[]"));
  EXPECT_THAT(element_texts("[ ]"), ElementsAre());
  EXPECT_THAT(element_texts("{}"), ElementsAre());
}

TEST(JsonSlice, a_text_that_ends_early_gives_what_is_there) {
  for (const char* text :
       {"", "{", "{\"", "{\"a", "{\"a\"", "{\"a\":", "{\"a\":[", "{\"a\":\"\\"}) {
    EXPECT_LE(member_text(text, "a").size(), std::string_view(text).size());
  }
  for (const char* text : {"[", "[1", "[1,", "[\"", "[[1", "[\"\\"}) {
    EXPECT_LE(element_texts(text).size(), 2u) << text;
  }
}

}  // namespace
}  // namespace dsm::server

// JSON under a constraint, with the tokenizer of the default model: whatever is drawn from the
// masks is a document that the schema allows, and each such document can be drawn.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "worker/grammar/test_grammar.h"

namespace dsm::grammar {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// The part of JSON Schema that the cases below use, by the specification and not by llguidance.
bool valid(const json& schema, const json& value, const json& root) {
  if (schema.is_boolean()) return schema.get<bool>();
  if (schema.contains("$ref")) {
    return valid(root.at(json::json_pointer(schema["$ref"].get<std::string>().substr(1))), value,
                 root);
  }
  if (schema.contains("const") && value != schema["const"]) return false;
  if (schema.contains("enum") && std::ranges::count(schema["enum"], value) == 0) return false;
  if (schema.contains("anyOf") && std::ranges::none_of(schema["anyOf"], [&](const json& one) {
        return valid(one, value, root);
      })) {
    return false;
  }
  if (schema.contains("type")) {
    const auto is = [&value](const std::string& type) {
      if (type == "integer") {
        return value.is_number() && value.get<double>() == std::floor(value.get<double>());
      }
      return (type == "object" && value.is_object()) || (type == "array" && value.is_array()) ||
             (type == "string" && value.is_string()) || (type == "number" && value.is_number()) ||
             (type == "boolean" && value.is_boolean()) || (type == "null" && value.is_null());
    };
    const json& type = schema["type"];
    if (type.is_string() ? !is(type) : std::ranges::none_of(type, is)) return false;
  }
  if (value.is_number()) {
    if (schema.contains("minimum") && value < schema["minimum"]) return false;
    if (schema.contains("maximum") && value > schema["maximum"]) return false;
  }
  if (value.is_string()) {
    std::size_t length = 0;
    for (const char c : value.get<std::string>()) length += (c & 0xC0) != 0x80 ? 1 : 0;
    if (length < schema.value("minLength", std::size_t{0})) return false;
    if (length > schema.value("maxLength", std::size_t{1} << 40)) return false;
  }
  if (value.is_array()) {
    if (value.size() < schema.value("minItems", std::size_t{0})) return false;
    if (value.size() > schema.value("maxItems", std::size_t{1} << 40)) return false;
    for (const json& item : value) {
      if (schema.contains("items") && !valid(schema["items"], item, root)) return false;
    }
  }
  if (value.is_object()) {
    for (const json& name : schema.value("required", json::array())) {
      if (!value.contains(name)) return false;
    }
    for (const auto& [name, member] : value.items()) {
      if (schema.contains("properties") && schema["properties"].contains(name)) {
        if (!valid(schema["properties"][name], member, root)) return false;
      } else if (schema.contains("additionalProperties") &&
                 !valid(schema["additionalProperties"], member, root)) {
        return false;
      }
    }
  }
  return true;
}

struct Case {
  const char* name;
  const char* schema;
  std::vector<const char*> documents;  // valid ones, with properties in the schema's order
  std::vector<const char*> others;     // not valid
};

// GoogleTest finds it by this name. NOLINTNEXTLINE(readability-identifier-naming)
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

const std::vector<Case>& cases() {
  static const std::vector<Case> kCases = {
      {"nested",
       R"({"type":"object","properties":{
           "name":{"type":"string","maxLength":12},
           "age":{"type":"integer","minimum":0,"maximum":150},
           "address":{"type":"object","properties":{
               "city":{"enum":["Paris","Berlin","北京"]},
               "zip":{"type":["string","null"],"maxLength":5}},
             "required":["city"],"additionalProperties":false}},
         "required":["name","address"],"additionalProperties":false})",
       {R"({"name":"Ada","age":36,"address":{"city":"Paris","zip":null}})",
        R"({"name": "é😀\n\"", "address": {"city": "北京"}})",
        "{\n  \"name\": \"\\u0007\",\n  \"address\": {\n    \"city\": \"Berlin\"\n  }\n}"},
       {R"({"name":"Ada"})", R"({"name":"Ada","age":151,"address":{"city":"Paris"}})",
        R"({"name":"Ada","address":{"city":"Rome"}})",
        R"({"name":"Ada","address":{"city":"Paris"},"more":1})",
        R"({"name":"a name that is too long","address":{"city":"Paris"}})"}},
      {"arrays",
       R"({"type":"array","minItems":1,"maxItems":3,
           "items":{"type":"object","properties":{"x":{"type":"number","minimum":-1.5,"maximum":2}},
                    "required":["x"],"additionalProperties":false}})",
       {R"([{"x":0}])", R"([{"x":-1.5}, {"x":2},{"x":0.125}])"},
       {"[]", R"([{"x":3}])", R"([{"x":0},{"x":0},{"x":0},{"x":0}])", R"([{"y":0}])"}},
      {"enums of every type",
       R"({"enum":[null,true,17,"seventeen","\"\\\u0001",[1,"a"],{"k":null}]})",
       {"null", "true", "17", R"("seventeen")", R"("\"\\\u0001")", R"([1, "a"])", R"({"k":null})"},
       {"false", "18", R"("eighteen")", "[1]", "{}"}},
      {"references",
       R"({"$defs":{"tree":{"type":"object","properties":{
             "value":{"type":"integer","minimum":-9,"maximum":9},
             "left":{"anyOf":[{"$ref":"#/$defs/tree"},{"type":"null"}]},
             "right":{"anyOf":[{"$ref":"#/$defs/tree"},{"type":"null"}]}},
           "required":["value","left","right"],"additionalProperties":false}},
         "$ref":"#/$defs/tree"})",
       {R"({"value":1,"left":null,"right":{"value":-2,"left":null,"right":null}})"},
       {R"({"value":1,"left":null})", R"({"value":1,"left":2,"right":null})"}},
      {"other properties",
       R"({"type":"object","properties":{"id":{"type":"integer","minimum":0,"maximum":99}},"required":["id"],
           "additionalProperties":{"type":"boolean"}})",
       {R"({"id":1})", R"({"id":1,"yes":true,"no":false})"},
       {R"({"id":1,"yes":"true"})", R"({"yes":true})"}},
      {"lengths",
       R"({"type":"string","minLength":2,"maxLength":4})",
       {R"("ab")", R"("\n\t")", R"("é中😀x")"},
       {R"("a")", R"("abcde")", R"("\n")"}},
      {"constants",
       R"({"type":"object","properties":{"kind":{"const":"circle"},"r":{"type":"number","minimum":0,"maximum":10}},
           "required":["kind","r"],"additionalProperties":false,"title":"Shape","description":"x"})",
       {R"({"kind":"circle","r":10})", R"({"kind":"circle","r":9.75})"},
       {R"({"kind":"square","r":1})", R"({"kind":"circle","r":11})"}},
  };
  return kCases;
}

class Schemas : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(All, Schemas, testing::ValuesIn(cases()));

// Draws tokens until the text ends. Ends are taken as soon as they are allowed in every other
// walk; from the 60th token on what leads to the end soonest: a closing token where there is one,
// else one of the shortest.
std::string walk(engine::TokenConstraint& constraint, std::mt19937& random) {
  std::vector<engine::TokenId> taken;
  const bool eager = random() % 2 == 0;
  for (int step = 0; step < 600; ++step) {
    const std::vector<engine::TokenId> tokens = allowed(constraint);
    EXPECT_FALSE(tokens.empty()) << tokenizer().decode(taken, false);
    if (tokens.empty()) return "";
    const bool may_end = std::ranges::count(tokens, kEos) > 0;
    engine::TokenId next = tokens[random() % tokens.size()];
    if (may_end && (eager || tokens.size() == 1 || step > 60)) next = kEos;
    if (!may_end && step > 60) {
      const auto cost = [](engine::TokenId t) {
        const std::string_view piece = tokenizer().piece(t);
        const bool closes = piece == "\"" || piece == "}" || piece == "]" || piece == "null";
        const bool opens = piece.find_first_of("{[ \t\r\n") != std::string_view::npos;
        return closes ? std::size_t{0} : piece.size() + (opens ? 100 : 0);
      };
      const std::size_t least = cost(*std::ranges::min_element(tokens, {}, cost));
      std::vector<engine::TokenId> best;
      std::ranges::copy_if(tokens, std::back_inserter(best),
                           [&](engine::TokenId t) { return cost(t) == least; });
      next = best[random() % best.size()];
    }
    EXPECT_TRUE(constraint.accept(next));
    if (next == kEos) return tokenizer().decode(taken, false);
    taken.push_back(next);
  }
  ADD_FAILURE() << "no end: " << tokenizer().decode(taken, false);
  return "";
}

TEST_P(Schemas, EveryWalkEndsInADocumentThatTheSchemaAllows) {
  const json schema = json::parse(GetParam().schema);
  std::mt19937 random(7);
  for (int i = 0; i < 20; ++i) {
    const ConstraintPtr constraint = compile(json_schema(GetParam().schema));
    ASSERT_NE(constraint, nullptr);
    const std::string text = walk(*constraint, random);
    const json value = json::parse(text, nullptr, false);
    ASSERT_FALSE(value.is_discarded()) << text;
    EXPECT_TRUE(valid(schema, value, schema)) << text;
  }
}

TEST_P(Schemas, ValidDocumentsAreAccepted) {
  const json schema = json::parse(GetParam().schema);
  for (const char* document : GetParam().documents) {
    ASSERT_TRUE(valid(schema, json::parse(document), schema)) << document;
    EXPECT_TRUE(matches(json_schema(GetParam().schema), document)) << document;
  }
}

TEST_P(Schemas, OtherDocumentsAreRefused) {
  const json schema = json::parse(GetParam().schema);
  for (const char* document : GetParam().others) {
    ASSERT_FALSE(valid(schema, json::parse(document), schema)) << document;
    EXPECT_FALSE(matches(json_schema(GetParam().schema), document)) << document;
  }
}

TEST(JsonObject, IsAnObjectOfAnything) {
  GrammarSpec object;
  object.kind = Kind::kJsonObject;
  EXPECT_TRUE(matches(object, R"({})"));
  EXPECT_TRUE(matches(object, R"({"a": [1, {"b": null}], "é": "x\u001f"})"));
  EXPECT_FALSE(matches(object, "[]"));
  EXPECT_FALSE(matches(object, R"("text")"));
  std::mt19937 random(3);
  for (int i = 0; i < 20; ++i) {
    const std::string text = walk(*compile(object), random);
    EXPECT_TRUE(json::parse(text, nullptr, false).is_object()) << text;
  }
}

TEST(JsonObject, WhiteSpaceEnds) {
  GrammarSpec object;
  object.kind = Kind::kJsonObject;
  const ConstraintPtr constraint = compile(object);
  ASSERT_TRUE(accepts(*constraint, "{"));
  const std::vector<engine::TokenId> space =
      tokenizer().encode("\n", text::SpecialTokens::kTreatAsText);
  int taken = 0;
  while (taken < 1000 && constraint->accept(space[0])) ++taken;
  EXPECT_EQ(taken, 64);
  EXPECT_TRUE(accepts(*constraint, "}"));
}

TEST(JsonObject, HasNoMarkersInItsStrings) {
  GrammarSpec object;
  object.kind = Kind::kJsonObject;
  const ConstraintPtr constraint = compile(object);
  ASSERT_TRUE(accepts(*constraint, R"({"k": ")"));
  const Mask mask = mask_of(*constraint);
  for (engine::TokenId t = 0; t <= 18; ++t) EXPECT_FALSE(allows(mask, t)) << tokenizer().piece(t);
  EXPECT_TRUE(accepts(*constraint, R"(</think>"})"));  // spelled, it is text
}

TEST(SchemaErrors, AKeywordThatIsNotHonouredIsAnErrorWithItsPlace) {
  EXPECT_THAT(refusal(json_schema(R"({"type":"array","uniqueItems":true})")),
              HasSubstr("uniqueItems"));
  EXPECT_THAT(refusal(json_schema(R"({"not":{"type":"string"}})")), HasSubstr("\"not\""));
  EXPECT_EQ(refusal(json_schema(
                R"({"type":"object","properties":{"a":{"type":"string","maxLenght":3}}})")),
            "JSON Schema: #/properties/a: the keyword \"maxLenght\" is not supported; remove it");
  EXPECT_THAT(refusal(json_schema(R"({"items":[{"nullable":true}]})")), HasSubstr("#/items/0"));
  EXPECT_THAT(refusal(json_schema(R"({"anyOf":[{"if":true}]})")), HasSubstr("#/anyOf/0"));
  EXPECT_THAT(refusal(json_schema(R"({"$defs":{"d":{"contains":{}}}})")), HasSubstr("#/$defs/d"));
}

TEST(SchemaErrors, OptionsOfTheCompilerCannotBeSetFromASchema) {
  EXPECT_THAT(refusal(json_schema(R"({"x-guidance":{"lenient":true},"type":"array"})")),
              HasSubstr("x-guidance"));
  EXPECT_NE(compile(json_schema(R"({"x-order":3,"type":"array"})")), nullptr);
}

TEST(SchemaErrors, OldDraftsDoNotHideKeywords) {
  const GrammarSpec spec = json_schema(
      R"({"$schema":"http://json-schema.org/draft-07/schema#","type":"array",
          "prefixItems":[{"const":1}],"minItems":1})");
  EXPECT_TRUE(matches(spec, "[1]"));
  EXPECT_FALSE(matches(spec, "[2]"));
}

TEST(SchemaErrors, SayWhatIsWrong) {
  EXPECT_THAT(refusal(json_schema("{\"type\":")), HasSubstr("EOF"));
  EXPECT_THAT(refusal(json_schema("[]")), HasSubstr("an object or a boolean"));
  EXPECT_THAT(refusal(json_schema("false")), HasSubstr("allows nothing"));
  EXPECT_THAT(refusal(json_schema(R"({"type":"strin"})")), HasSubstr("strin"));
  EXPECT_THAT(refusal(json_schema(R"({"type":"string","format":"colour"})")), HasSubstr("colour"));
  EXPECT_THAT(refusal(json_schema(R"({"type":"string","pattern":"(a"})")), HasSubstr("unclosed"));
  EXPECT_THAT(refusal(json_schema(R"({"$ref":"#/$defs/none"})")), HasSubstr("$defs"));
  EXPECT_THAT(refusal(json_schema(R"({"$ref":"https://example.com/s.json"})")),
              HasSubstr("https://example.com/s.json"));
  EXPECT_THAT(refusal(json_schema(R"({"allOf":[{"type":"string"},{"type":"null"}]})")),
              HasSubstr("nsatisfiable"));
}

}  // namespace
}  // namespace dsm::grammar

#include "ctl/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ctl/testing/example.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using testing::Example;
using ::testing::HasSubstr;

constexpr const char* kHead =
    "apiVersion: deepseek-operator.io/v1alpha1\nkind: DeepSeekModel\nmetadata: {name: r1}\n";

json spec_of(const std::string& yaml) {
  const auto manifest = parse_manifest(kHead + yaml);
  EXPECT_TRUE(manifest) << manifest.error().message;
  return manifest.value().models.at(0)["spec"];
}

std::string mistake(const std::string& text) {
  const auto manifest = parse_manifest(text);
  return manifest ? "it was accepted" : manifest.error().message;
}

TEST(Manifest, plain_scalars_are_what_kubectl_takes_them_for) {
  EXPECT_EQ(
      spec_of("spec: {a: 1, b: '1', c: yes, d: \"no\", e: ~, f: 1.5, g: 2Gi, h: -3, i: 1.2.3}"),
      json::parse(R"({"a": 1, "b": "1", "c": true, "d": "no", "e": null, "f": 1.5,
                            "g": "2Gi", "h": -3, "i": "1.2.3"})"));
}

TEST(Manifest, json_is_yaml) {
  const auto manifest = parse_manifest(
      R"({"apiVersion": "deepseek-operator.io/v1alpha1", "kind": "DeepSeekModel",
          "metadata": {"name": "r1"}, "spec": {"replicas": 3, "image": "3"}})");
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_EQ(manifest->models[0]["spec"], (json{{"replicas", 3}, {"image", "3"}}));
}

TEST(Manifest, other_documents_are_named) {
  const auto manifest = parse_manifest(
      std::string("kind: Namespace\nmetadata: {name: team-a}\n---\n") + kHead + "spec: {}\n---\n");
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_EQ(manifest->models.size(), 1U);
  EXPECT_THAT(manifest->others, ElementsAre("Namespace team-a"));
}

TEST(Manifest, what_cannot_be_read_is_said) {
  EXPECT_THAT(mistake("a: ["), HasSubstr("not YAML"));
  EXPECT_THAT(mistake("kind: Pod\n"), HasSubstr("no DeepSeekModel"));
  EXPECT_THAT(mistake(""), HasSubstr("no DeepSeekModel"));
  EXPECT_THAT(mistake("kind: DeepSeekModel\napiVersion: v1\n"), HasSubstr("apiVersion: is \"v1\""));
  EXPECT_THAT(mistake(std::string(kHead)), HasSubstr("spec: is missing"));
  EXPECT_THAT(mistake(kHead + std::string("spec: {engine: {threads: 1, threads: 2}}")),
              HasSubstr("spec.engine.threads: stands twice"));
  EXPECT_THAT(mistake(std::string(kLongestManifest + 1, ' ')), HasSubstr("1 MiB"));
}

TEST(Manifest, aliases_do_not_make_it_endless) {
  std::string bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n";
  for (char c = 'b'; c < 'i'; ++c) {
    bomb += std::string(1, c) + ": &" + c + " [";
    for (int i = 0; i < 10; ++i)
      bomb += std::string(i == 0 ? "*" : ", *") + static_cast<char>(c - 1);
    bomb += "]\n";
  }
  EXPECT_THAT(mistake(bomb), HasSubstr("too many values"));
  EXPECT_THAT(mistake("a: &a [*a]\n"), HasSubstr("nested too deeply"));
}

class Applied : public ::testing::Test {
 protected:
  json after(const json& manifest_spec) const {
    return applied(example.model, {{"metadata", {{"name", "r1"}}}, {"spec", manifest_spec}});
  }

  Example example;
  json spec = testing::example_spec();
};

TEST_F(Applied, a_new_model_is_the_manifest) {
  const json model = applied(json(), {{"metadata", {{"name", "r1"}}}, {"spec", spec}});
  EXPECT_EQ(model["spec"], spec);
  EXPECT_EQ(model["metadata"]["generation"], 1);
}

TEST_F(Applied, fields_that_the_manifest_does_not_say_stay) {
  spec.erase("replicas");  // the autoscaler's
  EXPECT_EQ(after(spec)["spec"]["replicas"], 2);
  EXPECT_EQ(after(spec)["metadata"]["generation"], 1);
}

TEST_F(Applied, fields_that_it_said_before_and_says_no_more_go) {
  example.model["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] =
      json{{"spec", spec}}.dump();
  example.model["spec"]["template"] = {{"annotations", {{"set-by", "somebody else"}}}};
  spec["model"].erase("revision");
  const json model = after(spec);
  EXPECT_FALSE(model["spec"]["model"].contains("revision"));
  EXPECT_EQ(model["spec"]["model"]["uri"], spec["model"]["uri"]);
  EXPECT_EQ(model["spec"]["template"]["annotations"]["set-by"], "somebody else");
  EXPECT_EQ(model["metadata"]["generation"], 2);
}

TEST_F(Applied, an_annotation_that_is_no_json_says_nothing) {
  example.model["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] =
      "{";
  spec["model"].erase("revision");
  EXPECT_EQ(after(spec)["spec"]["model"]["revision"], "a");
}

}  // namespace
}  // namespace dsm::ctl

// Holds crds/ and the C++ structs together: every field of the one is known to
// the other, with the same type, default and bounds, and every field has prose.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>

#include "operator/api/names.h"
#include "operator/api/reasons.h"
#include "operator/api/spec.h"
#include "operator/api/status.h"
#include "operator/api/tenant.h"
#include "operator/api/tenant_status.h"

namespace dsm::api {
namespace {

// The leaves of a schema by path, as spec_fields() writes paths.
void collect_leaves(const YAML::Node& schema, const std::string& path,
                    std::map<std::string, YAML::Node>& out) {
  const auto type = schema["type"].as<std::string>("");
  if (type == "object" && schema["properties"]) {
    for (const auto& property : schema["properties"]) {
      const auto name = property.first.as<std::string>();
      collect_leaves(property.second, path.empty() ? name : path + "." + name, out);
    }
  } else if (type == "object") {
    out.emplace(path + "{}", schema["additionalProperties"]);
  } else if (type == "array") {
    collect_leaves(schema["items"], path + "[]", out);
  } else {
    out.emplace(path, schema);
  }
}

void collect_without_prose(const YAML::Node& schema, const std::string& path,
                           std::vector<std::string>& out) {
  if (!schema["description"] || schema["description"].as<std::string>().size() < 15) {
    out.push_back(path);
  }
  for (const auto& property : schema["properties"]) {
    collect_without_prose(property.second, path + "." + property.first.as<std::string>(), out);
  }
  if (schema["items"] && schema["items"]["properties"]) {
    for (const auto& property : schema["items"]["properties"]) {
      collect_without_prose(property.second, path + "[]." + property.first.as<std::string>(), out);
    }
  }
}

// A CRD and what the code knows of its kind.
struct Kind {
  std::string_view kind;
  std::string_view plural;
  std::vector<Field> spec;
  std::vector<std::string> status;
  std::vector<const char*> objects_with_defaults;
};

Kind kind_of(const std::string& plural) {
  if (plural == kPlural) {
    return {kKind,
            kPlural,
            spec_fields(),
            status_field_paths(),
            {"parallelism", "accelerator", "engine", "rollout", "recovery"}};
  }
  return {kTenantKind, kTenantPlural, tenant_fields(), tenant_status_field_paths(), {"keys"}};
}

class Schema : public testing::TestWithParam<std::string> {
 protected:
  const Kind code = kind_of(GetParam());
  const YAML::Node crd = YAML::LoadFile("crds/" + GetParam() + ".yaml");
  const YAML::Node version = crd["spec"]["versions"][0];
  const YAML::Node root = version["schema"]["openAPIV3Schema"];

  std::map<std::string, YAML::Node> leaves(const std::string& part) const {
    std::map<std::string, YAML::Node> out;
    collect_leaves(root["properties"][part], "", out);
    return out;
  }
};

TEST_P(Schema, names_are_those_of_the_code) {
  EXPECT_EQ(crd["metadata"]["name"].as<std::string>(),
            std::string(code.plural) + "." + std::string(kGroup));
  EXPECT_EQ(crd["spec"]["names"]["kind"].as<std::string>(), code.kind);
  EXPECT_EQ(version["name"].as<std::string>(), kVersion);
  EXPECT_TRUE(version["subresources"]["status"]);
}

TEST_P(Schema, a_model_is_scaled_by_its_leaders) {
  if (code.kind != kKind) GTEST_SKIP() << "only models are scaled";
  EXPECT_EQ(version["subresources"]["scale"]["labelSelectorPath"].as<std::string>(),
            ".status.selector");
}

TEST_P(Schema, spec_has_the_fields_that_the_parser_knows) {
  std::set<std::string> in_schema;
  for (const auto& [path, node] : leaves("spec")) in_schema.insert(path);
  std::set<std::string> in_code;
  for (const auto& field : code.spec) in_code.insert(field.path);
  EXPECT_THAT(in_schema, testing::ContainerEq(in_code));
}

TEST_P(Schema, types_defaults_and_bounds_of_the_spec_are_equal) {
  const auto schema = leaves("spec");
  for (const auto& field : code.spec) {
    SCOPED_TRACE(field.path);
    const auto found = schema.find(field.path);
    ASSERT_NE(found, schema.end());
    const YAML::Node& node = found->second;
    const bool quantity = node["x-kubernetes-int-or-string"].as<bool>(false);
    EXPECT_EQ(quantity ? "string" : node["type"].as<std::string>(), field.type);
    EXPECT_EQ(node["default"].as<std::string>("none"), field.default_value.is_null() ? "none"
                                                       : field.default_value.is_string()
                                                           ? field.default_value.get<std::string>()
                                                           : field.default_value.dump());
    if (field.type == "integer") {
      if (!node["enum"]) {
        EXPECT_EQ(node["minimum"].as<long>(), field.min);
        EXPECT_EQ(node["maximum"].as<long>(), field.max);
      }
    } else if (field.type == "string" && !node["enum"]) {
      EXPECT_EQ(node["maxLength"].as<long>(), field.max);
    }
  }
}

TEST_P(Schema, an_empty_spec_gets_its_nested_defaults_too) {
  // Without a default for the object itself, defaults inside it are not filled in. An object with a
  // CEL rule repeats them, because the rule is checked on the default as it is written.
  const auto defaults_in = [](const YAML::Node& properties) {
    return std::ranges::count_if(properties,
                                 [](const auto& p) { return p.second["default"].IsDefined(); });
  };
  for (const char* name : code.objects_with_defaults) {
    SCOPED_TRACE(name);
    const YAML::Node node = root["properties"]["spec"]["properties"][name];
    ASSERT_TRUE(node["default"] && node["default"].IsMap());
    const bool has_rule = node["x-kubernetes-validations"].IsDefined();
    EXPECT_EQ(node["default"].size(), has_rule ? defaults_in(node["properties"]) : 0);
    for (const auto& entry : node["default"]) {
      EXPECT_EQ(entry.second.as<std::string>(),
                node["properties"][entry.first.as<std::string>()]["default"].as<std::string>());
    }
  }
}

TEST_P(Schema, status_has_the_fields_that_the_operator_writes) {
  std::set<std::string> in_schema;
  for (const auto& [path, node] : leaves("status")) in_schema.insert(path);
  EXPECT_THAT(in_schema,
              testing::ContainerEq(std::set<std::string>(code.status.begin(), code.status.end())));
}

TEST_P(Schema, every_field_has_prose) {
  std::vector<std::string> bare;
  collect_without_prose(root["properties"]["spec"], "spec", bare);
  collect_without_prose(root["properties"]["status"], "status", bare);
  EXPECT_THAT(bare, testing::IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(Crds, Schema,
                         testing::Values(std::string(kPlural), std::string(kTenantPlural)),
                         [](const auto& crd) { return crd.param; });

TEST(Reference, names_every_field_and_every_reason) {
  std::ifstream file("docs/api.md");
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  ASSERT_FALSE(text.empty());
  for (const auto reason : kAllReasons) {
    EXPECT_TRUE(text.contains("`" + std::string(reason) + "`")) << reason;
  }
  const auto last_name = [](std::string path) {
    while (!path.empty() &&
           (path.back() == ']' || path.back() == '[' || path.back() == '{' || path.back() == '}')) {
      path.pop_back();
    }
    return path.substr(path.rfind('.') + 1);
  };
  for (const auto plural : {kPlural, kTenantPlural}) {
    const Kind code = kind_of(std::string(plural));
    for (const auto& field : code.spec) {
      EXPECT_TRUE(text.contains(last_name(field.path))) << field.path;
    }
    for (const auto& path : code.status) {
      EXPECT_TRUE(text.contains(last_name(path))) << path;
    }
  }
}

}  // namespace
}  // namespace dsm::api

// What the tests of the room share: the shapes of public models, and changed ones.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "sizing/shape.h"

namespace dsm::sizing::testing {

inline nlohmann::json config_of(const std::string& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file) << path;
  return nlohmann::json::parse(file);
}
inline nlohmann::json public_config(const std::string& model) {
  return config_of("sizing/models/" + model + ".json");
}
inline Shape shape_of(const nlohmann::json& config) {
  const auto shape = parse_shape(config.dump(), "config.json");
  EXPECT_TRUE(shape) << shape.error().message;
  return shape.value_or(Shape{});
}
inline Shape public_shape(const std::string& model) {
  return shape_of(public_config(model));
}

}  // namespace dsm::sizing::testing

#include "worker/model/quantization.h"

#include <nlohmann/json.hpp>

namespace dsm::model {
namespace {

using Json = nlohmann::json;

std::string text_of(const Json& value) {
  return value.dump(-1, ' ', true, Json::error_handler_t::replace);
}

// Empty when `key` has the one supported value; nothing (or null) will do where `may_lack` says so.
std::string check(const Json& json, const char* key, const Json& wanted, bool may_lack) {
  const std::string name = std::string("quantization_config.") + key;
  if (!json.contains(key) || json.at(key).is_null()) {
    return may_lack ? "" : "field " + name + " is missing";
  }
  if (json.at(key) == wanted) return "";
  return "option " + name + " = " + text_of(json.at(key)) + " is not supported, only " +
         wanted.dump();
}

}  // namespace

std::expected<Fp8Blocks, std::string> parse_quantization(const Json& json) {
  if (!json.is_object()) return std::unexpected("field quantization_config is not an object");
  const std::string problems[] = {
      check(json, "quant_method", "fp8", false), check(json, "fmt", "e4m3", true),
      check(json, "weight_block_size", Json::array({128, 128}), false),
      check(json, "activation_scheme", "dynamic", true), check(json, "scale_fmt", "ue8m0", true)};
  for (const std::string& problem : problems) {
    if (!problem.empty()) return std::unexpected(problem);
  }
  const bool ue8m0 = json.contains("scale_fmt") && !json.at("scale_fmt").is_null();
  return Fp8Blocks{.rows = 128, .columns = 128, .power_of_two_scales = ue8m0};
}

}  // namespace dsm::model

#include <limits>

#include "worker/server/api_request.h"
#include "worker/server/json_fields.h"

namespace dsm::server {

Result<SamplingDefaults> parse_generation_config(std::string_view text) {
  SamplingDefaults defaults;
  if (text.empty()) return defaults;
  const auto object = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) {
    return fail(ErrorKind::kInvalid, "generation_config.json is not a JSON object");
  }
  std::optional<ApiError> error;
  Fields fields(object, text, error);
  bool sample = true;
  fields.boolean("do_sample", sample);
  fields.number("temperature", 0, 2, defaults.temperature);
  fields.number("top_p", 0, 1, defaults.top_p);
  fields.number("min_p", 0, 1, defaults.min_p);
  fields.integer("top_k", 0, std::numeric_limits<std::int32_t>::max(), defaults.top_k);
  fields.number("repetition_penalty", 0, 2, defaults.repetition_penalty);
  if (error) return fail(ErrorKind::kInvalid, "generation_config.json: " + error->message);
  if (!sample) defaults.temperature = 0;
  if (defaults.top_p <= 0) defaults.top_p = 1;
  if (defaults.repetition_penalty <= 0) defaults.repetition_penalty = 1;
  return defaults;
}

}  // namespace dsm::server

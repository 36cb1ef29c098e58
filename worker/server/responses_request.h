// Bodies of POST /v1/responses. This server remembers no responses: what would need that (`store`,
// `previous_response_id`, `conversation`, `background`) is refused by name, and so is input that is
// not text.
#pragma once

#include <string>
#include <string_view>

#include "worker/server/api_error.h"
#include "worker/server/api_request.h"

namespace dsm::server {

struct ResponsesRequest {
  ChatRequest chat;
  std::string echo;  // a JSON object: what every response object repeats of the request
};

Parsed<ResponsesRequest> parse_responses(std::string_view body, const SamplingDefaults& defaults);

}  // namespace dsm::server

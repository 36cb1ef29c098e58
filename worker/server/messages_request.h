// Bodies of Anthropic's POST /v1/messages and /v1/messages/count_tokens. Content that is not text,
// and tools that the server would have to run, are refused by name. `thinking.budget_tokens` is
// checked and does not cut a thought: `max_tokens` holds for thought and answer together.
#pragma once

#include <string_view>

#include "worker/server/api_error.h"
#include "worker/server/api_request.h"

namespace dsm::server {

// `generates`: max_tokens must be there.
Parsed<ChatRequest> parse_messages(std::string_view body, const SamplingDefaults& defaults,
                                   bool generates);

}  // namespace dsm::server

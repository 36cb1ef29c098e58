// For tests of requests: bodies with some fields, and refusals as one line.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "worker/server/api_request.h"

namespace dsm::server {

// A chat with these fields added.
inline Parsed<ChatRequest> chat(const std::string& fields, const SamplingDefaults& defaults = {}) {
  return parse_chat(R"({"model": "m", "messages": [{"role": "user", "content": "hi"}])" +
                        (fields.empty() ? "" : ", " + fields) + "}",
                    defaults);
}
inline Parsed<CompletionRequest> completion(const std::string& fields) {
  return parse_completion(
      R"({"model": "m", "prompt": "p")" + (fields.empty() ? "" : ", " + fields) + "}", {},
      /*vocab_size=*/10);
}

// "param: message" of the refusal, or "accepted".
template <typename Request>
std::string refusal_of(const Parsed<Request>& request) {
  if (request) return "accepted";
  EXPECT_EQ(request.error().status, 400);
  return request.error().param + ": " + request.error().message;
}
inline std::string refusal(const std::string& fields) {
  return refusal_of(chat(fields));
}
inline std::string body_refusal(std::string_view body) {
  return refusal_of(parse_chat(body, {}));
}

}  // namespace dsm::server

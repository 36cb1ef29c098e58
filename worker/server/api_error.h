// An error as clients of the OpenAI API know it: an HTTP status and
// {"error": {"message", "type", "param", "code"}}. Plain values.
#pragma once

#include <expected>
#include <string>

#include "base/http/message.h"
#include "base/result.h"

namespace dsm::server {

struct ApiError {
  int status = 400;
  std::string message = {};
  std::string param = {};  // "" is null in JSON
  std::string code = {};   // likewise
  int retry_after_s = 0;
};

template <typename T>
using Parsed = std::expected<T, ApiError>;

// 400: `param` is wrong; the message says what was expected.
std::unexpected<ApiError> bad_parameter(std::string param, std::string message);
// 503 with Retry-After.
ApiError unavailable(std::string message, int retry_after_s);
// What a refusal of the engine means to the client; `param` is the field that holds the prompt.
ApiError from_engine(const Error& error, std::string param);

// {"error": {...}} in one line.
std::string error_json(const ApiError& error);
http::Response error_response(const ApiError& error);
// The HTTP server's own errors (404, 413, ...) in the same shape.
http::Response http_error(int status, const std::string& message);

}  // namespace dsm::server

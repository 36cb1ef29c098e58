#include "worker/server/api_error.h"

#include <nlohmann/json.hpp>

namespace dsm::server {
namespace {

const char* type_of(int status) {
  if (status == 401) return "authentication_error";
  if (status == 403) return "permission_error";
  if (status == 408) return "timeout_error";
  if (status == 429) return "rate_limit_error";
  if (status == 503) return "service_unavailable_error";
  return status < 500 ? "invalid_request_error" : "server_error";
}

nlohmann::ordered_json text_or_null(const std::string& text) {
  if (text.empty()) return nullptr;
  return text;
}

}  // namespace

std::unexpected<ApiError> bad_parameter(std::string param, std::string message) {
  return std::unexpected(ApiError{.status = 400,
                                  .message = std::move(message),
                                  .param = std::move(param),
                                  .code = "",
                                  .retry_after_s = 0});
}

ApiError unavailable(std::string message, int retry_after_s) {
  return {.status = 503,
          .message = std::move(message),
          .param = "",
          .code = "unavailable",
          .retry_after_s = retry_after_s};
}

ApiError from_engine(const Error& error, std::string param) {
  switch (error.kind) {
    case ErrorKind::kInvalid:
      // The parser has checked everything else: what the engine still refuses is the length.
      return {.status = 400,
              .message = error.message,
              .param = std::move(param),
              .code = "context_length_exceeded",
              .retry_after_s = 0};
    case ErrorKind::kExhausted:
      return {.status = 429,
              .message = error.message,
              .param = "",
              .code = error.reason.empty() ? "queue_full" : error.reason,
              .retry_after_s = error.retry_after_s > 0 ? error.retry_after_s : 1};
    case ErrorKind::kCancelled:
    case ErrorKind::kTransient: {
      ApiError answer =
          unavailable(error.message, error.retry_after_s > 0 ? error.retry_after_s : 1);
      if (!error.reason.empty()) answer.code = error.reason;
      return answer;
    }
    default:
      return {.status = 500,
              .message = error.message,
              .param = "",
              .code = "internal_error",
              .retry_after_s = 0};
  }
}

std::string error_json(const ApiError& error) {
  const nlohmann::ordered_json json = {{"error",
                                        {{"message", error.message},
                                         {"type", type_of(error.status)},
                                         {"param", text_or_null(error.param)},
                                         {"code", text_or_null(error.code)}}}};
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

http::Response error_response(const ApiError& error) {
  http::Response response;
  response.status = error.status;
  response.body = error_json(error);
  if (error.retry_after_s > 0) {
    response.headers["Retry-After"] = std::to_string(error.retry_after_s);
  }
  return response;
}

http::Response http_error(int status, const std::string& message) {
  return error_response(
      {.status = status, .message = message, .param = "", .code = "", .retry_after_s = 0});
}

}  // namespace dsm::server

#include "kube/api_error.h"

#include <nlohmann/json.hpp>

namespace dsm::kube {
namespace {

using nlohmann::json;

constexpr std::size_t kLongestForeignBody = 200;

std::string text(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

}  // namespace

bool ApiError::expired() const {
  if (code == 410) return true;
  return code == 504 && message.find("Too large resource version") != std::string::npos;
}

ErrorKind kind_of(int http_code) {
  switch (http_code) {
    case 403:
      return ErrorKind::kDenied;
    case 404:
      return ErrorKind::kNotFound;
    case 409:
      return ErrorKind::kConflict;
    case 401:  // our token is not believed: that passes, when the file with it is written anew
    case 408:
    case 410:  // list again: the world moved on
      return ErrorKind::kTransient;
    case 429:
      return ErrorKind::kExhausted;
    default:
      return http_code >= 400 && http_code < 500 ? ErrorKind::kInvalid : ErrorKind::kTransient;
  }
}

ApiError api_error(int code, const std::string& body, int retry_after_s,
                   const std::string& context) {
  ApiError error;
  error.code = code;
  error.retry_after_s = retry_after_s;
  const json status = json::parse(body, nullptr, /*allow_exceptions=*/false);
  std::string said;
  if (status.is_object() && text(status, "kind") == "Status") {
    error.reason = text(status, "reason");
    said = text(status, "message");
    const auto details = status.find("details");
    if (retry_after_s == 0 && details != status.end() && details->is_object()) {
      error.retry_after_s = details->value("retryAfterSeconds", 0);
    }
  } else {
    said = body.substr(0, kLongestForeignBody);
  }
  error.kind = kind_of(code);
  error.message = context + ": " + std::to_string(code);
  if (!error.reason.empty()) error.message += " " + error.reason;
  if (!said.empty()) error.message += ": " + said;
  return error;
}

ApiError transport_error(Error error, const std::string& context) {
  ApiError result;
  static_cast<Error&>(result) = std::move(error);
  result.message = context + ": " + result.message;
  return result;
}

}  // namespace dsm::kube

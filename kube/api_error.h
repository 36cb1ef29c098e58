// What the API server said when it refused: an Error with the HTTP code and the machine-readable
// reason. It turns into a plain dsm::Error where a caller only needs the kind.
#pragma once

#include <expected>
#include <string>

#include "base/result.h"

namespace dsm::kube {

struct ApiError : Error {
  int code = 0;        // HTTP status or Status.code; 0 when no answer came
  std::string reason;  // "AlreadyExists", "Expired", ...; "" when unknown

  bool already_exists() const { return code == 409 && reason == "AlreadyExists"; }
  // The resource version asked for is not kept any more, or (too large) not there yet.
  bool expired() const;
};

template <typename T>
using ApiResult = std::expected<T, ApiError>;

// An answer's body (a Status object or anything else) and code as an error. `context` says what was
// tried: "create pods r1-0".
ApiError api_error(int code, const std::string& body, int retry_after_s,
                   const std::string& context);
// A failure without an answer.
ApiError transport_error(Error error, const std::string& context);

// The kind of a refusal by its HTTP code.
ErrorKind kind_of(int http_code);

}  // namespace dsm::kube

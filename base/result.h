// Errors as values. A function that can fail in an expected way returns Result<T>; the caller must
// look. The kind says what a caller can do about it, the message says what happened, with context
// added once where it is known. Values only: no threading concerns.
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace dsm {

enum class ErrorKind {
  kTransient,  // may succeed when tried again later (connection lost, 5xx, time-out)
  kConflict,   // somebody else changed or owns the thing (409)
  kNotFound,   // the thing does not exist (404)
  kInvalid,    // the input is wrong and stays wrong (400, 422, corrupt file)
  kDenied,     // not allowed (401, 403)
  kCancelled,  // given up on purpose
  kExhausted,  // no room now: queue full, 429; retry_after may be set
  kInternal,   // a bug or a broken device
};

// The kind's name in lower case, for logs and metrics labels.
std::string_view to_string(ErrorKind kind);

struct Error {
  ErrorKind kind = ErrorKind::kInternal;
  std::string message;
  // Seconds the other side asked us to wait (HTTP Retry-After); 0 when it did not say.
  int retry_after_s = 0;
  // A word for metrics and clients where one kind has several causes (queue_full, queue_tokens);
  // empty: the kind says it all.
  std::string reason = {};
};

template <typename T>
using Result = std::expected<T, Error>;
using Status = std::expected<void, Error>;

inline std::unexpected<Error> fail(ErrorKind kind, std::string message) {
  return std::unexpected(Error{kind, std::move(message)});
}

// Puts "context: " before the message and keeps the kind.
inline std::unexpected<Error> wrap(Error error, std::string_view context) {
  error.message = std::string(context) + ": " + error.message;
  return std::unexpected(std::move(error));
}

}  // namespace dsm

// The bytes of an answer's head: status line, our headers and the caller's. Pure.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/http/message.h"

namespace dsm::http {

// How the end of the body is told.
struct Framing {
  std::optional<std::size_t> length;  // Content-Length; else chunked or, for HTTP/1.0, until close
  bool chunked = false;
  bool close = false;  // "Connection: close"
};

// Headers whose name or value holds a control character are left out, so that no value can end the
// head early; so are those that Framing decides.
std::string response_head(int status, const Headers& headers, const Framing& framing, WallTime now);

// One chunk of a chunked body; `data` must not be empty (an empty chunk ends the body).
std::string chunk(std::string_view data);
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

}  // namespace dsm::http

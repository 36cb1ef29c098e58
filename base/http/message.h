// HTTP messages as plain values, so that rooms that handle them do not compile Beast.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dsm::http {

// Header names compare without case.
struct LessNoCase {
  bool operator()(std::string_view a, std::string_view b) const;
  using is_transparent = void;
};
using Headers = std::map<std::string, std::string, LessNoCase>;

struct Request {
  std::string method;  // "GET"
  std::string path;    // "/v1/models", percent-decoded, without the query
  std::string query;   // "a=b&c=d", as sent
  Headers headers;     // of a repeated header the values are joined with ", "
  std::string body;
  std::string remote;  // "10.0.0.1:1234"
  // Only of a server with TLS: the certificates that the client showed, in PEM, its own first (not
  // verified; "" when it showed none), and every header as it was sent, repeated ones apart.
  std::string peer_certificates = {};
  std::vector<std::pair<std::string, std::string>> header_lines = {};

  // The header's value, or "" when it is absent.
  std::string_view header(std::string_view name) const;
};

struct Response {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  Headers headers;
};

// "Not Found" for 404; "" for a status that we never send.
std::string_view status_text(int status);

// "%41b" -> "Ab"; nullopt for a broken escape or an escaped NUL.
std::optional<std::string> percent_decode(std::string_view text);

}  // namespace dsm::http

#include "base/http/head.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>

namespace dsm::http {
namespace {

bool is_clean(std::string_view text) {
  return std::none_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte < 0x20 && byte != '\t') || byte == 0x7f;
  });
}

bool same_name(std::string_view a, std::string_view b) {
  const LessNoCase less;
  return !less(a, b) && !less(b, a);
}

bool is_ours(std::string_view name) {
  constexpr std::array<std::string_view, 4> kOurs = {"content-length", "transfer-encoding",
                                                     "connection", "date"};
  return std::any_of(kOurs.begin(), kOurs.end(),
                     [&](std::string_view ours) { return same_name(name, ours); });
}

// RFC 9110's IMF-fixdate, written out because strftime follows the locale.
std::string http_date(WallTime now) {
  constexpr std::array<const char*, 7> kDays = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  constexpr std::array<const char*, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[64];
  std::snprintf(text, sizeof text, "%s, %02d %s %04d %02d:%02d:%02d GMT",
                kDays[static_cast<std::size_t>(utc.tm_wday)], utc.tm_mday,
                kMonths[static_cast<std::size_t>(utc.tm_mon)], utc.tm_year + 1900, utc.tm_hour,
                utc.tm_min, utc.tm_sec);
  return text;
}

}  // namespace

std::string response_head(int status, const Headers& headers, const Framing& framing,
                          WallTime now) {
  std::string head = "HTTP/1.1 " + std::to_string(status) + " ";
  head += status_text(status);
  head += "\r\nDate: " + http_date(now) + "\r\n";
  for (const auto& [name, value] : headers) {
    if (name.empty() || is_ours(name) || !is_clean(name) || !is_clean(value)) continue;
    head += name;
    head += ": ";
    head += value;
    head += "\r\n";
  }
  if (framing.length) head += "Content-Length: " + std::to_string(*framing.length) + "\r\n";
  if (framing.chunked) head += "Transfer-Encoding: chunked\r\n";
  if (framing.close) head += "Connection: close\r\n";
  head += "\r\n";
  return head;
}

std::string chunk(std::string_view data) {
  char size[24];
  std::snprintf(size, sizeof size, "%zx\r\n", data.size());
  std::string out = size;
  out += data;
  out += "\r\n";
  return out;
}

}  // namespace dsm::http

#include "worker/server/sleep_request.h"

#include <algorithm>
#include <string>

namespace dsm::server {

Parsed<engine::SleepMode> parse_sleep(std::string_view query) {
  engine::SleepMode mode = engine::SleepMode::kWait;
  while (!query.empty()) {
    const std::string_view part = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), part.size() + 1));
    const std::string_view name = part.substr(0, part.find('='));
    const std::string_view value = part.substr(std::min(part.size(), name.size() + 1));
    if (name == "mode") {
      if (value != "wait" && value != "abort") {
        return bad_parameter("mode", "'mode' must be wait or abort");
      }
      mode = value == "abort" ? engine::SleepMode::kAbort : engine::SleepMode::kWait;
    } else if (name == "level") {
      if (value != "1") {
        return bad_parameter("level", "'level' must be 1: weights wait in the host's memory");
      }
    } else {
      return bad_parameter(std::string(name), "there are 'mode' and 'level', no other parameter");
    }
  }
  return mode;
}

}  // namespace dsm::server

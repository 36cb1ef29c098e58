// What comes in paths and headers is any bytes; what goes into questions to the API server is JSON,
// which is UTF-8.
#pragma once

#include <nlohmann/json.hpp>

namespace dsm::metrics_api {

// Whether every text in the value is UTF-8.
inline bool is_utf8(const nlohmann::json& value) {
  using Handler = nlohmann::json::error_handler_t;
  return value.dump(-1, ' ', false, Handler::replace) ==
         value.dump(-1, ' ', false, Handler::ignore);
}

}  // namespace dsm::metrics_api

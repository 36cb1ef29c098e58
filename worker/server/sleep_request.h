// What the query of POST /internal/sleep says. Pure.
#pragma once

#include <string_view>

#include "worker/engine/sleep.h"
#include "worker/server/api_error.h"

namespace dsm::server {

// "" or mode=wait|abort, level=1, joined by &. An error names the parameter.
Parsed<engine::SleepMode> parse_sleep(std::string_view query);

}  // namespace dsm::server

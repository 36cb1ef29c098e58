// What a worker thread of a controller does: takes keys, has each looked at, counts how it went,
// and puts the key back for later. Runs until `stop`.
#pragma once

#include <functional>
#include <stop_token>
#include <string>

#include "base/log.h"
#include "base/result.h"
#include "operator/runtime/metrics.h"
#include "operator/runtime/work_queue.h"

namespace dsm::runtime {

// Looks at one key. An error: again later, ever more seldom; a time: again after it; zero: no more.
using LookAt = std::function<Result<Millis>(const std::string& key)>;

// One key that was taken; `what` it names, for the log.
void look_at(WorkQueue& queue, ControllerMetrics& metrics, Clock& clock, const Logger& log,
             const char* what, const std::string& key, const LookAt& look);
void work(WorkQueue& queue, ControllerMetrics& metrics, Clock& clock, const Logger& log,
          const char* what, const LookAt& look, const std::stop_token& stop);

}  // namespace dsm::runtime

// From the command line to what the worker's parts are made of: everything that can be wrong before
// weights are read is found here, and said in one sentence.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "worker/engine/scheduler.h"
#include "worker/group/group.h"
#include "worker/model_executor.h"
#include "worker/options.h"
#include "worker/server/served_model.h"
#include "worker/server/worker_server.h"

namespace dsm::worker {

inline constexpr const char* kVersion = "0.1.0";
inline constexpr std::int64_t kDefaultKvBytes = std::int64_t{1} << 30;

struct Startup {
  ModelSpec model;
  engine::SchedulerConfig scheduler;
  group::GroupOptions group;
  server::WorkerServerOptions server;
  std::optional<server::ServedModel> served;  // of the leader
  // Of a follower, the adapters of the command line: held, so that they stay in memory. The
  // leader's are in `served`.
  std::vector<std::shared_ptr<const engine::Adapter>> adapters = {};
};

Result<Startup> prepare(const Options& options, const Logger& log);

}  // namespace dsm::worker

// From the command line to what the worker's parts are made of: everything that can be wrong before
// weights are read is found here, and said in one sentence.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "worker/engine/probe.h"
#include "worker/engine/scheduler.h"
#include "worker/group/adapters.h"
#include "worker/group/group.h"
#include "worker/model_executor.h"
#include "worker/options.h"
#include "worker/server/served_model.h"
#include "worker/server/worker_server.h"

namespace dsm::worker {

inline constexpr const char* kVersion = "0.1.0";

struct Startup {
  ModelSpec model;
  engine::SchedulerConfig scheduler;
  group::GroupOptions group;
  server::WorkerServerOptions server;
  std::optional<server::ServedModel> served;  // of the leader
  engine::Probe probe;                        // that the leader asks
  // Those of `served` as the leader tells the other pods of them, and those that another pod holds;
  // null: there are none, or no other pods.
  std::shared_ptr<group::SharedAdapters> shared_adapters = nullptr;
  std::shared_ptr<group::HeldAdapters> held_adapters = nullptr;
};

Result<Startup> prepare(const Options& options, const Logger& log);

}  // namespace dsm::worker

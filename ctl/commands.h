// Each command: read, decide by the pure parts, write, tell. They return the exit code, or an error
// that main prints.
#pragma once

#include <istream>
#include <ostream>
#include <stop_token>

#include "ctl/arguments.h"
#include "ctl/cluster.h"
#include "ctl/text.h"

namespace dsm::ctl {

struct Io {
  std::istream& in;
  std::ostream& out;
  Style style;
  bool terminal = false;  // `out` is one: a picture that changes is drawn over the last one
};

Result<int> run(const StatusCommand& command, Cluster& cluster, Io& io);
Result<int> run(const LogsCommand& command, Cluster& cluster, Io& io);
Result<int> run(const RestartCommand& command, Cluster& cluster, Io& io);
Result<int> run(const RollbackCommand& command, Cluster& cluster, Io& io);
Result<int> run(const PauseCommand& command, Cluster& cluster, Io& io);
Result<int> run(const DrainCommand& command, Cluster& cluster, Io& io);
Result<int> run(const SleepCommand& command, Cluster& cluster, Io& io);
Result<int> run(const BundleCommand& command, Cluster& cluster, Io& io);

// `cluster` is null where the command does not ask it: --offline, --client.
Result<int> run(const PlanCommand& command, Cluster* cluster, Io& io);
Result<int> run(const VersionCommand& command, Cluster* cluster, Io& io);

// `status --watch`, until `stop`; prints whenever something changed, at most five times a second.
Result<int> watch_status(const StatusCommand& command, Cluster& cluster, Io& io,
                         const std::stop_token& stop);

// Asks no cluster.
Result<int> run(const FitCommand& command, Io& io);

// This program's version.
std::string program_version();

}  // namespace dsm::ctl

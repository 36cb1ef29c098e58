// dsmctl's command line as values. CLI11 stays behind arguments.cc. Pure.
#pragma once

#include <string>
#include <variant>

#include "base/result.h"

namespace dsm::ctl {

// What the process answers with; docs/dsmctl.md tells users.
inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed =
    1;                                // the cluster refused or did not answer; the message says why
inline constexpr int kExitUsage = 2;  // the command line is wrong
inline constexpr int kExitProblem = 3;  // plan, fit: it cannot work as it is

// How to reach the cluster; empty texts mean kubectl's defaults.
struct Connection {
  std::string kubeconfig = {};
  std::string context = {};
  std::string ns = {};
};

struct StatusCommand {
  std::string model = {};  // empty: all
  bool all_namespaces = false;
  bool watch = false;
  bool json = false;
};

struct PlanCommand {
  std::string file = {};    // "-": standard input
  std::string config = {};  // config.json of models whose spec does not have it; empty: none
  bool offline = false;
  bool json = false;
};

struct FitCommand {
  std::string config = {};  // the model's config.json; "-": standard input
  std::string memory = {};  // of a pod, or of one accelerator: a quantity of Kubernetes
  bool gpu = false;
  int tensor = 0;  // 0: every number that there can be
  int ranks_per_pod = 1;
  long context = 0;          // 0: what the model allows
  long kv_cache_tokens = 0;  // 0: at least one request of the longest context
  std::string kv_cache_dtype = "fp32";
  int batched_tokens = 512;
  int sequences = 16;
  bool drafts = false;
  bool loose = false;
  bool deterministic = false;  // neither: as the worker on such a device
  bool data_parallel_attention = false;
  bool expert_parallel = false;
  int weight_bits = 0;  // 8 or 4: weights are rounded to so many; 0: as they are stored
  bool json = false;
};

struct LogsCommand {
  std::string model = {};
  std::string group = {};  // empty: all
  int rank = -1;           // -1: all
  bool follow = false;
  bool previous = false;
  long tail = 100;  // lines of each pod; -1: all
};

struct RestartCommand {
  std::string model = {};
};

struct RollbackCommand {
  std::string model = {};
  std::string to = {};  // a revision; empty: the one before
  bool list = false;
  bool dry_run = false;
  bool keep_spec = false;  // by an annotation, which the operator honours
  bool undo = false;       // takes that annotation away
};

struct DrainCommand {
  std::string model = {};
  std::string group = {};
  std::string node = {};  // of all models on it, instead of one group
  bool cancel = false;
  bool wait = false;  // until it is gone; with `node` always
  int timeout_s = 0;  // 0: as long as it takes
};

struct PauseCommand {
  std::string model = {};
  bool paused = true;  // false: resume
};

struct SleepCommand {
  std::string model = {};
  bool sleep = true;  // false: wake
};

struct BundleCommand {
  std::string model = {};
  std::string file = {};
  std::string operator_namespace = "deepseek-system";
};

struct VersionCommand {
  bool client = false;  // do not ask the cluster
};

// A text that needs nothing but the program itself.
struct PrintCommand {
  std::string text = {};
};

using Command = std::variant<StatusCommand, PlanCommand, FitCommand, LogsCommand, RestartCommand,
                             RollbackCommand, PauseCommand, DrainCommand, SleepCommand,
                             BundleCommand, VersionCommand, PrintCommand>;

struct Arguments {
  Connection connection;
  Command command;
};

// kInvalid: the command line is wrong, with a hint at --help. Help is a PrintCommand.
Result<Arguments> parse_arguments(int argc, const char* const* argv);

}  // namespace dsm::ctl

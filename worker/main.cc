// deepseek-worker: one process of a tensor-parallel group, or all of it.
//
// Everything is made here, in the order in which it depends on each other, and destroyed the other
// way round:  clock, metrics, drain -> HTTP (answers /health from now on) -> group (loads weights,
// meets the other pods) -> engine -> API.  The main thread then waits for a signal.

#include <pthread.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <optional>
#include <stop_token>
#include <thread>

#include "worker/device/gpu.h"
#include "worker/device/gpu_holdings.h"
#include "worker/group/follower.h"
#include "worker/group/leader.h"
#include "worker/grpc/grpc_server.h"
#include "worker/health/watch.h"
#include "worker/kernel_startup.h"
#include "worker/last_words.h"
#include "worker/startup.h"

namespace dsm::worker {
namespace {

constexpr Millis kLook{200};  // how often the main thread looks after its group

// SIGTERM and SIGINT as values: no thread takes them but the one that waits here.
class Signals {
 public:
  Signals() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGTERM);
    sigaddset(&set_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);  // before any thread is started
    std::signal(SIGPIPE, SIG_IGN);
  }
  // Whether one has come that wait() will give.
  bool has_come() const {
    sigset_t come;
    return sigpending(&come) == 0 && (sigismember(&come, SIGTERM) + sigismember(&come, SIGINT)) > 0;
  }
  // The signal that came, or nullopt when none did in time.
  std::optional<int> wait(Millis time) const {
    const timespec limit{time.count() / 1000, (time.count() % 1000) * 1'000'000};
    const int signal = sigtimedwait(&set_, nullptr, &limit);
    return signal > 0 ? std::optional(signal) : std::nullopt;
  }

 private:
  sigset_t set_{};
};

server::GroupView group_view(const group::GroupState& state) {
  server::GroupView view;
  view.phase = group::to_string(state.phase);
  view.reason = state.reason;
  view.message = state.message;
  view.epoch = state.epoch;
  view.loaded = state.loaded;
  view.live = state.live;
  view.last_error = state.last_error;
  for (const group::RankState& rank : state.ranks) {
    view.ranks.push_back({.rank = rank.rank,
                          .phase = std::string(group::to_string(rank.phase)),
                          .loaded_bytes = rank.loaded_bytes,
                          .total_bytes = rank.total_bytes,
                          .error = rank.error,
                          .device = rank.device});
  }
  return view;
}

int give_up(const std::string& message) {
  say_last(message);
  return 1;
}

// The parts of every worker process.
struct Base {
  Base(const Options& o, const Startup& startup, Logger l)
      : options(o),
        log(std::move(l)),
        drain({.unready = Seconds(o.drain_unready_s), .finish = Seconds(o.drain_timeout_s)}, clock),
        server(startup.server, registry, drain, clock, log) {
    if (o.grpc_port == 0 || !o.is_leader()) return;
    grpc.emplace(
        GrpcAddress{.host = o.host, .port = static_cast<std::uint16_t>(o.grpc_port)},
        [this] { return server.open_api(); }, log);
  }

  Status start() {
    if (auto started = server.start(); !started || !grpc) return started;
    return grpc->start();
  }
  // What others are told of us, as of now.
  void look() {
    if (grpc) grpc->serving(server::ready_health(server.view()).good);
  }
  // No answer is under way any more, or may be broken off.
  void stop() {
    if (grpc) grpc->stop();
    server.stop();
  }

  const Options& options;
  Logger log;
  Signals signals;
  SystemClock clock;
  MetricsRegistry registry;
  server::Drain drain;
  server::WorkerServer server;
  std::optional<grpc_api::GrpcServer> grpc;
};

// Waits for a signal; nullopt when this process could do no more before one came, or `done`.
template <typename Group, typename Done>
std::optional<int> wait_for_signal(Base& base, const Group& group, const Done& done) {
  for (;;) {
    const group::GroupState state = group.state();
    if (state.ended || done(state)) return std::nullopt;
    base.look();
    if (const auto signal = base.signals.wait(kLook)) return signal;
  }
}
template <typename Group>
std::optional<int> wait_for_signal(Base& base, const Group& group) {
  return wait_for_signal(base, group, [](const group::GroupState&) { return false; });
}

// Of the GPUs of this process's ranks; null without one.
template <typename Group>
std::unique_ptr<health::Watch> watch_gpus(Base& base, const Startup& startup, Group& group) {
  return health::watch_gpus(
      device::gpu_buses(startup.model.device, startup.model.local_ranks),
      startup.group.first_rank(), base.registry,
      [](std::size_t gpu) {
        const device::GpuHoldings held = device::gpu_holdings(static_cast<int>(gpu));
        return health::OwnMemory{.allocated = static_cast<std::uint64_t>(held.allocated),
                                 .fragmented = static_cast<std::uint64_t>(held.unused)};
      },
      [&group](int rank, const health::DeviceHealth& health) { group.device_is(rank, health); },
      base.clock, base.log);
}

// The operator reads a reason before a colon off the termination message.
template <typename Group>
std::string failure_of(const Group& group) {
  const group::GroupState state = group.state();
  for (const group::RankState& rank : state.ranks) {
    if (rank.phase != group::Phase::kFailed) continue;
    const std::string which = "rank " + std::to_string(rank.rank);
    if (rank.reason == "LoadFailed") return which + " cannot load the model: " + rank.error;
    if (health::is_lost(rank.device)) return "DeviceLost: " + which + ": " + rank.error;
    return rank.reason + ": " + which + ": " + rank.error;
  }
  return state.reason + ": " + state.message;
}

// Says last what has failed. Where a GPU is lost, a rank's thread may wait for it for ever, so
// nothing waits for that thread.
template <typename Group>
int give_up_on(const Group& group, const std::string& failure) {
  const int status = give_up(failure);
  const group::GroupState state = group.state();
  const bool lost = std::ranges::any_of(state.ranks, [](const group::RankState& rank) {
    return rank.device.level == health::Level::kFatal;
  });
  if (lost) std::_Exit(status);
  return status;
}

int run_leader(Base& base, const Startup& startup, const server::ServedModel& model) {
  group::LeaderGroup group(startup.group, model_loader(startup.model, base.log), base.clock,
                           base.log, startup.shared_adapters);
  base.server.watch_group([&group] { return group_view(group.state()); });
  if (auto started = group.start(); !started) {
    base.server.stop(0);
    return give_up(started.error().message);
  }
  const auto watch = watch_gpus(base, startup, group);
  engine::SchedulerConfig scheduler = startup.scheduler;
  if (startup.model.kv.num_blocks == 0) {
    // How much the cache holds is known when all ranks have their weights.
    const auto known = [](const group::GroupState& state) { return state.kv_blocks > 0; };
    const auto signal = wait_for_signal(base, group, known);
    scheduler.num_blocks = group.state().kv_blocks;
    if (signal || scheduler.num_blocks == 0) {
      base.stop();
      return signal ? 0 : give_up_on(group, failure_of(group));
    }
  }
  server::WorkerMetrics metrics(base.registry, model.name, model.max_model_len,
                                scheduler.num_blocks * scheduler.kv_caches,
                                model.adapters ? model.adapters->limit() : 0);
  auto engine =
      std::make_unique<engine::Engine>(scheduler, group, base.clock, base.log, startup.probe);
  server::Api api(model, *engine, metrics, base.drain, base.clock, base.log,
                  static_cast<std::size_t>(base.options.unread_bytes));
  base.server.serve(api, *engine, metrics);

  const auto signal = wait_for_signal(base, group);
  if (signal) {
    // At a terminal, and before the model was served, nobody has to be told that the endpoint goes
    // away.
    base.drain.begin(/*at_once=*/*signal == SIGINT || !engine->stats().serving);
    base.look();
    std::jthread impatience([&base](const std::stop_token& done) {
      while (!done.stop_requested()) {
        if (base.signals.wait(kLook)) base.drain.hurry();
      }
    });
    const bool finished = base.drain.wait();
    base.log.info(finished ? "drained" : "the drain's time is over, requests are ended",
                  {{"in_flight", base.drain.in_flight()}});
  }
  const std::string failure = signal ? "" : failure_of(group);
  // From the outside in; see api.h.
  api.stop();
  base.stop();
  engine.reset();
  return signal ? 0 : give_up_on(group, failure);
}

// A follower outlives its leader: told to stop, it goes on working until the leader has let go of
// it or the time that the leader may take is over.
int run_follower(Base& base, const Startup& startup) {
  group::FollowerGroup group(startup.group, model_loader(startup.model, base.log), base.clock,
                             base.log, startup.held_adapters);
  base.server.watch_group([&group] { return group_view(group.state()); });
  const auto watch = watch_gpus(base, startup, group);
  const auto signal = wait_for_signal(base, group);
  if (signal) {
    base.drain.begin(/*at_once=*/true);
    const TimePoint limit = base.clock.now() + Seconds(base.options.drain_unready_s) +
                            Seconds(base.options.drain_timeout_s);
    while (group.state().ready() && base.clock.now() < limit) {
      if (base.signals.wait(kLook)) break;
    }
    base.log.info("follower ends", {{"still_connected", group.state().ready()}});
  }
  const std::string failure = signal ? "" : failure_of(group);
  base.server.stop(0);
  return signal ? 0 : give_up_on(group, failure);
}

// Before this process has a context on its GPUs, so that all their memory is there for whoever
// tries kernels, and here once it has ended.
device::KernelChoice kernels_for(const ModelSpec& model, Base& base) {
  if (model.device == device::Device::kCpu) return {};
  const TrialSetting setting{.model = {.config = model.config,
                                       .ranks = model.ranks,
                                       .deterministic = model.deterministic,
                                       .fp8_activations = model.fp8_activations,
                                       .round_weights = model.round_weights,
                                       .kv_dtype = model.kv.dtype,
                                       .drafts = model.drafts,
                                       .expert_parallel = model.expert_parallel,
                                       .data_parallel_attention = model.data_parallel_attention,
                                       .max_batch_tokens = model.max_batch_tokens,
                                       .threads = model.threads_per_rank * model.local_ranks},
                             .dir = model.dir,
                             .whole_group = model.local_ranks == model.ranks,
                             .capability = device::gpu_capability(model.device),
                             .given_up = [&base] { return base.signals.has_come(); }};
  const KernelWish wish{.measured = base.options.measures_kernels(),
                        .megakernel = base.options.megakernel};
  const device::KernelChoice kernels = choose_kernels(wish, setting, base.log);
  tell_kernels(kernels, base.registry);
  return kernels;
}

int run(int argc, const char* const* argv) {
  auto options = parse_options(argc, argv);
  if (!options && options.error().kind == ErrorKind::kCancelled) {  // --help
    std::fputs(options.error().message.c_str(), stdout);
    return 0;
  }
  if (!options) return give_up(options.error().message);
  if (options->version) {
    std::printf("deepseek-worker %s\n", kVersion);
    return 0;
  }
  explain_bus_errors();
  const Logger log = options->logger();
  auto startup = prepare(*options, log);
  if (!startup) return give_up(startup.error().message);
  Base base(*options, *startup, log);
  if (auto started = base.start(); !started) return give_up(started.error().message);
  log.info("listening", {{"host", options->host},
                         {"port", base.server.port()},
                         {"internal_port", base.server.internal_port()}});
  startup->model.kernels = kernels_for(startup->model, base);
  const std::optional<server::ServedModel>& served = startup->served;
  return served ? run_leader(base, *startup, *served) : run_follower(base, *startup);
}

}  // namespace
}  // namespace dsm::worker

int main(int argc, char** argv) {
  if (argc == 3 && argv[1] == dsm::worker::kTrialsCommand) {
    return dsm::worker::try_kernels(argv[2]);
  }
  return dsm::worker::run(argc, argv);
}

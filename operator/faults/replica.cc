#include "operator/faults/replica.h"

#include <vector>

#include "kube/events.h"
#include "kube/lease.h"
#include "operator/api/names.h"
#include "operator/faults/leader_voices.h"
#include "operator/faults/watch_line.h"

namespace dsm::faults {
namespace {

constexpr Seconds kRestart{3};  // until a crashed process runs again

kube::ElectorOptions elector_options(const std::string& identity,
                                     std::function<void(bool)> on_change) {
  kube::ElectorOptions options;
  options.ns = "operator";
  options.name = "deepseek-operator";
  options.identity = identity;
  options.on_change = std::move(on_change);
  return options;
}

kube::ClientOptions client_options(std::function<bool(TimePoint)> may_write) {
  kube::ClientOptions options;
  options.timeout = Millis(6'500);  // (lease duration - retry period) / 2, as the program has it
  options.may_write = std::move(may_write);
  return options;
}

runtime::ModelLoopOptions counted(runtime::ModelLoopOptions options,
                                  runtime::ControllerMetrics& tenants) {
  if (options.tenants) options.tenants->metrics = &tenants;
  return options;
}

}  // namespace

runtime::ModelLoopOptions Replica::loop_options() {
  runtime::ModelLoopOptions options;
  options.plan.worker_image = "worker:1";
  options.plan.watches_nodes = true;
  return options;
}

// What ends with the process. Wired as the program is (operator/main.cc).
struct Replica::Process {
  Process(const std::string& identity, ApiServer& server, Clock& clock, FaultSource& faults,
          const Wire::Hooks& hooks, const runtime::ModelLoopOptions& options)
      : wire(server, faults, hooks),
        plain(wire, clock, client_options(nullptr)),
        writes(wire, clock,
               client_options([this](TimePoint end) { return election.holds_until(end); })),
        events(writes, "deepseek-operator", identity, Logger()),
        metrics(registry, "deepseekmodel", 1),
        tenant_metrics(registry, "deepseektenant", 1),
        voices(server),
        loop(counted(options, tenant_metrics), plain, writes, events, metrics, voices, Logger()),
        election(plain, elector_options(identity, [this](bool leading) { loop.lead(leading); }),
                 Logger()) {
    loop.metrics_api({plan::MetricsApi::State::kOurs, ""});
    const auto watch = [&](std::vector<runtime::Feed> feeds) {
      for (runtime::Feed& feed : feeds) {
        lines.push_back(std::make_unique<WatchLine>(server, clock, faults, std::move(feed)));
      }
    };
    watch(loop.feeds());
    if (loop.tenants() != nullptr) watch(loop.tenants()->feeds());
  }

  // Looks at what is due; false: nothing is.
  bool step() { return loop.step() || (loop.tenants() != nullptr && loop.tenants()->step()); }

  Wire wire;
  kube::Client plain;
  kube::Client writes;
  kube::EventRecorder events;
  MetricsRegistry registry;
  runtime::ControllerMetrics metrics;
  runtime::ControllerMetrics tenant_metrics;
  LeaderVoices voices;
  runtime::ModelLoop loop;
  kube::Election election;
  TimePoint next_step{};  // of the election
  std::vector<std::unique_ptr<WatchLine>> lines;
};

Replica::Replica(std::string name, ApiServer& server, ManualClock& clock, FaultSource& faults,
                 Wire::Hooks hooks, runtime::ModelLoopOptions options)
    : name_(std::move(name)),
      server_(server),
      clock_(clock),
      faults_(faults),
      hooks_({[this, also = std::move(hooks.connected)] {
                return clock_.now() >= cut_until_ && (!also || also());
              },
              std::move(hooks.stand_still), [this] { ending_ = true; }, std::move(hooks.writes)}),
      options_(std::move(options)) {
  start();
}

Replica::~Replica() = default;

void Replica::start() {
  identity_ = name_ + "_" + std::to_string(++started_);
  process_ = std::make_unique<Process>(identity_, server_, clock_, faults_, hooks_, options_);
}

void Replica::crash() {
  process_.reset();
  ending_ = false;
  starts_ = clock_.now() + kRestart;
}

void Replica::cut_off(Millis time) {
  cut_until_ = clock_.now() + time;
}

void Replica::stand_still(Millis time) {
  still_until_ = clock_.now() + time;
}

void Replica::deafen(Millis time) {
  deaf_until_ = clock_.now() + time;
}

void Replica::restart() {
  if (process_ && clock_.now() >= still_until_) end_in_order();
}

void Replica::end_in_order() {
  busy_ = true;  // also while the Lease is freed, which may take its time
  try {
    process_->election.release();
  } catch (const Crash&) {
  }
  crash();
  busy_ = false;
}

bool Replica::tick() {
  if (busy_ || clock_.now() < still_until_) return true;
  if (!process_) {
    if (clock_.now() < starts_) return true;
    start();
  }
  busy_ = true;
  int looks = 0;
  try {
    Process& process = *process_;
    for (const auto& line : process.lines) line->tick(hooks_.connected());
    if (clock_.now() >= deaf_until_) {
      process.voices.listen([&](const std::string& model, runtime::StreamNews news) {
        process.loop.on_news(model, news);
      });
    }
    while (!ending_ && looks < kMostLooks && process.step()) ++looks;
    // Last, so that after a standstill the operator looks before it notices that it leads no more.
    if (clock_.now() >= process.next_step) process.next_step = process.election.step();
    if (ending_) end_in_order();
  } catch (const Crash&) {
    crash();
  }
  busy_ = false;
  return looks < kMostLooks;
}

}  // namespace dsm::faults

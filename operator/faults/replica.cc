#include "operator/faults/replica.h"

#include <vector>

#include "kube/events.h"
#include "kube/lease.h"
#include "kube/optional_watch.h"
#include "operator/api/names.h"
#include "operator/faults/leader_voices.h"
#include "operator/faults/watch_line.h"
#include "operator/metrics_api/api.h"
#include "operator/plan/load.h"

namespace dsm::faults {
namespace {

constexpr Seconds kRestart{3};  // until a crashed process runs again
// Until who was away is asked for numbers again: what it knows is older than its watches are late.
constexpr Seconds kUntilProbed{10};

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
    if (options.coscheduling) look_for_pod_groups(server, clock, faults);
    loop.metrics_api({plan::MetricsApi::State::kOurs, ""});
    const auto watch = [&](std::vector<runtime::Feed> feeds) {
      for (runtime::Feed& feed : feeds) {
        lines.push_back(std::make_unique<WatchLine>(server, clock, faults, std::move(feed)));
      }
    };
    watch(loop.feeds());
    if (loop.tenants() != nullptr) watch(loop.tenants()->feeds());
  }

  void look_for_pod_groups(ApiServer& server, Clock& clock, FaultSource& faults) {
    runtime::Feed feed = loop.pod_group_feed();
    const auto begin = [this, &server, &clock, &faults, feed](kube::Watcher::Handler to) mutable {
      feed.take = std::move(to);
      pod_group_line = std::make_unique<WatchLine>(server, clock, faults, feed);
    };
    pod_groups = std::make_unique<kube::OptionalKind>(
        plain, feed.resource,
        kube::OptionalKind::Watching{.begin = begin, .end = [this] { pod_group_line.reset(); }},
        feed.take, [this](bool there) { loop.pod_groups_there(there); }, Logger());
  }

  void watch(bool connected, TimePoint now) {
    for (const auto& line : lines) line->tick(connected);
    if (pod_groups && now >= next_question) next_question = now + pod_groups->step();
    if (pod_group_line) pod_group_line->tick(connected);
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
  std::unique_ptr<kube::OptionalKind> pod_groups;  // null: it does not ask
  std::unique_ptr<WatchLine> pod_group_line;       // null: the kind is not there
  TimePoint next_question{};                       // whether it is
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
  asked_from_ = cut_until_ + kUntilProbed;
}

void Replica::stand_still(Millis time) {
  still_until_ = clock_.now() + time;
  asked_from_ = still_until_ + kUntilProbed;
}

void Replica::deafen(Millis time) {
  deaf_until_ = clock_.now() + time;
}

Result<double> Replica::number(const std::string& model, const std::string& metric) const {
  if (!process_ || busy_ || clock_.now() < asked_from_) {
    return fail(ErrorKind::kTransient, "no answer");
  }
  const runtime::Store& store = process_->loop.store();
  const std::string name = model.substr(model.find('/') + 1);
  metrics_api::View view{process_->loop.synced(), {}};
  if (const std::string uid = store.models.uid(model); !uid.empty()) {
    std::vector<plan::PodView> pods;
    for (const auto& pod : store.pods.of_model(model)) pods.push_back(*pod);
    view.loads.push_back(
        plan::load_of(name, uid, pods, process_->voices.latest(model), clock_.wall_now()));
  }
  return metrics_api::number_of(view, name, metric);
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
  const TimePoint begin = clock_.now();
  int looks = 0;
  try {
    Process& process = *process_;
    process.watch(hooks_.connected(), clock_.now());
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
  if (clock_.now() > begin) asked_from_ = clock_.now() + kUntilProbed;
  return looks < kMostLooks;
}

}  // namespace dsm::faults

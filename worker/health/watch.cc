#include "worker/health/watch.h"

#include <algorithm>
#include <utility>

#include "worker/health/xid.h"

namespace dsm::health {

Watch::Watch(std::unique_ptr<Gpus> gpus, int first_rank, MetricsRegistry& registry, OwnMemoryOf own,
             Told told, Clock& clock, Logger log)
    : gpus_(std::move(gpus)),
      first_rank_(first_rank),
      metrics_(registry),
      own_(std::move(own)),
      told_(std::move(told)),
      clock_(clock),
      log_(std::move(log)),
      watched_(gpus_->count()),
      thread_([this](const std::stop_token& stop) { run(stop); }) {}

Watch::~Watch() {
  thread_.request_stop();
  {
    const std::lock_guard lock(mutex_);
  }
  ended_.notify_all();
  thread_.join();
}

void Watch::run(const std::stop_token& stop) {
  TimePoint next = clock_.now() + kEvery;
  for (std::size_t gpu = 0; gpu < watched_.size(); ++gpu) {
    look(gpu);
    metrics_.begin(rank_of(gpu), watched_[gpu].last);
  }
  while (!stop.stop_requested()) {
    const bool told_events = gpus_->tells_events();
    wait(stop, next);
    // Where events have just ended, a GPU may be lost: that shows when one looks.
    if (clock_.now() < next && gpus_->tells_events() == told_events) continue;
    if (stop.stop_requested()) return;
    next = clock_.now() + kEvery;
    for (std::size_t gpu = 0; gpu < watched_.size(); ++gpu) look(gpu);
  }
}

void Watch::wait(const std::stop_token& stop, TimePoint next) {
  if (gpus_->tells_events()) {
    const auto left = std::chrono::duration_cast<Millis>(next - clock_.now());
    if (const auto event = gpus_->wait(std::clamp(left, Millis(0), kRound))) heard(*event);
    return;
  }
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested() && clock_.now() < next) clock_.wait_until(ended_, lock, next);
}

void Watch::look(std::size_t gpu) {
  Watched& one = watched_[gpu];
  one.last = gpus_->read(gpu);
  one.last.own = own_(gpu);
  remember(one.history, one.last);
  tell(gpu);
}

void Watch::heard(const Gpus::XidEvent& event) {
  Watched& one = watched_[event.gpu];
  metrics_.count(rank_of(event.gpu), one.last, event.xid);
  log_.info("the driver tells an error",
            {{"gpu", one.last.device}, {"bus", one.last.bus}, {"xid", event.xid}});
  if (remember_xid(one.history, event.xid)) tell(event.gpu);
}

void Watch::tell(std::size_t gpu) {
  Watched& one = watched_[gpu];
  DeviceHealth now = judge(one.last, one.history);
  metrics_.update(rank_of(gpu), one.last, now);
  if (now == one.told) return;
  if (now.message != one.told.message) {
    log_.info("health of a GPU", {{"gpu", now.device},
                                  {"bus", one.last.bus},
                                  {"health", to_string(now.level)},
                                  {"why", now.message}});
  }
  one.told = std::move(now);
  told_(rank_of(gpu), one.told);
}

std::unique_ptr<Watch> watch_gpus(const std::vector<std::string>& buses, int first_rank,
                                  MetricsRegistry& registry, OwnMemoryOf own, Told told,
                                  Clock& clock, const Logger& log, const char* library) {
  if (buses.empty()) return nullptr;
  auto api = nvml::load(library);
  auto gpus = api ? Gpus::open(std::move(*api), buses) : std::unexpected(api.error());
  if (!gpus) {
    log.info("the health of GPUs is not watched", {{"why", gpus.error().message}});
    return nullptr;
  }
  return std::make_unique<Watch>(std::move(*gpus), first_rank, registry, std::move(own),
                                 std::move(told), clock, log);
}

}  // namespace dsm::health

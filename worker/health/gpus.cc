#include "worker/health/gpus.h"

#include <algorithm>

namespace dsm::health {
namespace {

// What a function answered, if it did. A lost GPU is noted, whichever function says so.
template <typename T>
std::optional<T> answer(nvml::Return status, T value, Reading& reading) {
  reading.lost = reading.lost || status == nvml::kGpuIsLost;
  reading.needs_reset = reading.needs_reset || status == nvml::kResetRequired;
  return status == nvml::kSuccess ? std::optional(value) : std::nullopt;
}

}  // namespace

Result<std::unique_ptr<Gpus>> Gpus::open(std::shared_ptr<const nvml::Api> api,
                                         const std::vector<std::string>& buses) {
  if (const nvml::Return status = api->init(); status != nvml::kSuccess) {
    return fail(ErrorKind::kTransient,
                std::string("NVML does not start: ") + api->error_string(status));
  }
  std::unique_ptr<Gpus> gpus(new Gpus(std::move(api)));  // shuts down what was initialised
  for (const std::string& bus : buses) {
    Gpu gpu{.device = nullptr, .name = "", .bus = bus};
    const nvml::Return status = gpus->api_->device_by_bus(bus.c_str(), &gpu.device);
    if (status != nvml::kSuccess) {
      return fail(ErrorKind::kTransient,
                  "NVML does not know the GPU at " + bus + ": " + gpus->api_->error_string(status));
    }
    unsigned number = 0;
    // /dev/nvidia3 is the node's third also in a container that sees no other.
    gpu.name = gpus->api_->minor_number(gpu.device, &number) == nvml::kSuccess
                   ? "GPU " + std::to_string(number)
                   : "GPU " + bus;
    gpus->gpus_.push_back(std::move(gpu));
  }
  gpus->listen();
  return gpus;
}

Gpus::~Gpus() {
  listen_no_more();
  api_->shutdown();
}

void Gpus::listen() {
  if (api_->event_set_create(&events_) != nvml::kSuccess) {
    events_ = nullptr;
    return;
  }
  const auto registered = std::ranges::count_if(gpus_, [this](const Gpu& gpu) {
    return api_->register_events(gpu.device, nvml::kXidEvent, events_) == nvml::kSuccess;
  });
  if (registered == 0) listen_no_more();
}

void Gpus::listen_no_more() {
  if (events_ != nullptr) api_->event_set_free(events_);
  events_ = nullptr;
}

Reading Gpus::read(std::size_t index) const {
  const Gpu& gpu = gpus_[index];
  Reading now;
  now.device = gpu.name;
  now.bus = gpu.bus;
  nvml::Utilisation busy{};
  nvml::Memory memory{};
  unsigned number = 0;
  unsigned long long count = 0;
  // Arguments are evaluated before the call, in any order: each value is read after its own call.
  const auto ask = [&](nvml::Return status, const auto& value) {
    return answer(status, value, now);
  };
  nvml::Return status = api_->utilisation(gpu.device, &busy);
  now.utilisation_percent = ask(status, busy.gpu);
  status = api_->memory(gpu.device, &memory);
  now.memory_used = ask(status, std::uint64_t{memory.used});
  now.memory_total = ask(status, std::uint64_t{memory.total});
  status = api_->temperature(gpu.device, nvml::kGpuTemperature, &number);
  now.temperature_celsius = ask(status, number);
  status = api_->power(gpu.device, &number);
  now.power_milliwatts = ask(status, number);
  status = api_->clock(gpu.device, nvml::kSmClock, &number);
  now.sm_clock_mhz = ask(status, number);
  status = api_->clock(gpu.device, nvml::kMemoryClock, &number);
  now.memory_clock_mhz = ask(status, number);
  status = api_->throttle(gpu.device, &count);
  now.throttle = ask(status, std::uint64_t{count});
  status = api_->ecc_errors(gpu.device, nvml::kCorrected, nvml::kSinceDriverLoad, &count);
  now.ecc_corrected = ask(status, std::uint64_t{count});
  status = api_->ecc_errors(gpu.device, nvml::kUncorrected, nvml::kSinceDriverLoad, &count);
  now.ecc_uncorrected = ask(status, std::uint64_t{count});
  unsigned pending = 0;
  unsigned failed = 0;
  RemappedRows rows;
  status = api_->remapped_rows(gpu.device, &rows.corrected, &rows.uncorrected, &pending, &failed);
  rows.pending = pending != 0;
  rows.failed = failed != 0;
  now.rows = ask(status, rows);
  read_links(gpu, now);
  return now;
}

void Gpus::read_links(const Gpu& gpu, Reading& reading) const {
  unsigned links = 0;
  std::uint64_t errors = 0;
  bool any = false;
  for (unsigned link = 0; link < nvml::kMostLinks; ++link) {
    int up = 0;
    if (api_->link_state(gpu.device, link, &up) != nvml::kSuccess) continue;
    any = true;
    if (up == 0) continue;
    ++links;
    for (const int kind : nvml::kLinkErrorKinds) {
      unsigned long long count = 0;
      if (api_->link_errors(gpu.device, link, kind, &count) == nvml::kSuccess) errors += count;
    }
  }
  if (!any) return;
  reading.links = links;
  reading.link_errors = errors;
}

std::optional<Gpus::XidEvent> Gpus::wait(Millis time) {
  nvml::EventData event{};
  const nvml::Return status =
      api_->event_set_wait(events_, &event, static_cast<unsigned>(time.count()));
  // As when a GPU is lost: every later call would fail at once.
  if (status != nvml::kSuccess && status != nvml::kTimeout) listen_no_more();
  if (status != nvml::kSuccess || event.type != nvml::kXidEvent) return std::nullopt;
  const auto gpu = std::ranges::find(gpus_, event.device, &Gpu::device);
  if (gpu == gpus_.end()) return std::nullopt;
  return XidEvent{.gpu = static_cast<std::size_t>(gpu - gpus_.begin()), .xid = event.data};
}

}  // namespace dsm::health

// For tests: a library with GPUs that the test sets. Functions of a C library have no object, so
// there is one at a time.
#pragma once

#include <array>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "worker/health/nvml.h"

namespace dsm::health {

struct FakeGpu {
  unsigned number = 3;
  nvml::Return fails = nvml::kSuccess;  // what every question is answered with
  nvml::Utilisation busy{.gpu = 87, .memory = 40};
  nvml::Memory memory{.total = 80ULL << 30, .free = 20ULL << 30, .used = 60ULL << 30};
  unsigned celsius = 61;
  unsigned milliwatts = 412'500;
  std::array<unsigned, 3> mhz{1980, 1980, 2619};
  unsigned long long throttle = 0;
  std::array<unsigned long long, 2> ecc{};
  std::array<unsigned, 4> rows{};  // corrected, uncorrected, pending, failed
  bool has_rows = true;
  std::array<int, 4> links{1, 1, 1, 1};  // 1: up
  unsigned long long link_errors = 2;    // of each kind and link
};

class FakeNvml {
 public:
  FakeNvml() { here() = this; }
  ~FakeNvml() { here() = nullptr; }
  FakeNvml(const FakeNvml&) = delete;
  FakeNvml& operator=(const FakeNvml&) = delete;

  // Any thread.
  FakeGpu& add(const std::string& bus) {
    const std::lock_guard lock(mutex);
    return gpus[bus];
  }
  void change(const std::string& bus, const std::function<void(FakeGpu&)>& how) {
    const std::lock_guard lock(mutex);
    how(gpus.at(bus));
  }
  void tell(const std::string& bus, unsigned long long xid) {
    const std::lock_guard lock(mutex);
    events.push_back({.device = device(gpus.at(bus)),
                      .type = nvml::kXidEvent,
                      .data = xid,
                      .gpu_instance = 0,
                      .compute_instance = 0});
    told.notify_all();
  }

  std::shared_ptr<const nvml::Api> api() {
    auto made = std::make_shared<nvml::Api>();
    made->init = [] { return ++here()->users, here()->init; };
    made->shutdown = [] { return --here()->users, nvml::kSuccess; };
    made->error_string = [](nvml::Return status) {
      return status == nvml::kGpuIsLost ? "GPU is lost" : "an error";
    };
    made->device_by_bus = [](const char* bus, nvml::Device* out) {
      const std::lock_guard lock(here()->mutex);
      const auto found = here()->gpus.find(bus);
      if (found == here()->gpus.end()) return 6;  // not found
      *out = device(found->second);
      return nvml::kSuccess;
    };
    made->minor_number = [](nvml::Device d, unsigned* out) {
      return give(d, [&](const FakeGpu& g) { *out = g.number; });
    };
    made->utilisation = [](nvml::Device d, nvml::Utilisation* out) {
      return give(d, [&](const FakeGpu& g) { *out = g.busy; });
    };
    made->memory = [](nvml::Device d, nvml::Memory* out) {
      return give(d, [&](const FakeGpu& g) { *out = g.memory; });
    };
    made->temperature = [](nvml::Device d, int, unsigned* out) {
      return give(d, [&](const FakeGpu& g) { *out = g.celsius; });
    };
    made->power = [](nvml::Device d, unsigned* out) {
      return give(d, [&](const FakeGpu& g) { *out = g.milliwatts; });
    };
    made->clock = [](nvml::Device d, int kind, unsigned* out) {
      return give(d, [&](const FakeGpu& g) { *out = g.mhz.at(static_cast<std::size_t>(kind)); });
    };
    made->throttle = [](nvml::Device d, unsigned long long* out) {
      return give(d, [&](const FakeGpu& g) { *out = g.throttle; });
    };
    made->ecc_errors = [](nvml::Device d, int kind, int, unsigned long long* out) {
      return give(d, [&](const FakeGpu& g) { *out = g.ecc.at(static_cast<std::size_t>(kind)); });
    };
    made->remapped_rows = [](nvml::Device d, unsigned* corrected, unsigned* uncorrected,
                             unsigned* pending, unsigned* failed) {
      bool there = true;
      const nvml::Return status = give(d, [&](const FakeGpu& g) {
        there = g.has_rows;
        *corrected = g.rows[0];
        *uncorrected = g.rows[1];
        *pending = g.rows[2];
        *failed = g.rows[3];
      });
      return there ? status : nvml::kNotSupported;
    };
    made->link_state = [](nvml::Device d, unsigned link, int* up) {
      bool there = true;
      const nvml::Return status = give(d, [&](const FakeGpu& g) {
        there = link < g.links.size();
        *up = there ? g.links[link] : 0;
      });
      return there ? status : nvml::kNotSupported;
    };
    made->link_errors = [](nvml::Device d, unsigned, int, unsigned long long* out) {
      return give(d, [&](const FakeGpu& g) { *out = g.link_errors; });
    };
    made->event_set_create = [](nvml::EventSet* set) {
      if (!here()->has_events) return nvml::kNotSupported;
      *set = reinterpret_cast<nvml::EventSet>(here());
      ++here()->event_sets;
      return nvml::kSuccess;
    };
    made->register_events = [](nvml::Device, unsigned long long types, nvml::EventSet) {
      return types == nvml::kXidEvent ? nvml::kSuccess : nvml::kNotSupported;
    };
    made->event_set_wait = [](nvml::EventSet, nvml::EventData* out, unsigned milliseconds) {
      std::unique_lock lock(here()->mutex);
      const auto ready = [] {
        return !here()->events.empty() || here()->events_fail != nvml::kSuccess;
      };
      if (!here()->told.wait_for(lock, std::chrono::milliseconds(milliseconds), ready)) {
        return nvml::kTimeout;
      }
      if (here()->events_fail != nvml::kSuccess) return here()->events_fail;
      *out = here()->events.front();
      here()->events.pop_front();
      return nvml::kSuccess;
    };
    made->event_set_free = [](nvml::EventSet) { return --here()->event_sets, nvml::kSuccess; };
    return made;
  }

  std::mutex mutex;
  std::condition_variable told;
  std::map<std::string, FakeGpu> gpus;  // by PCI address
  std::deque<nvml::EventData> events;
  nvml::Return init = nvml::kSuccess;
  nvml::Return events_fail = nvml::kSuccess;
  bool has_events = true;
  int users = 0;
  int event_sets = 0;

 private:
  static FakeNvml*& here() {
    static FakeNvml* one = nullptr;
    return one;
  }
  static nvml::Device device(FakeGpu& gpu) { return reinterpret_cast<nvml::Device>(&gpu); }
  template <typename Give>
  static nvml::Return give(nvml::Device device, const Give& how) {
    const std::lock_guard lock(here()->mutex);
    const auto& gpu = *reinterpret_cast<const FakeGpu*>(device);
    if (gpu.fails == nvml::kSuccess) how(gpu);
    return gpu.fails;
  }
};

}  // namespace dsm::health

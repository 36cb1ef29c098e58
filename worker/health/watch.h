// Watches the GPUs of this process's ranks on a thread of its own: waits for what the driver tells
// and looks at each GPU every few seconds.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "worker/health/gpu_metrics.h"
#include "worker/health/gpus.h"
#include "worker/health/nvml.h"

namespace dsm::health {

// Of a rank of the group.
using Told = std::function<void(int rank, const DeviceHealth& health)>;

// Of the rank whose GPU it is; called on the watch's thread.
using OwnMemoryOf = std::function<OwnMemory(std::size_t gpu)>;

class Watch {
 public:
  static constexpr Millis kEvery{5000};  // a look at each GPU
  // The longest wait for an event, so that a look is not late and an end is not either.
  static constexpr Millis kRound{200};

  // GPU i is that of rank first_rank + i. `told` is called on the watch's thread, at once and
  // whenever something has changed. `registry` and `clock` outlive this.
  Watch(std::unique_ptr<Gpus> gpus, int first_rank, MetricsRegistry& registry, OwnMemoryOf own,
        Told told, Clock& clock, Logger log);
  ~Watch();  // within kRound
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

 private:
  struct Watched {
    Reading last;
    History history;
    DeviceHealth told;
  };
  void run(const std::stop_token& stop);
  void wait(const std::stop_token& stop, TimePoint next);
  void look(std::size_t gpu);
  void tell(std::size_t gpu);
  void heard(const Gpus::XidEvent& event);
  int rank_of(std::size_t gpu) const { return first_rank_ + static_cast<int>(gpu); }

  const std::unique_ptr<Gpus> gpus_;
  const int first_rank_;
  GpuMetrics metrics_;
  const OwnMemoryOf own_;
  const Told told_;
  Clock& clock_;
  const Logger log_;
  std::vector<Watched> watched_;
  std::mutex mutex_;  // for the pause where there are no events
  std::condition_variable ended_;
  std::jthread thread_;  // last: it uses all of the above
};

// Watches the GPUs at these PCI addresses. Null where there are none: nothing is loaded then, and
// nothing said; and where NVML is missing or does not work, which is logged.
std::unique_ptr<Watch> watch_gpus(const std::vector<std::string>& buses, int first_rank,
                                  MetricsRegistry& registry, OwnMemoryOf own, Told told,
                                  Clock& clock, const Logger& log,
                                  const char* library = "libnvidia-ml.so.1");

}  // namespace dsm::health

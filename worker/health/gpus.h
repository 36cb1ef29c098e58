// The GPUs of this process's ranks behind NVML: one look at each, and the driver's Xid events. One
// thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "worker/health/judge.h"
#include "worker/health/nvml.h"

namespace dsm::health {

class Gpus {
 public:
  // GPUs by their PCI addresses, as CUDA gives them. kTransient: what NVML says why not.
  static Result<std::unique_ptr<Gpus>> open(std::shared_ptr<const nvml::Api> api,
                                            const std::vector<std::string>& buses);
  ~Gpus();
  Gpus(const Gpus&) = delete;
  Gpus& operator=(const Gpus&) = delete;

  std::size_t count() const { return gpus_.size(); }
  Reading read(std::size_t gpu) const;

  struct XidEvent {
    std::size_t gpu = 0;
    std::uint64_t xid = 0;
  };
  // False where the driver tells no events, or has ceased to: then there is nothing to wait for.
  bool tells_events() const { return events_ != nullptr; }
  // The next event of one of the GPUs; nullopt: none came in this time, or none will come any more.
  std::optional<XidEvent> wait(Millis time);

 private:
  struct Gpu {
    nvml::Device device = nullptr;
    std::string name;
    std::string bus;
  };
  explicit Gpus(std::shared_ptr<const nvml::Api> api) : api_(std::move(api)) {}
  void listen();
  void listen_no_more();
  void read_links(const Gpu& gpu, Reading& reading) const;

  std::shared_ptr<const nvml::Api> api_;
  std::vector<Gpu> gpus_;
  nvml::EventSet events_ = nullptr;
};

}  // namespace dsm::health

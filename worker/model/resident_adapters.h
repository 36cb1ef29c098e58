// The adapters that a rank computes with, in its backend's memory: taken there when a row first
// names them, given back after they were unloaded. One thread, the rank's, uses it.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "worker/device/backend.h"
#include "worker/model/adapter_weights.h"

namespace dsm::model {

class ResidentAdapters {
 public:
  explicit ResidentAdapters(device::Backend& backend) : backend_(backend) {}

  // The same weights as the backend's data, valid while somebody holds `host`.
  const AdapterWeights& get(const std::shared_ptr<const AdapterWeights>& host);
  // Frees what nobody holds any more; not while an operator may be reading it.
  void forget_unloaded();

 private:
  struct Resident {
    std::weak_ptr<const AdapterWeights> host;
    AdapterWeights weights;  // whose matrices point into `data`
    std::vector<device::SharedMemory> data;
  };

  device::Backend& backend_;
  std::map<const AdapterWeights*, Resident> resident_;
};

}  // namespace dsm::model

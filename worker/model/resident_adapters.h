// The adapters that a rank computes with, where its backend's operators reach them. Where that is
// not the host's memory, there are places for as many as there may be: taken when the rank is made,
// so that a step takes no memory. An adapter is copied to one when a row first names it, and gives
// it back after it was unloaded. One thread, the rank's, uses it.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "worker/device/backend.h"
#include "worker/model/adapter_weights.h"

namespace dsm::model {

class ResidentAdapters {
 public:
  // Of up to `count` adapters of up to `bytes` each (adapter_room.h).
  ResidentAdapters(device::Backend& backend, int count, std::size_t bytes);

  // The same weights as the backend's data, valid while somebody holds `host`.
  const AdapterWeights& get(const std::shared_ptr<const AdapterWeights>& host);
  // Frees what nobody holds any more; not while an operator may be reading it.
  void forget_unloaded();

 private:
  // A place, which is free again with the object.
  using Place = std::unique_ptr<std::byte, std::function<void(std::byte*)>>;
  struct Resident {
    std::weak_ptr<const AdapterWeights> host;
    AdapterWeights weights;  // whose matrices point into `place`
    Place place;
  };
  void copy(const AdapterWeights& host, Resident& to);

  device::Backend& backend_;
  const std::size_t bytes_;
  std::vector<std::byte*> free_;
  std::vector<std::byte> packed_;  // an adapter on its way
  std::map<const AdapterWeights*, Resident> resident_;
};

}  // namespace dsm::model

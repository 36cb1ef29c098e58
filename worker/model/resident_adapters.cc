#include "worker/model/resident_adapters.h"

#include <stdexcept>

#include "kernels/cpu/pack.h"
#include "worker/model/adapter_room.h"

namespace dsm::model {
namespace {

template <class Visit>
void for_each_matrix(AdapterWeights& weights, const Visit& visit) {
  for (AdapterLayer& layer : weights.layers) {
    for (AdapterProduct* w : {&layer.qkv, &layer.latents, &layer.q, &layer.gate_up}) {
      visit(w->a);
      visit(w->b);
    }
    for (AdapterSegments* w : {&layer.output, &layer.down}) {
      for (int s = 0; s < w->a.count; ++s) {
        visit(w->a.part[s]);
        visit(w->b.part[s]);
      }
    }
  }
}

}  // namespace

ResidentAdapters::ResidentAdapters(device::Backend& backend, int count, std::size_t bytes)
    : backend_(backend), bytes_(bytes) {
  if (backend.reaches_host()) return;
  for (int i = 0; i < count; ++i) {
    free_.push_back(static_cast<std::byte*>(backend.allocate(bytes)));
  }
}

// In one piece, so that the backend is asked once.
void ResidentAdapters::copy(const AdapterWeights& host, Resident& to) {
  if (free_.empty()) throw std::logic_error("more adapters than there are places for");
  to.place = Place(free_.back(), [this](std::byte* place) { free_.push_back(place); });
  free_.pop_back();
  packed_.clear();
  std::map<const void*, const std::byte*> moved;  // segments share a matrix
  to.weights.layers = host.layers;
  for_each_matrix(to.weights, [&](kernels::PackedMatrix& w) {
    if (w.data == nullptr) return;
    const auto [at, first] = moved.try_emplace(w.data, to.place.get() + packed_.size());
    if (first) {
      const std::size_t bytes = kernels::packed_bytes(w.dtype, w.n, w.k);
      const auto* from = static_cast<const std::byte*>(w.data);
      packed_.insert(packed_.end(), from, from + bytes);
      packed_.resize(adapter_aligned(packed_.size()));
    }
    w.data = at->second;
  });
  if (packed_.size() > bytes_) throw std::logic_error("an adapter is larger than its place");
  if (!packed_.empty()) backend_.write(to.place.get(), packed_.data(), packed_.size());
}

const AdapterWeights& ResidentAdapters::get(const std::shared_ptr<const AdapterWeights>& host) {
  if (backend_.reaches_host()) return *host;
  const auto [found, fresh] = resident_.try_emplace(host.get());
  if (!fresh) return found->second.weights;
  try {
    copy(*host, found->second);
  } catch (...) {
    resident_.erase(found);
    throw;
  }
  found->second.host = host;
  return found->second.weights;
}

void ResidentAdapters::forget_unloaded() {
  std::erase_if(resident_, [](const auto& entry) { return entry.second.host.expired(); });
}

}  // namespace dsm::model

#include "worker/model/resident_adapters.h"

#include "kernels/cpu/pack.h"

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

const AdapterWeights& ResidentAdapters::get(const std::shared_ptr<const AdapterWeights>& host) {
  const auto [found, fresh] = resident_.try_emplace(host.get());
  Resident& resident = found->second;
  if (!fresh) return resident.weights;
  try {
    std::map<const void*, const void*> moved;  // segments share a matrix
    resident.weights.layers = host->layers;
    for_each_matrix(resident.weights, [&](kernels::PackedMatrix& w) {
      if (w.data == nullptr) return;
      const auto [at, first] = moved.try_emplace(w.data);
      if (first) {
        resident.data.push_back(backend_.data_of(w.data, kernels::packed_bytes(w.dtype, w.n, w.k)));
        at->second = resident.data.back().get();
      }
      w.data = at->second;
    });
  } catch (...) {
    resident_.erase(found);
    throw;
  }
  resident.host = host;
  return resident.weights;
}

void ResidentAdapters::forget_unloaded() {
  std::erase_if(resident_, [](const auto& entry) { return entry.second.host.expired(); });
}

}  // namespace dsm::model

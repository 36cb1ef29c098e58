#include "worker/model/kv_layer.h"

namespace dsm::model {
namespace {

using kernels::DType;
using kernels::KvLayer;

// Scales of `each` parts of a head's values at each position.
float* scales(device::Backend& backend, std::size_t heads, int each) {
  return device::allocate_cache<float>(backend,
                                       heads * kernels::kKvBlock * static_cast<std::size_t>(each));
}

// Takes the memory of keys and values; the number of (block, head)s.
std::size_t take_values(device::Backend& backend, const KvSpec& spec, KvLayer& kv) {
  const auto heads = static_cast<std::size_t>(spec.num_blocks) * static_cast<std::size_t>(kv.heads);
  kv.keys = backend.allocate_cache(heads * static_cast<std::size_t>(kernels::key_block_bytes(kv)));
  kv.values =
      backend.allocate_cache(heads * static_cast<std::size_t>(kernels::value_block_bytes(kv)));
  return heads;
}

}  // namespace

KvLayer make_grouped_cache(device::Backend& backend, const KvSpec& spec, int heads, int dim) {
  KvLayer kv{.heads = heads, .key_dim = dim, .value_dim = dim, .dtype = spec.dtype};
  const std::size_t count = take_values(backend, spec, kv);
  if (kv.dtype == DType::kF8E4M3) {
    kv.key_scales = scales(backend, count, kernels::key_scales_of(kv));
    kv.value_scales = scales(backend, count, kernels::value_scales_of(kv));
  }
  return kv;
}

KvLayer make_latent_cache(device::Backend& backend, const KvSpec& spec, int latent, int rope) {
  KvLayer kv{.key_dim = latent + rope, .value_dim = latent, .dtype = spec.dtype};
  if (kv.dtype == DType::kF8E4M3) kv.plain_dim = rope;
  const std::size_t count = take_values(backend, spec, kv);
  if (kv.dtype == DType::kF8E4M3) {
    kv.key_scales = scales(backend, count, kernels::key_scales_of(kv));
    kv.value_scales = kv.key_scales;
  }
  return kv;
}

}  // namespace dsm::model

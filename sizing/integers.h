// Which matrices of a model its checkpoint has in integers, by what `quantization_config` says of
// modules. The worker goes by the names of tensors instead (worker/model/packed_weights.h); this is
// for who has the config.json alone. Plain values.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "base/result.h"

namespace dsm::sizing {

struct Shape;

// Of a layer.
enum class Matrix : std::uint8_t {
  kQuery,         // q_proj; with a latent q_b_proj
  kQueryLatent,   // q_a_proj
  kKey,           // k_proj
  kValue,         // v_proj
  kLatent,        // kv_a_proj_with_mqa
  kLatentUp,      // kv_b_proj
  kOutput,        // o_proj
  kGate,          // of a dense MLP ...
  kUp,            //
  kDown,          //
  kSharedGate,    // ... of the shared expert ...
  kSharedUp,      //
  kSharedDown,    //
  kExpertGate,    // ... of the others, which are taken to be alike
  kExpertUp,      //
  kExpertDown,    //
  kRouter,        // mlp.gate
  kIndexQuery,    // indexer.wq_b
  kIndexKey,      // indexer.wk
  kIndexWeights,  // indexer.weights_proj
};

struct Integers {
  int bits = 0;                       // in memory: 4 or 8; 0: no matrix is an integer
  bool zeros = false;                 // of 4 bits with zero points: 8 here
  std::vector<std::uint32_t> layers;  // a bit for each Matrix
  bool head = false;

  // Layers past the last one, which predict more tokens, are taken for plain.
  bool has(std::int64_t layer, Matrix matrix) const {
    return layer < static_cast<std::int64_t>(layers.size()) &&
           (layers[static_cast<std::size_t>(layer)] >> static_cast<unsigned>(matrix) & 1U) != 0;
  }
};

// kNotFound: integers that no worker is known to take, or patterns that are not known here.
// `config` is all of config.json; the sizes in `shape` are read.
Result<Integers> parse_integers(const nlohmann::json& config, const Shape& shape);

}  // namespace dsm::sizing

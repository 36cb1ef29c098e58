// The files of a LoRA adapter as PEFT saves it: adapter_config.json and adapter_model.safetensors,
// mapped, and checked against the model to which it is to be added. Immutable; any number of
// threads may look.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "worker/model/adapter_config.h"
#include "worker/model/config.h"
#include "worker/model/safetensors.h"

namespace dsm::model {

// a [rank, inputs] and b [outputs, rank] of one linear.
struct AdapterPair {
  TensorView a;
  TensorView b;
};
// By the linear's name in the model: "model.layers.0.mlp.up_proj".
using AdapterPairs = std::map<std::string, AdapterPair, std::less<>>;

class AdapterFiles {
 public:
  // Looks at everything, every weight included. kNotFound: a file is missing. kInvalid: the message
  // names the file and the tensor or field that does not fit this model, or the rank when it is
  // more than `max_rank`.
  static Result<AdapterFiles> open(const std::filesystem::path& dir, const ModelConfig& model,
                                   int max_rank);

  const AdapterConfig& config() const { return config_; }
  // Null when the linear has no adapter.
  const AdapterPair* find(std::string_view module) const;

 private:
  AdapterConfig config_;
  std::shared_ptr<const SafetensorsFile> tensors_;  // what the pairs look at
  AdapterPairs pairs_;
};

}  // namespace dsm::model

// Weights that nobody has trained, for finding out how fast a model is computed: noise in the types
// in which its checkpoint would have them, of any name and shape that is asked for. Activations
// stay of a size that means something: norms multiply by one, matrices' numbers are between 2^-7
// and 2^-6. The head is the unit matrix where it is square, so that logits are what the last layer
// gives. All experts of a layer are the same, so it does not matter which of them a router takes
// where two are nearly as good.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "worker/model/safetensors.h"

namespace dsm::model {

class ImaginedWeights {
 public:
  // `fp8`: matrices of attention and MLPs in FP8, with scales.
  explicit ImaginedWeights(bool fp8) : fp8_(fp8) {}

  // Valid as long as this object.
  TensorView get(std::string_view name, std::initializer_list<std::int64_t> shape);

 private:
  // `bytes` that others may look at, too.
  std::span<const std::byte> noise(std::string_view name, std::size_t bytes);
  std::span<const std::byte> filled(float with, std::size_t count);
  std::span<const std::byte> unit_matrix(std::size_t size);
  std::span<std::byte> memory(std::size_t bytes);

  bool fp8_;
  std::vector<std::unique_ptr<std::byte[]>> all_;
  // The largest yet.
  std::span<const std::byte> noise_;
  std::map<float, std::span<const std::byte>> filled_;
  std::map<std::size_t, std::span<const std::byte>> unit_matrices_;
};

}  // namespace dsm::model

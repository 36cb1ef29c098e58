// Reading safetensors checkpoints. A file is eight bytes of header length (little endian), a JSON
// header, and the tensors' bytes. Files are mapped, not read: only the pages that somebody touches
// come from the disk, so a rank that takes its slice of a tensor reads that slice. Everything in a
// file is checked before it is believed; messages name the file and the byte. Immutable after
// opening, so any number of threads may look.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "kernels/params.h"

namespace dsm::model {

// A tensor in a mapped file; valid as long as its checkpoint.
struct TensorView {
  kernels::DType dtype = kernels::DType::kF32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
};

class SafetensorsFile {
 public:
  static Result<SafetensorsFile> open(const std::filesystem::path& path);

  // Null when there is no such tensor.
  const TensorView* find(std::string_view name) const;
  const std::map<std::string, TensorView, std::less<>>& tensors() const { return tensors_; }

 private:
  struct Mapping;
  SafetensorsFile() = default;

  std::shared_ptr<const Mapping> mapping_;
  std::map<std::string, TensorView, std::less<>> tensors_;
};

// All tensors of a model directory: `model.safetensors`, or the shards that
// `model.safetensors.index.json` names.
class Checkpoint {
 public:
  static Result<Checkpoint> open(const std::filesystem::path& dir);

  // kInvalid when it is missing or has another shape.
  Result<TensorView> get(std::string_view name, std::initializer_list<std::int64_t> shape) const;

 private:
  std::string name_;  // for messages
  std::vector<SafetensorsFile> files_;
  std::map<std::string, std::size_t, std::less<>> file_of_;
};

}  // namespace dsm::model

// Reading safetensors checkpoints. A file is eight bytes of header length (little endian), a JSON
// header, and the tensors' bytes. Files are mapped, not read: only the pages that somebody touches
// come from the disk, so a rank that takes its slice of a tensor reads that slice. Everything in a
// file is checked before it is believed: tensors lie one after the other in its data, none over
// another, nothing between them and nothing behind; messages name the file and the byte. A tensor
// may begin at any byte: who reads it assumes no alignment. Immutable after opening, so any number
// of threads may look.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
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
  // The name of a type that cannot be computed with, and then dtype means nothing. Such a tensor
  // does no harm until somebody asks for it.
  std::string unsupported;
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
// `model.safetensors.index.json` names. Index and shards must name the same tensors. Links are
// followed, so a snapshot folder of a download cache is a model directory.
class Checkpoint {
 public:
  static Result<Checkpoint> open(const std::filesystem::path& dir);
  // Of no file: get() asks `make`, and has() knows of nothing.
  using Make =
      std::function<TensorView(std::string_view name, std::initializer_list<std::int64_t> shape)>;
  static Checkpoint imagined(Make make);

  bool has(std::string_view name) const { return file_of_.contains(name); }
  // kInvalid when it is missing or has another shape, or a type that cannot be computed with.
  Result<TensorView> get(std::string_view name, std::initializer_list<std::int64_t> shape) const;
  // kInvalid when it is missing or has another shape, or none of these types, which are spelled as
  // in the file. Of those that cannot be computed with `unsupported` says which it is.
  Result<TensorView> get_stored(std::string_view name,
                                std::initializer_list<std::string_view> types,
                                std::initializer_list<std::int64_t> shape) const;

  // File and tensor that a byte belongs to, for messages.
  std::string owner_of(const std::byte* byte) const;

  // Names in the directory of everything that was opened, the index included.
  const std::vector<std::string>& file_names() const { return file_names_; }

 private:
  Status add_shard(const std::filesystem::path& path);
  // A tensor, and how messages name it.
  struct Found {
    const TensorView* view;
    std::string tensor;
  };
  Result<Found> find(std::string_view name) const;
  static Status check_shape(const Found& found, std::initializer_list<std::int64_t> shape);
  std::string describe_file(std::size_t file) const;

  std::filesystem::path dir_;
  std::vector<SafetensorsFile> files_;
  std::vector<std::string> file_names_;  // of files_ in order, then the index
  std::map<std::string, std::size_t, std::less<>> file_of_;
  Make make_;  // none: there are files
};

// Asks the system to have these bytes of a mapped file in memory soon; returns at once. Only a
// hint: what fails is read when it is touched.
void read_ahead(std::span<const std::byte> bytes);

}  // namespace dsm::model

#include "worker/model/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <sstream>
#include <system_error>

namespace dsm::model {
namespace {

using Json = nlohmann::json;
using kernels::DType;

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeader = 100ULL << 20;
constexpr std::size_t kMaxRank = 8;

std::optional<DType> dtype_of(std::string_view name) {
  if (name == "F32") return DType::kF32;
  if (name == "F16") return DType::kF16;
  if (name == "BF16") return DType::kBF16;
  return std::nullopt;
}

std::string describe(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (const auto extent : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
  return text + "]";
}

// One header entry, checked against the bytes that follow the header. `start` is where those begin
// in the file.
Result<TensorView> read_entry(const Json& entry, std::span<const std::byte> data,
                              std::uint64_t start) {
  if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") ||
      !entry.contains("data_offsets") || !entry["dtype"].is_string() ||
      !entry["shape"].is_array() || !entry["data_offsets"].is_array() ||
      entry["data_offsets"].size() != 2) {
    return fail(ErrorKind::kInvalid, "does not have dtype, shape and data_offsets");
  }
  const auto dtype = dtype_of(entry["dtype"].get<std::string>());
  if (!dtype) {
    return fail(ErrorKind::kInvalid, "has dtype " + entry["dtype"].get<std::string>() +
                                         ", supported are F32, F16 and BF16");
  }
  TensorView view;
  view.dtype = *dtype;
  if (entry["shape"].size() > kMaxRank) return fail(ErrorKind::kInvalid, "has too many dimensions");
  std::uint64_t size = kernels::bytes_of(*dtype);
  for (const Json& extent : entry["shape"]) {
    if (!extent.is_number_unsigned() || extent.get<std::uint64_t>() > (1ULL << 40) ||
        (extent.get<std::uint64_t>() != 0 && size > (1ULL << 60) / extent.get<std::uint64_t>())) {
      return fail(ErrorKind::kInvalid, "has the impossible shape " + entry["shape"].dump());
    }
    size *= extent.get<std::uint64_t>();
    view.shape.push_back(extent.get<std::int64_t>());
  }
  const Json& begin = entry["data_offsets"][0];
  const Json& end = entry["data_offsets"][1];
  if (!begin.is_number_unsigned() || !end.is_number_unsigned() ||
      begin.get<std::uint64_t>() > end.get<std::uint64_t>() ||
      end.get<std::uint64_t>() > data.size()) {
    return fail(ErrorKind::kInvalid, "has data_offsets " + entry["data_offsets"].dump() +
                                         ", the file holds " + std::to_string(data.size()) +
                                         " bytes of data from byte " + std::to_string(start));
  }
  const auto from = begin.get<std::uint64_t>();
  const auto length = end.get<std::uint64_t>() - from;
  if (length != size) {
    return fail(ErrorKind::kInvalid, "at byte " + std::to_string(start + from) + " has " +
                                         std::to_string(length) + " bytes, its shape " +
                                         describe(view.shape) + " needs " + std::to_string(size));
  }
  view.bytes = data.subspan(from, length);
  return view;
}

Result<Json> read_json(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(ErrorKind::kNotFound, path.string() + ": cannot be opened");
  std::ostringstream text;
  text << file.rdbuf();
  Json json = Json::parse(text.str(), nullptr, false);
  if (json.is_discarded()) return fail(ErrorKind::kInvalid, path.string() + ": is not JSON");
  return json;
}

}  // namespace

struct SafetensorsFile::Mapping {
  void* address = nullptr;
  std::size_t size = 0;

  Mapping(void* at, std::size_t bytes) : address(at), size(bytes) {}
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { ::munmap(address, size); }

  std::span<const std::byte> bytes() const {
    return {static_cast<const std::byte*>(address), size};
  }
};

Result<SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  const std::string name = path.string();
  const auto system_error = [&](const char* what) {
    const int code = errno;
    return fail(code == ENOENT ? ErrorKind::kNotFound : ErrorKind::kInvalid,
                name + ": " + what + ": " + std::generic_category().message(code));
  };
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return system_error("cannot be opened");
  struct stat info{};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    return fail(ErrorKind::kInvalid, name + ": is not a regular file");
  }
  const auto size = static_cast<std::uint64_t>(info.st_size);
  if (size < kLengthBytes) {
    ::close(fd);
    return fail(ErrorKind::kInvalid,
                name + ": has " + std::to_string(size) + " bytes, a header length needs 8");
  }
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (address == MAP_FAILED) {
    auto error = system_error("cannot be mapped");
    ::close(fd);
    return error;
  }
  ::close(fd);

  SafetensorsFile file;
  file.mapping_ = std::make_shared<const Mapping>(address, size);
  const auto bytes = file.mapping_->bytes();
  std::uint64_t header = 0;
  for (int i = 7; i >= 0; --i) header = header << 8 | std::to_integer<std::uint64_t>(bytes[i]);
  if (header > kMaxHeader || header > size - kLengthBytes) {
    return fail(ErrorKind::kInvalid, name + ": byte 0: header length " + std::to_string(header) +
                                         " does not fit, the file has " + std::to_string(size) +
                                         " bytes");
  }
  const auto* text = reinterpret_cast<const char*>(bytes.data() + kLengthBytes);
  Json json;
  try {
    json = Json::parse(text, text + header);
  } catch (const Json::parse_error& error) {
    // nlohmann counts bytes from one.
    return fail(ErrorKind::kInvalid, name + ": byte " +
                                         std::to_string(kLengthBytes + error.byte - 1) +
                                         ": the header is not JSON");
  } catch (const Json::exception& error) {
    // A number that no type holds.
    return fail(ErrorKind::kInvalid, name + ": the header is not JSON: " + error.what());
  }
  if (!json.is_object())
    return fail(ErrorKind::kInvalid, name + ": byte 8: the header is not an object");
  const auto data = bytes.subspan(kLengthBytes + header);
  for (const auto& [key, entry] : json.items()) {
    if (key == "__metadata__") continue;
    auto view = read_entry(entry, data, kLengthBytes + header);
    if (!view) return wrap(view.error(), name + ": tensor " + key);
    file.tensors_.emplace(key, std::move(*view));
  }
  return file;
}

const TensorView* SafetensorsFile::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

Result<Checkpoint> Checkpoint::open(const std::filesystem::path& dir) {
  Checkpoint checkpoint;
  const auto index = dir / "model.safetensors.index.json";
  if (!std::filesystem::exists(index)) {
    auto file = SafetensorsFile::open(dir / "model.safetensors");
    if (!file) return std::unexpected(file.error());
    checkpoint.name_ = (dir / "model.safetensors").string();
    for (const auto& [name, view] : file->tensors()) checkpoint.file_of_.emplace(name, 0);
    checkpoint.files_.push_back(std::move(*file));
    return checkpoint;
  }
  checkpoint.name_ = index.string();
  auto json = read_json(index);
  if (!json) return std::unexpected(json.error());
  if (!json->is_object() || !json->contains("weight_map") || !(*json)["weight_map"].is_object()) {
    return fail(ErrorKind::kInvalid, index.string() + ": has no weight_map");
  }
  std::map<std::string, std::size_t> opened;
  for (const auto& [tensor, where] : (*json)["weight_map"].items()) {
    // A shard is a file beside its index; anything else could reach out of the directory.
    if (!where.is_string() || where.get<std::string>().find('/') != std::string::npos ||
        where.get<std::string>().empty() || where.get<std::string>().front() == '.') {
      return fail(ErrorKind::kInvalid,
                  index.string() + ": tensor " + tensor + " is not in a file beside it");
    }
    const auto shard = where.get<std::string>();
    auto known = opened.find(shard);
    if (known == opened.end()) {
      auto file = SafetensorsFile::open(dir / shard);
      if (!file) return std::unexpected(file.error());
      known = opened.emplace(shard, checkpoint.files_.size()).first;
      checkpoint.files_.push_back(std::move(*file));
    }
    if (checkpoint.files_[known->second].find(tensor) == nullptr) {
      return fail(ErrorKind::kInvalid, (dir / shard).string() + ": does not hold tensor " + tensor +
                                           " that the index puts there");
    }
    checkpoint.file_of_.emplace(tensor, known->second);
  }
  return checkpoint;
}

Result<TensorView> Checkpoint::get(std::string_view name,
                                   std::initializer_list<std::int64_t> shape) const {
  const auto found = file_of_.find(name);
  if (found == file_of_.end()) {
    return fail(ErrorKind::kInvalid, name_ + ": has no tensor " + std::string(name));
  }
  const TensorView& view = *files_[found->second].find(name);
  if (!std::equal(view.shape.begin(), view.shape.end(), shape.begin(), shape.end())) {
    return fail(ErrorKind::kInvalid, name_ + ": tensor " + std::string(name) + " has shape " +
                                         describe(view.shape) + ", config.json needs " +
                                         describe({shape.begin(), shape.size()}));
  }
  return view;
}

}  // namespace dsm::model

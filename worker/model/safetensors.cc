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
constexpr std::uint64_t kMaxIndex = 100ULL << 20;
constexpr std::size_t kMaxRank = 8;
constexpr std::size_t kLongestQuote = 80;
constexpr const char* kIndex = "model.safetensors.index.json";

struct TypeName {
  std::string_view name;
  std::uint64_t bytes;
  std::optional<DType> dtype;  // empty: known, but nothing computes with it
};
constexpr TypeName kTypes[] = {{"F32", 4, DType::kF32},
                               {"F16", 2, DType::kF16},
                               {"BF16", 2, DType::kBF16},
                               {"F8_E4M3", 1, DType::kF8E4M3},
                               {"F8_E8M0", 1, DType::kF8E8M0},
                               {"F8_E5M2", 1, {}},
                               {"F64", 8, {}},
                               {"I64", 8, {}},
                               {"I32", 4, {}},
                               {"I16", 2, {}},
                               {"I8", 1, {}},
                               {"U64", 8, {}},
                               {"U32", 4, {}},
                               {"U16", 2, {}},
                               {"U8", 1, {}},
                               {"BOOL", 1, {}}};

// As the file spells it.
std::string_view type_of(const TensorView& view) {
  if (!view.unsupported.empty()) return view.unsupported;
  return std::ranges::find(kTypes, view.dtype, &TypeName::dtype)->name;
}

std::string describe(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (const auto extent : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
  return text + "]";
}

// What is written in a file may be very long.
std::string shortened(std::string text) {
  if (text.size() > kLongestQuote) text = text.substr(0, kLongestQuote) + "...";
  return text;
}
std::string shortened(const Json& json) {
  return shortened(json.dump(-1, ' ', true, Json::error_handler_t::replace));
}

// Elements of a shape; empty when there cannot be so many.
std::optional<std::uint64_t> count_elements(const Json& shape, std::vector<std::int64_t>& extents) {
  std::uint64_t count = 1;
  for (const Json& extent : shape) {
    if (!extent.is_number_unsigned() || extent.get<std::uint64_t>() > (1ULL << 40)) return {};
    const auto size = extent.get<std::uint64_t>();
    if (size != 0 && count > (1ULL << 56) / size) return {};
    count *= size;
    extents.push_back(static_cast<std::int64_t>(size));
  }
  return count;
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
  TensorView view;
  if (entry["shape"].size() > kMaxRank) return fail(ErrorKind::kInvalid, "has too many dimensions");
  const auto count = count_elements(entry["shape"], view.shape);
  if (!count) {
    return fail(ErrorKind::kInvalid, "has the impossible shape " + shortened(entry["shape"]));
  }
  const Json& begin = entry["data_offsets"][0];
  const Json& end = entry["data_offsets"][1];
  if (!begin.is_number_unsigned() || !end.is_number_unsigned() ||
      begin.get<std::uint64_t>() > end.get<std::uint64_t>()) {
    return fail(ErrorKind::kInvalid,
                "has data_offsets " + shortened(entry["data_offsets"]) + ", not a range");
  }
  const auto from = begin.get<std::uint64_t>();
  const auto to = end.get<std::uint64_t>();
  if (to > data.size()) {
    return fail(ErrorKind::kInvalid, "has data_offsets " + shortened(entry["data_offsets"]) +
                                         ", the file holds " + std::to_string(data.size()) +
                                         " bytes of data from byte " + std::to_string(start) +
                                         " and ends at byte " +
                                         std::to_string(start + data.size()) + ": it is cut short");
  }
  const auto name = entry["dtype"].get<std::string>();
  const auto* type = std::ranges::find(kTypes, name, &TypeName::name);
  const bool known = type != std::end(kTypes);
  if (known && to - from != *count * type->bytes) {
    return fail(ErrorKind::kInvalid, "at byte " + std::to_string(start + from) + " has " +
                                         std::to_string(to - from) + " bytes, its shape " +
                                         describe(view.shape) + " needs " +
                                         std::to_string(*count * type->bytes));
  }
  if (known && type->dtype) {
    view.dtype = *type->dtype;
  } else {
    view.unsupported = name.empty() ? "\"\"" : shortened(name);
  }
  view.bytes = data.subspan(from, to - from);
  return view;
}

// Every byte of data belongs to exactly one tensor.
Status check_cover(const std::map<std::string, TensorView, std::less<>>& tensors,
                   std::span<const std::byte> data, std::uint64_t start) {
  std::vector<std::pair<const std::byte*, decltype(tensors.begin())>> order;
  order.reserve(tensors.size());
  for (auto it = tensors.begin(); it != tensors.end(); ++it) {
    if (!it->second.bytes.empty()) order.emplace_back(it->second.bytes.data(), it);
  }
  std::ranges::sort(order, {}, [](const auto& entry) { return entry.first; });
  const auto byte_of = [&](const std::byte* at) {
    return std::to_string(start + static_cast<std::uint64_t>(at - data.data()));
  };
  const std::byte* at = data.data();
  const std::string* before = nullptr;
  for (const auto& [begin, it] : order) {
    if (begin < at) {
      return fail(ErrorKind::kInvalid, "byte " + byte_of(begin) + ": tensor " + it->first +
                                           " begins inside of tensor " + *before);
    }
    if (begin > at) {
      return fail(ErrorKind::kInvalid, "byte " + byte_of(at) + ": no tensor until tensor " +
                                           it->first + " at byte " + byte_of(begin));
    }
    at = begin + it->second.bytes.size();
    before = &it->first;
  }
  const std::byte* end = data.data() + data.size();
  if (at != end) {
    return fail(
        ErrorKind::kInvalid,
        "byte " + byte_of(at) + ": the last tensor ends here, the file at byte " + byte_of(end));
  }
  return {};
}

// The header as JSON. A key twice is refused: which of the two holds would be a matter of taste.
Result<Json> parse_header(std::string_view text) {
  std::set<std::string> seen;
  std::string twice;
  const auto note = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth == 1 && event == Json::parse_event_t::key && twice.empty() &&
        !seen.insert(parsed.get<std::string>()).second) {
      twice = parsed.get<std::string>();
    }
    return true;
  };
  try {
    Json json = Json::parse(text, note);
    if (!twice.empty()) {
      return fail(ErrorKind::kInvalid, "the header has tensor " + shortened(twice) + " twice");
    }
    if (!json.is_object()) return fail(ErrorKind::kInvalid, "byte 8: the header is not an object");
    return json;
  } catch (const Json::parse_error& error) {
    // nlohmann counts bytes from one.
    return fail(ErrorKind::kInvalid, "byte " + std::to_string(kLengthBytes + error.byte - 1) +
                                         ": the header is not JSON");
  } catch (const Json::exception& error) {
    // A number that no type holds.
    return fail(ErrorKind::kInvalid, std::string("the header is not JSON: ") + error.what());
  }
}

Result<Json> read_json(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(ErrorKind::kNotFound, path.string() + ": cannot be opened");
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error || size > kMaxIndex) {
    return fail(ErrorKind::kInvalid,
                path.string() + ": is no file of at most " + std::to_string(kMaxIndex) + " bytes");
  }
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
  for (std::size_t i = kLengthBytes; i-- > 0;) {
    header = header << 8 | std::to_integer<std::uint64_t>(bytes[i]);
  }
  if (header > kMaxHeader || header > size - kLengthBytes) {
    return fail(ErrorKind::kInvalid, name + ": byte 0: header length " + std::to_string(header) +
                                         " does not fit, the file has " + std::to_string(size) +
                                         " bytes");
  }
  auto json = parse_header({reinterpret_cast<const char*>(bytes.data() + kLengthBytes), header});
  if (!json) return wrap(json.error(), name);
  const auto start = kLengthBytes + header;
  const auto data = bytes.subspan(start);
  for (const auto& [key, entry] : json->items()) {
    if (key == "__metadata__") continue;
    auto view = read_entry(entry, data, start);
    if (!view) return wrap(view.error(), name + ": tensor " + shortened(key));
    file.tensors_.emplace(key, std::move(*view));
  }
  if (auto covered = check_cover(file.tensors_, data, start); !covered) {
    return wrap(covered.error(), name);
  }
  return file;
}

const TensorView* SafetensorsFile::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

Status Checkpoint::add_shard(const std::filesystem::path& path) {
  auto file = SafetensorsFile::open(path);
  if (!file) return std::unexpected(file.error());
  for (const auto& [name, view] : file->tensors()) {
    const auto [at, added] = file_of_.emplace(name, files_.size());
    if (!added) {
      return fail(ErrorKind::kInvalid, path.string() + ": holds tensor " + shortened(name) +
                                           ", which " + describe_file(at->second) + " holds, too");
    }
  }
  files_.push_back(std::move(*file));
  file_names_.push_back(path.filename().string());
  return {};
}

std::string Checkpoint::describe_file(std::size_t file) const {
  return (dir_ / file_names_[file]).string();
}

Result<Checkpoint> Checkpoint::open(const std::filesystem::path& dir) {
  Checkpoint checkpoint;
  checkpoint.dir_ = dir;
  const auto index = dir / kIndex;
  std::error_code ignored;
  if (!std::filesystem::exists(index, ignored)) {
    if (auto added = checkpoint.add_shard(dir / "model.safetensors"); !added) {
      return std::unexpected(added.error());
    }
    return checkpoint;
  }
  auto json = read_json(index);
  if (!json) return std::unexpected(json.error());
  if (!json->is_object() || !json->contains("weight_map") || !(*json)["weight_map"].is_object()) {
    return fail(ErrorKind::kInvalid, index.string() + ": has no weight_map");
  }
  // A shard is opened once, in the order of the names of the files.
  const Json& map = (*json)["weight_map"];
  std::map<std::string, std::size_t> shards;
  for (const auto& [tensor, where] : map.items()) {
    // A shard is a file beside its index; anything else could reach out of the directory.
    if (!where.is_string() || where.get<std::string>().find('/') != std::string::npos ||
        where.get<std::string>().find('\0') != std::string::npos ||
        where.get<std::string>().empty() || where.get<std::string>().front() == '.') {
      return fail(ErrorKind::kInvalid,
                  index.string() + ": tensor " + shortened(tensor) + " is not in a file beside it");
    }
    shards.emplace(where.get<std::string>(), 0);
  }
  for (auto& [shard, number] : shards) {
    number = checkpoint.files_.size();
    if (auto added = checkpoint.add_shard(dir / shard); !added) {
      return wrap(added.error(), index.string());
    }
  }
  for (const auto& [tensor, where] : map.items()) {
    const auto number = shards.at(where.get<std::string>());
    if (checkpoint.files_[number].find(tensor) == nullptr) {
      return fail(ErrorKind::kInvalid, checkpoint.describe_file(number) +
                                           ": does not hold tensor " + shortened(tensor) +
                                           " that the index puts there");
    }
  }
  for (const auto& [tensor, number] : checkpoint.file_of_) {
    if (!map.contains(tensor)) {
      return fail(ErrorKind::kInvalid, checkpoint.describe_file(number) + ": holds tensor " +
                                           shortened(tensor) + " that the index does not name");
    }
  }
  checkpoint.file_names_.emplace_back(kIndex);
  return checkpoint;
}

Result<Checkpoint::Found> Checkpoint::find(std::string_view name) const {
  const auto found = file_of_.find(name);
  if (found == file_of_.end()) {
    return fail(ErrorKind::kInvalid,
                (dir_ / file_names_.back()).string() + ": has no tensor " + std::string(name));
  }
  return Found{files_[found->second].find(name),
               describe_file(found->second) + ": tensor " + std::string(name)};
}

Status Checkpoint::check_shape(const Found& found, std::initializer_list<std::int64_t> shape) {
  const auto& has = found.view->shape;
  if (std::equal(has.begin(), has.end(), shape.begin(), shape.end())) return {};
  return fail(ErrorKind::kInvalid, found.tensor + " has shape " + describe(has) +
                                       ", config.json needs " +
                                       describe({shape.begin(), shape.size()}));
}

Checkpoint Checkpoint::imagined(Make make) {
  Checkpoint checkpoint;
  checkpoint.make_ = std::move(make);
  return checkpoint;
}

Result<TensorView> Checkpoint::get(std::string_view name,
                                   std::initializer_list<std::int64_t> shape) const {
  if (make_) return make_(name, shape);
  const auto found = find(name);
  if (!found) return std::unexpected(found.error());
  if (!found->view->unsupported.empty()) {
    return fail(ErrorKind::kInvalid,
                found->tensor + " has dtype " + found->view->unsupported +
                    ", supported are F32, F16, BF16 and, in blocks with scales, F8_E4M3");
  }
  if (auto same = check_shape(*found, shape); !same) return std::unexpected(same.error());
  return *found->view;
}

Result<TensorView> Checkpoint::get_stored(std::string_view name,
                                          std::initializer_list<std::string_view> types,
                                          std::initializer_list<std::int64_t> shape) const {
  const auto found = find(name);
  if (!found) return std::unexpected(found.error());
  const std::string_view type = type_of(*found->view);
  if (std::ranges::find(types, type) == types.end()) {
    std::string wanted;
    for (const auto& one : types) wanted += (wanted.empty() ? "" : " or ") + std::string(one);
    return fail(ErrorKind::kInvalid,
                found->tensor + " has dtype " + std::string(type) + ", not " + wanted);
  }
  if (auto same = check_shape(*found, shape); !same) return std::unexpected(same.error());
  return *found->view;
}

std::string Checkpoint::owner_of(const std::byte* byte) const {
  for (std::size_t file = 0; file < files_.size(); ++file) {
    for (const auto& [name, view] : files_[file].tensors()) {
      const auto offset = byte - view.bytes.data();
      if (offset >= 0 && static_cast<std::size_t>(offset) < view.bytes.size()) {
        return describe_file(file) + ": tensor " + shortened(name);
      }
    }
  }
  return "a tensor";
}

void read_ahead(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  static const auto kPage = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t before = reinterpret_cast<std::uintptr_t>(bytes.data()) % kPage;
  ::madvise(const_cast<std::byte*>(bytes.data() - before), before + bytes.size(), MADV_WILLNEED);
}

}  // namespace dsm::model

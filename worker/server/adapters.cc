#include "worker/server/adapters.h"

#include <algorithm>
#include <cctype>
#include <utility>

namespace dsm::server {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxName = 128;
constexpr int kRetryAfterSeconds = 5;

const std::string& name_of(const ServedAdapter& served) {
  return served.adapter->name;
}

// The folder that `path` means, which lies in `dir`, links followed; empty: it does not.
fs::path below(const fs::path& dir, const std::string& path) {
  if (path.empty() || path.find('\0') != std::string::npos) return {};
  std::error_code failed;
  const fs::path root = fs::canonical(dir, failed);
  if (failed) return {};
  const fs::path wanted = fs::weakly_canonical(root / path, failed);
  if (failed) return {};
  const fs::path inside = wanted.lexically_relative(root);
  return inside.empty() || *inside.begin() == ".." ? fs::path() : wanted;
}

ApiError from_loader(const Error& error) {
  switch (error.kind) {
    case ErrorKind::kNotFound:
      return {.status = 404,
              .message = error.message,
              .param = "lora_path",
              .code = "lora_adapter_not_found"};
    case ErrorKind::kExhausted:
      return {.status = 400, .message = error.message, .code = "too_many_lora_adapters"};
    case ErrorKind::kTransient:
      return unavailable(error.message, kRetryAfterSeconds);
    default:
      return {.status = 400,
              .message = error.message,
              .param = "lora_path",
              .code = "bad_lora_adapter"};
  }
}

}  // namespace

std::string Adapters::name_refused(const std::string& name) const {
  const bool harmless = std::ranges::all_of(name, [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("-_.:/@").find(c) != std::string_view::npos;
  });
  if (name.empty() || name.size() > kMaxName || !harmless) {
    return "a name has 1 to " + std::to_string(kMaxName) + " letters, digits or -_.:/@";
  }
  if (name == options_.base) return "'" + name + "' is the model itself";
  if (find(name)) return "the adapter '" + name + "' is loaded already";
  return "";
}

ServedAdapter Adapters::enter(std::shared_ptr<const engine::Adapter> adapter,
                              const std::string& path, std::int64_t now) {
  ServedAdapter served{.adapter = std::move(adapter), .path = path, .created = now};
  const std::lock_guard lock(mutex_);
  served_.insert(std::ranges::upper_bound(served_, name_of(served), {}, name_of), served);
  return served;
}

Status Adapters::add(const std::string& name, const std::string& path, std::int64_t now) {
  if (const std::string why = name_refused(name); !why.empty()) {
    return fail(ErrorKind::kInvalid, why);
  }
  auto adapter = options_.load(name, path);
  if (!adapter) return std::unexpected(adapter.error());
  enter(std::move(*adapter), path, now);
  return {};
}

std::shared_ptr<const engine::Adapter> Adapters::find(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find(served_, name, name_of);
  return found == served_.end() ? nullptr : found->adapter;
}

std::vector<ServedAdapter> Adapters::list() const {
  const std::lock_guard lock(mutex_);
  return served_;
}

Parsed<ServedAdapter> Adapters::load(const std::string& name, const std::string& path,
                                     std::int64_t now) {
  if (const std::string why = name_refused(name); !why.empty()) {
    return bad_parameter("lora_name", "'lora_name': " + why);
  }
  const fs::path dir = below(options_.dir, path);
  if (dir.empty()) {
    return bad_parameter("lora_path",
                         "'lora_path' must be a folder below the one of --lora-dir, as a path in "
                         "it or from the root");
  }
  auto adapter = options_.load(name, dir);
  if (!adapter) return std::unexpected(from_loader(adapter.error()));
  if (options_.share) {
    if (auto shared = options_.share(*adapter, dir); !shared) {
      return std::unexpected(from_loader(shared.error()));
    }
  }
  return enter(std::move(*adapter), path, now);
}

Parsed<void> Adapters::unload(const std::string& name) {
  ServedAdapter gone;  // its weights may be freed: not under the lock
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find(served_, name, name_of);
  if (found == served_.end()) {
    return std::unexpected(ApiError{.status = 404,
                                    .message = "The adapter '" + name + "' is not loaded.",
                                    .param = "lora_name",
                                    .code = "lora_adapter_not_found"});
  }
  gone = std::move(*found);
  served_.erase(found);
  return {};
}

}  // namespace dsm::server

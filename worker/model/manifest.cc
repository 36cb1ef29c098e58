#include "worker/model/manifest.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <fstream>
#include <mutex>
#include <set>
#include <sstream>
#include <system_error>
#include <thread>

#include "base/sha256.h"

namespace dsm::model {
namespace {

namespace fs = std::filesystem;

constexpr const char* kNames[] = {"model.sha256", "SHA256SUMS"};
// What is read beside the weights, if it is there.
constexpr const char* kJsonFiles[] = {"config.json", "tokenizer.json", "tokenizer_config.json",
                                      "generation_config.json", "probe.json"};
constexpr std::uintmax_t kMaxManifest = 16 << 20;
constexpr std::size_t kHexDigits = 64;
constexpr std::size_t kChunk = 4 << 20;

bool stays_below(const fs::path& name) {
  return !name.empty() && name.is_relative() && std::ranges::find(name, "..") == name.end();
}

// A line as `digest, space, space or star, name`.
Result<Manifest::Entry> parse_line(std::string_view line) {
  const auto invalid = [](const char* why) { return fail(ErrorKind::kInvalid, why); };
  if (line.size() < kHexDigits + 3 || line[kHexDigits] != ' ' ||
      (line[kHexDigits + 1] != ' ' && line[kHexDigits + 1] != '*')) {
    return invalid("is not a SHA-256 in hexadecimal, two spaces and a file name");
  }
  Manifest::Entry entry;
  for (const char c : line.substr(0, kHexDigits)) {
    const bool upper = c >= 'A' && c <= 'F';
    if ((c < '0' || c > '9') && (c < 'a' || c > 'f') && !upper) {
      return invalid("does not begin with 64 hexadecimal digits");
    }
    entry.sha256 += upper ? static_cast<char>(c - 'A' + 'a') : c;
  }
  const std::string name(line.substr(kHexDigits + 2));
  if (name.find('\0') != std::string::npos || !stays_below(name)) {
    return invalid("names a file outside of the model's directory");
  }
  entry.name = fs::path(name).lexically_normal().string();
  return entry;
}

Result<Manifest> read_manifest(const fs::path& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error || size > kMaxManifest) {
    return fail(ErrorKind::kInvalid, path.string() + ": is no file of at most " +
                                         std::to_string(kMaxManifest) + " bytes");
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(ErrorKind::kInvalid, path.string() + ": cannot be opened");
  std::ostringstream text;
  text << file.rdbuf();
  return parse_manifest(text.str(), path);
}

// `more` is told how much was read and says whether to go on.
Result<std::string> hash_file(const fs::path& path, const std::function<bool(std::int64_t)>& more) {
  const auto system_error = [&](const char* what) {
    return fail(ErrorKind::kInvalid,
                path.string() + ": " + what + ": " + std::generic_category().message(errno));
  };
  struct Descriptor {
    int fd;
    ~Descriptor() {
      if (fd >= 0) ::close(fd);
    }
  };
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) return system_error("cannot be opened");
  ::posix_fadvise(file.fd, 0, 0, POSIX_FADV_SEQUENTIAL);
  Sha256 sha;
  std::vector<std::byte> chunk(kChunk);
  for (;;) {
    const ssize_t got = ::read(file.fd, chunk.data(), chunk.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_error("cannot be read");
    if (got == 0) return sha.finish();
    sha.update(std::span(chunk).first(static_cast<std::size_t>(got)));
    if (!more(got)) return fail(ErrorKind::kCancelled, "another file differs");
  }
}

}  // namespace

Result<Manifest> parse_manifest(std::string_view text, const fs::path& path) {
  Manifest manifest{.path = path, .entries = {}};
  std::set<std::string> names;
  for (int number = 1; !text.empty(); ++number) {
    const auto end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    const auto where = path.string() + ": line " + std::to_string(number);
    auto entry = parse_line(line);
    if (!entry) return wrap(entry.error(), where);
    if (entry->name == path.filename()) continue;
    if (!names.insert(entry->name).second) {
      return fail(ErrorKind::kInvalid, where + ": names " + entry->name + " again");
    }
    manifest.entries.push_back(std::move(*entry));
  }
  if (manifest.entries.empty()) {
    return fail(ErrorKind::kInvalid, path.string() + ": names no file");
  }
  return manifest;
}

Result<Verification> Verification::plan(const fs::path& dir, const std::vector<std::string>& used,
                                        int part, int parts) {
  Verification plan;
  std::error_code error;
  for (const char* name : kNames) {
    if (plan.manifest_.empty() && fs::exists(dir / name, error)) plan.manifest_ = dir / name;
  }
  if (plan.manifest_.empty()) return plan;
  auto manifest = read_manifest(plan.manifest_);
  if (!manifest) return std::unexpected(manifest.error());

  std::vector<std::string> needed = used;
  for (const char* name : kJsonFiles) {
    if (fs::exists(dir / name, error)) needed.emplace_back(name);
  }
  for (const std::string& name : needed) {
    if (std::ranges::find(manifest->entries, name, &Manifest::Entry::name) ==
        manifest->entries.end()) {
      return fail(ErrorKind::kInvalid, plan.manifest_.string() + ": does not list " + name +
                                           ", which is read; list it or remove the manifest");
    }
  }
  std::vector<File> all;
  for (const auto& [name, sha256] : manifest->entries) {
    const fs::path path = dir / name;
    const auto size = fs::is_regular_file(path, error) ? fs::file_size(path, error) : 0;
    if (error || !fs::is_regular_file(path, error)) {
      return fail(ErrorKind::kNotFound,
                  plan.manifest_.string() + ": lists " + name + ", which is not there");
    }
    all.push_back({path, sha256, static_cast<std::int64_t>(size)});
  }
  // The largest first, each to the part that has least.
  std::ranges::sort(all, [](const File& a, const File& b) {
    return a.bytes != b.bytes ? a.bytes > b.bytes : a.path < b.path;
  });
  std::vector<std::int64_t> load(static_cast<std::size_t>(parts));
  for (File& file : all) {
    const auto least = std::ranges::min_element(load);
    // Empty files count, too, or all of them would go to one part.
    *least += file.bytes + 1;
    if (least - load.begin() != part) continue;
    plan.bytes_ += file.bytes;
    plan.files_.push_back(std::move(file));
  }
  return plan;
}

Status Verification::run(int threads, const std::function<void(std::int64_t)>& progress) const {
  std::mutex mutex;
  std::condition_variable changed;
  std::size_t next = 0;
  std::int64_t done = 0;
  std::optional<Error> error;
  std::size_t running = std::min(files_.size(), static_cast<std::size_t>(threads));

  const auto more = [&](std::int64_t bytes) {
    const std::lock_guard lock(mutex);
    done += bytes;
    changed.notify_one();
    return !error;
  };
  const auto work = [&] {
    std::unique_lock lock(mutex);
    while (next < files_.size() && !error) {
      const File& file = files_[next++];
      lock.unlock();
      Result<std::string> sha256 = fail(ErrorKind::kInternal, "");
      try {
        sha256 = hash_file(file.path, more);
      } catch (const std::exception& e) {  // out of memory, for one
        sha256 = fail(ErrorKind::kInternal, file.path.string() + ": " + e.what());
      }
      lock.lock();
      if (error) break;
      if (!sha256) {
        error = sha256.error();
      } else if (*sha256 != file.sha256) {
        error =
            Error{ErrorKind::kInvalid, file.path.string() + ": has SHA-256 " + *sha256 + ", " +
                                           manifest_.filename().string() + " says " + file.sha256};
      }
    }
    --running;
    changed.notify_one();
  };
  std::vector<std::jthread> workers;
  for (std::size_t i = running; i > 0; --i) workers.emplace_back(work);
  std::unique_lock lock(mutex);
  for (std::int64_t seen = 0; running > 0;) {
    changed.wait(lock, [&] { return done != seen || running == 0; });
    seen = done;
    lock.unlock();
    progress(seen);
    lock.lock();
  }
  if (error) return std::unexpected(*error);
  return {};
}

}  // namespace dsm::model

// Checksums of a model directory. A file `model.sha256`, or else `SHA256SUMS`, in the directory, as
// sha256sum writes it, is a promise about the files beside it: each of them must be there and have
// its SHA-256, and every file that the worker reads must be listed. A directory without one is
// taken as it is.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace dsm::model {

struct Manifest {
  struct Entry {
    std::string name;    // of a file in the directory or below it
    std::string sha256;  // lower-case hexadecimal
  };
  std::filesystem::path path;  // of the manifest itself
  std::vector<Entry> entries;
};

// kInvalid, with the line, when it is not what sha256sum writes, or names a file twice or outside
// of the directory. `path` is where it came from; a line about that file itself is left out.
Result<Manifest> parse_manifest(std::string_view text, const std::filesystem::path& path);

// The work of comparing. Processes that load several ranks share it out between these: rank number
// `part` of `parts` compares its part of the files, about as many bytes as the others, and the
// parts are all of the files.
class Verification {
 public:
  // Reads the manifest, if there is one, and finds the files. `used` are the names of the files
  // that weights are read from. kInvalid when one of them, or one of the JSON files that the worker
  // reads, is not listed; kNotFound when a listed file is missing.
  static Result<Verification> plan(const std::filesystem::path& dir,
                                   const std::vector<std::string>& used, int part, int parts);

  // Without a manifest, or when other parts have all the files.
  bool empty() const { return files_.empty(); }
  // Of this part.
  std::int64_t bytes() const { return bytes_; }

  // Reads the files on at most `threads` threads of its own, a file on one. `progress` is called on
  // the caller's thread with the bytes that have been read. kInvalid: the first file that was found
  // to differ, with both checksums.
  Status run(int threads, const std::function<void(std::int64_t)>& progress) const;

 private:
  struct File {
    std::filesystem::path path;
    std::string sha256;
    std::int64_t bytes = 0;
  };

  std::filesystem::path manifest_;
  std::vector<File> files_;  // the largest first
  std::int64_t bytes_ = 0;
};

}  // namespace dsm::model

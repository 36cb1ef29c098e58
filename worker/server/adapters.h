// The names under which adapters are served: those of the command line, and those that clients load
// and unload while the worker serves (POST /v1/load_lora_adapter and /v1/unload_lora_adapter),
// which only a folder that was given on the command line allows. A name that is unloaded is gone at
// once; requests that have begun with it hold its weights until they have ended.
//
// Thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "worker/engine/adapter.h"
#include "worker/server/api_error.h"

namespace dsm::server {

// Reads the weights in a folder. May be called from any thread, and takes as long as they are
// large.
using AdapterLoader = std::function<Result<std::shared_ptr<const engine::Adapter>>(
    const std::string& name, const std::filesystem::path& dir)>;

// Makes an adapter that was read known to whoever else computes with it, and waits until they have
// it too. kTransient: not now.
using AdapterSharer = std::function<Status(const std::shared_ptr<const engine::Adapter>& adapter,
                                           const std::filesystem::path& dir)>;

struct ServedAdapter {
  std::shared_ptr<const engine::Adapter> adapter;
  std::string path;          // as it was given
  std::int64_t created = 0;  // Unix time
};

class Adapters {
 public:
  struct Options {
    std::string base = {};           // the name of the model itself, which no adapter may have
    std::filesystem::path dir = {};  // only folders below it are loaded; empty: none are
    int limit = 0;                   // that may be in memory at a time; for the metrics
    AdapterLoader load = {};
    AdapterSharer share = {};  // null: nobody else does
  };
  explicit Adapters(Options options) : options_(std::move(options)) {}
  Adapters(const Adapters&) = delete;
  Adapters& operator=(const Adapters&) = delete;

  // One of the command line's, whose path may be anywhere and which everybody reads by himself.
  // kInvalid: the name cannot be used; else what the loader says.
  Status add(const std::string& name, const std::string& path, std::int64_t now);

  // Null when there is no adapter of this name.
  std::shared_ptr<const engine::Adapter> find(const std::string& name) const;
  // In the order of their names.
  std::vector<ServedAdapter> list() const;

  // As clients ask for it. 400 for a name that cannot be used, a path outside of the folder, or
  // what cannot be loaded; 404 for a path that is not there; 503 when others cannot be told now.
  // One thread at a time.
  Parsed<ServedAdapter> load(const std::string& name, const std::string& path, std::int64_t now);
  // 404 for an unknown name.
  Parsed<void> unload(const std::string& name);

  // Whether there is a folder from which clients may load.
  bool can_load() const { return !options_.dir.empty(); }
  int limit() const { return options_.limit; }

 private:
  // What is wrong with a new adapter's name; empty: nothing.
  std::string name_refused(const std::string& name) const;
  ServedAdapter enter(std::shared_ptr<const engine::Adapter> adapter, const std::string& path,
                      std::int64_t now);

  const Options options_;
  mutable std::mutex mutex_;
  std::vector<ServedAdapter> served_;  // in the order of their names
};

}  // namespace dsm::server

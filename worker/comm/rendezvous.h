// How ranks that cannot reach each other yet tell each other where they are: a map that grows.
// Every process holds a copy; what one sets is put into the others' copies by whatever connects
// them (the group's control channel), so get() only ever waits for a local value. Thread-safe.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>

namespace dsm::comm {

class Rendezvous {
 public:
  using Publish = std::function<void(const std::string& key, const std::string& value)>;
  // `publish` tells the other processes; called by set(), not by put().
  explicit Rendezvous(Publish publish = {}) : publish_(std::move(publish)) {}

  void set(const std::string& key, const std::string& value);
  // A value that came from another process.
  void put(const std::string& key, const std::string& value);
  // Waits for the key. Throws CommError after abort().
  std::string get(const std::string& key);
  void abort() noexcept;

 private:
  Publish publish_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::string> values_;
  bool aborted_ = false;
};

}  // namespace dsm::comm

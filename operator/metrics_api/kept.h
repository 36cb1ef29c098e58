// Answers of the API server that hold for a short time, by what was asked. Thread-safe.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "base/clock.h"

namespace dsm::metrics_api {

template <typename Answer>
class Kept {
 public:
  static constexpr Seconds kFor{10};
  // A bound on what callers can make us keep.
  static constexpr std::size_t kMost = 1000;

  std::optional<Answer> find(const std::string& question, TimePoint now) {
    const std::lock_guard lock(mutex_);
    const auto found = kept_.find(question);
    if (found == kept_.end()) return std::nullopt;
    if (found->second.until > now) return found->second.answer;
    kept_.erase(found);
    return std::nullopt;
  }
  void put(const std::string& question, Answer answer, TimePoint now) {
    const std::lock_guard lock(mutex_);
    if (kept_.size() >= kMost) {
      std::erase_if(kept_, [&](const auto& entry) { return entry.second.until <= now; });
      if (kept_.size() >= kMost) kept_.clear();
    }
    kept_.insert_or_assign(question, Entry{std::move(answer), now + kFor});
  }

 private:
  struct Entry {
    Answer answer;
    TimePoint until;
  };

  std::mutex mutex_;
  std::map<std::string, Entry> kept_;  // guarded by mutex_
};

}  // namespace dsm::metrics_api

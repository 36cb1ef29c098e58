// Which pods have which adapters, as their leader knows it: a value, no threads, no sockets.
//
// What all shall have is told as a whole, under a version that rises each time, and a pod answers
// for a version with what it could not load. So an answer that is late, or of a connection that has
// been replaced, does no harm.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "worker/group/wire.h"

namespace dsm::group {

class AdapterRoll {
 public:
  explicit AdapterRoll(int others) : others_(others) {}  // pods beside the leader's

  // What all shall have now. True when that is new: then everybody has to be told message().
  bool want(std::vector<SharedAdapter> adapters);
  const WantAdapters& message() const { return message_; }

  // One that has just come. Everybody has to be told message().
  void joined(int pod);
  // Those that could not load something shall try again. Everybody has to be told message().
  void again() { ++message_.version; }
  void heard(int pod, HaveAdapters said);
  void lost(int pod) { pods_.erase(pod); }

  // Every pod is here and has all of them.
  bool complete() const { return complaint().empty(); }
  // A pod has answered that it could not load something.
  bool failed() const;
  // Why it is not complete, as a sentence; empty: it is.
  std::string complaint() const;
  // Whether all have this one; nullopt: that is not known yet.
  std::optional<Status> verdict(engine::AdapterId id) const;

 private:
  struct Pod {
    std::uint64_t version = 0;  // that it has answered
    std::vector<AdapterFailure> failures;
  };
  bool is_current(const Pod& pod) const { return pod.version == message_.version; }
  std::string sentence(int pod, const AdapterFailure& failure) const;

  int others_;
  WantAdapters message_{.version = 1, .adapters = {}};
  std::map<int, Pod> pods_;
};

}  // namespace dsm::group

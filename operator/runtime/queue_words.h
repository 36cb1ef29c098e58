// What Kueue says of the groups that wait in its queues, read from their Workloads by name: a watch
// would bring every job of the cluster into this process, for words that are asked for seldom. Kept
// for some seconds, since a group that is made is looked at several times at once. Thread-safe.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "kube/client.h"

namespace dsm::runtime {

class QueueWords {
 public:
  static constexpr Millis kKept{10'000};
  // Further groups of a model wait for the same as those before them.
  static constexpr std::size_t kMostGroups = 8;

  // `client` must outlive it.
  explicit QueueWords(kube::Client& client) : client_(client) {}

  // By name of the group; a group of which nothing is known is left out.
  std::map<std::string, std::string> of_groups(const std::string& ns,
                                               const std::vector<std::string>& groups);

 private:
  struct Entry {
    std::string words;
    TimePoint read{};
  };

  std::string read(const std::string& ns, const std::string& group);

  kube::Client& client_;
  std::mutex mutex_;
  std::map<std::string, Entry> entries_;  // by "namespace/group"
};

}  // namespace dsm::runtime

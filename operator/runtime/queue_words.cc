#include "operator/runtime/queue_words.h"

#include <algorithm>

#include "operator/plan/kueue.h"

namespace dsm::runtime {

std::map<std::string, std::string> QueueWords::of_groups(const std::string& ns,
                                                         const std::vector<std::string>& groups) {
  std::map<std::string, std::string> said;
  const TimePoint now = client_.clock().now();
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(entries_, [&](const auto& entry) { return entry.second.read + kKept < now; });
  }
  for (std::size_t i = 0; i < std::min(groups.size(), kMostGroups); ++i) {
    const std::string key = ns + "/" + groups[i];
    std::unique_lock lock(mutex_);
    const auto known = entries_.find(key);
    std::string words = known == entries_.end() ? std::string() : known->second.words;
    if (known == entries_.end()) {
      lock.unlock();
      words = read(ns, groups[i]);
      lock.lock();
      // Kueue makes the Workload a moment after the pods: that there is none yet is not kept.
      if (!words.empty()) entries_[key] = {words, now};
    }
    if (!words.empty()) said[groups[i]] = std::move(words);
  }
  return said;
}

std::string QueueWords::read(const std::string& ns, const std::string& group) {
  for (const kube::Resource* version : {&kube::kWorkloads, &kube::kOldWorkloads}) {
    const auto workload = client_.get(*version, ns, group);
    if (workload) return plan::waiting_words(*workload);
    if (workload.error().kind != ErrorKind::kNotFound) return {};
  }
  return {};
}

}  // namespace dsm::runtime

// What must be certain before a look decides: what the model, its pods and its revisions are now.
// Watches may be late, so it is not after a write that was not answered, nor for who has just begun
// to lead and does not know what was written before. A pod that was deleted without our knowing
// would count as one that serves, a group that has served as one that never did, and one whose
// revision is not known as one that cannot come back.
//
// One model's objects cost the API server a walk over all of their kind in the namespace. So who
// begins to lead reads the kinds once for all models, in pages, and only what was edited meanwhile,
// which shall not wait for that, alone. Thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "kube/client.h"
#include "operator/runtime/store.h"

namespace dsm::runtime {

class ModelDoubts {
 public:
  // A page of pods is a tree of many times their size, and memory is kept for the largest.
  static constexpr int kPageSize = 100;
  // Looks that waited for a reading that failed come again after this.
  static constexpr Millis kReadAgain{1'000};

  // Puts a model before the loop (again): it has waited, or what was read shows it to be another
  // than it was, of which its watch brings no news any more.
  using LookAt = std::function<void(const std::string& model, Millis delay)>;

  // `ns`: the namespace that is looked at, "" all. All must outlive it.
  ModelDoubts(kube::Client& reads, std::string ns, Store& store, LookAt look_at)
      : reads_(reads), ns_(std::move(ns)), store_(store), look_at_(std::move(look_at)) {}

  // This process begins to lead, or its caches have just been filled: nothing is certain.
  void begin();
  // Whether a write for this model took effect is not known.
  void doubt(const std::string& model);
  void forget(const std::string& model);

  // True: it is certain, perhaps because it has just been read. False: somebody else is reading;
  // the model is looked at again when that has ended.
  Result<bool> settle(const std::string& model);

 private:
  Status read_one(const std::string& model);
  Status read_all();
  // All objects of a kind into its cache.
  template <typename Cache>
  Status read_kind(const kube::Resource& resource, const std::string& label_selector, Cache& cache);
  void all_read(std::uint64_t round, bool read);

  kube::Client& reads_;
  const std::string ns_;
  Store& store_;
  const LookAt look_at_;
  std::mutex mutex_;
  std::set<std::string> doubtful_;  // models; guarded by mutex_, as is all below
  bool all_due_ = false;            // since begin()
  std::uint64_t round_ = 0;         // of begin()
  bool reading_ = false;            // all
  std::set<std::string> waiting_;   // for that
  std::set<std::string> since_;     // it began: doubtful
};

}  // namespace dsm::runtime

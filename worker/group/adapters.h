// The adapters of a group of several pods. Every pod has what the leader has, under the same
// numbers, before a row names it, and again before an epoch begins. The leader's table says what
// all shall have (SharedAdapters), each other pod makes it so (HeldAdapters), and AdapterRoll knows
// how far they are. Numbers and digests say what is meant, so a pod that has outlived its leader
// keeps what the next one wants, too, and nothing else.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "worker/engine/adapter.h"

namespace dsm::group {

// An adapter as pods tell each other of it.
struct SharedAdapter {
  engine::AdapterId id = engine::kNoAdapter;
  std::string name;
  std::string path;    // of its folder, the same on every pod
  std::string digest;  // of its files: ranks with different ones would compute nonsense
  bool operator==(const SharedAdapter&) const = default;
};

// Why a pod does not have one.
struct AdapterFailure {
  engine::AdapterId id = engine::kNoAdapter;
  std::string message;
  bool operator==(const AdapterFailure&) const = default;
};

using AdapterPointer = std::shared_ptr<const engine::Adapter>;

// Of the leader: those that are in its memory, because a name or a sequence holds them.
// Thread-safe.
class SharedAdapters {
 public:
  // One of the command line, which every pod reads by itself when it starts.
  void add(const AdapterPointer& adapter, std::string path, std::string digest);
  // Waits until every pod has it. kTransient: the group is not whole, or ceases to be; kInvalid: a
  // pod cannot load it, and the message says which and why. Whoever then lets go of `adapter`
  // undoes it everywhere.
  Status share(const AdapterPointer& adapter, std::string path, std::string digest);

  // The group's side. `news` is called when share() begins and must take no locks of its own; while
  // there is none, nothing is shared.
  void listen(std::function<void()> news);
  // In the order of their numbers.
  std::vector<SharedAdapter> wanted();
  // Those for which share() waits, until they are answered.
  std::vector<engine::AdapterId> waiting() const;
  void answer(engine::AdapterId id, Status answer);

 private:
  struct Entry {
    SharedAdapter adapter;
    std::weak_ptr<const engine::Adapter> alive;
  };

  mutable std::mutex mutex_;
  std::condition_variable answered_;
  std::vector<Entry> entries_;
  std::map<engine::AdapterId, std::optional<Status>> waiting_;
  std::function<void()> news_;
};

// Of another pod: those that it holds for its leader. One thread at a time.
class HeldAdapters {
 public:
  // Reads the weights of this pod's ranks. May take as long as they are large.
  using Load = std::function<Result<AdapterPointer>(const SharedAdapter& adapter)>;
  explicit HeldAdapters(Load load) : load_(std::move(load)) {}

  // One of the command line.
  void add(SharedAdapter adapter, AdapterPointer held);
  // Lets go of what is not wanted and loads what is missing. Says what could not be loaded.
  std::vector<AdapterFailure> keep(const std::vector<SharedAdapter>& wanted);

 private:
  struct Held {
    std::string digest;
    AdapterPointer adapter;
  };

  Load load_;
  std::map<engine::AdapterId, Held> held_;
};

}  // namespace dsm::group

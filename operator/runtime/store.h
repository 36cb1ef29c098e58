// What the operator knows of the cluster: for each kind the newest state of every object, trimmed
// to what a decision reads, by name and by the model it belongs to. Written by the watches and by
// the answers to our own writes, read as shared immutable values. Thread-safe.
//
// A cache is two-handed because both hands may be late: an answer can arrive after the watch has
// already brought something newer, and the watch can bring something older than an answer. Resource
// versions of one kind are increasing numbers, so the newer one wins; what the watch has passed is
// never brought back by a late answer.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kube/watch.h"
#include "operator/plan/observed.h"
#include "operator/runtime/pod_record.h"

namespace dsm::runtime {

using Json = nlohmann::json;

// Where an object is in a cache.
struct ObjectId {
  std::string key;    // "namespace/name"
  std::string model;  // "namespace/model"; "" when it belongs to none
  std::string uid;
  std::uint64_t version = 0;
};
ObjectId id_of_model(const Json& model);
ObjectId id_of_child(const Json& child);  // by its label
ObjectId id_of_node(const Json& node);    // a node is no model's: its own name stands for one

// A model or child as JSON without what no decision reads.
Json trimmed(Json object);
// An autoscaler's status is written at every change of the load; its conditions alone are kept.
Json trimmed_autoscaler(Json object);
// No decision reads how a PodDisruptionBudget or a PodGroup stands.
Json without_status(Json object);
// Equal but for the resource version.
bool same_object(const Json& a, const Json& b);
// Of a model: nobody has acted on its spec yet.
bool unseen(const Json& model);
// Equal but for what a write of the status changes.
bool same_but_for_status(const Json& a, const Json& b);

// Kept as they are read.
template <typename T>
struct KeptWhole {
  using Value = T;
  using Kept = std::shared_ptr<const T>;
  static Kept keep(T value) { return std::make_shared<const T>(std::move(value)); }
  static Kept open(const Kept& kept) { return kept; }
};
// Kept as MessagePack, which takes much less than a tree of JSON values: read when a model is
// looked at, which is seldom, while all objects of the cluster are kept all the time.
struct KeptPacked {
  using Value = Json;
  using Kept = std::vector<std::uint8_t>;
  static Kept keep(const Json& value);
  static std::unique_ptr<Json> open(const Kept& kept);
};
// Pods are the most of all objects: kept as records.
struct KeptRecord {
  using Value = plan::PodView;
  using Kept = std::string;
  static Kept keep(const plan::PodView& pod) { return pod_record(pod); }
  static std::unique_ptr<plan::PodView> open(const Kept& kept) {
    return std::make_unique<plan::PodView>(pod_of_record(kept));
  }
};

// How each kind is kept.
struct ModelTraits : KeptPacked {
  static ObjectId id(const Json& object) { return id_of_model(object); }
  static Json trim(Json object) { return trimmed(std::move(object)); }
  static bool same(const Json& a, const Json& b) { return same_object(a, b); }
};
struct ChildTraits : ModelTraits {
  static ObjectId id(const Json& object) { return id_of_child(object); }
};
struct AutoscalerTraits : ChildTraits {
  static Json trim(Json object) { return trimmed_autoscaler(std::move(object)); }
};
struct StatelessTraits : ChildTraits {
  static Json trim(Json object) { return without_status(std::move(object)); }
};
struct PodTraits : KeptRecord {
  static ObjectId id(const Json& object) { return id_of_child(object); }
  static plan::PodView trim(const Json& object) { return plan::pod_view(object); }
  static bool same(const plan::PodView& a, const plan::PodView& b) { return a == b; }
};
struct NodeTraits : KeptWhole<plan::NodeView> {
  static ObjectId id(const Json& object) { return id_of_node(object); }
  static plan::NodeView trim(const Json& object) { return plan::node_view(object); }
  static bool same(const plan::NodeView& a, const plan::NodeView& b) { return a == b; }
};

template <typename Traits>
class Cache {
 public:
  using Kept = typename Traits::Kept;
  // To a value of the caller's own, or to the one that is kept where that is never changed.
  using Pointer = decltype(Traits::open(std::declval<const Kept&>()));

  // Takes what a watch brought; returns the models (of nodes: the nodes) for which something
  // changed that a decision reads.
  std::set<std::string> take(std::vector<kube::WatchEvent> events) {
    using Kind = kube::WatchEvent::Kind;
    const std::lock_guard lock(mutex_);
    std::set<std::string> changed;
    for (kube::WatchEvent& event : events) {
      switch (event.kind) {
        case Kind::kInit:
          incoming_.clear();
          break;
        case Kind::kInitApply: {
          Entry entry = entry_of(std::move(event.object));
          incoming_[entry.id.key] = std::move(entry);
          break;
        }
        case Kind::kInitDone:
          swap_in(number(event.object["metadata"].value("resourceVersion", "")), changed);
          break;
        case Kind::kApply:
          put_locked(entry_of(std::move(event.object)), /*from_watch=*/true, changed);
          break;
        case Kind::kDelete:
          erase_locked(Traits::id(event.object), changed);
          break;
      }
    }
    return changed;
  }

  // The answer to a POST, PUT or apply.
  void put(Json object) {
    const std::lock_guard lock(mutex_);
    std::set<std::string> changed;
    put_locked(entry_of(std::move(object)), /*from_watch=*/false, changed);
  }
  // The answer to a DELETE that left the object there for its grace period.
  void mark(Json object) {
    const std::lock_guard lock(mutex_);
    Entry entry = entry_of(std::move(object));
    const auto at = entries_.find(entry.id.key);
    if (at == entries_.end() || at->second.uid != entry.id.uid) return;
    entry.id.version = std::max(entry.id.version, at->second.version);
    forget(at);
    insert(std::move(entry));
  }
  // A list of one model's objects that was asked for beside the watch.
  void refresh(const std::string& model, std::vector<Json> items, const std::string& version) {
    const std::lock_guard lock(mutex_);
    std::set<std::string> before;
    for (const auto& at : names_of(model)) before.insert(at->first);
    refresh_locked(std::move(before), std::move(items), number(version));
  }
  // The same of one namespace, or, of objects that are in none, of all ("").
  std::set<std::string> refresh_namespace(const std::string& ns, std::vector<Json> items,
                                          const std::string& version) {
    std::set<std::string> before;
    for (std::string& key : keys_in(ns)) before.insert(std::move(key));
    const std::lock_guard lock(mutex_);
    return refresh_locked(std::move(before), std::move(items), number(version));
  }
  // The same of all objects, in pages. `before` are the keys() of before the first page, less what
  // pages have brought.
  std::set<std::string> refresh_page(std::set<std::string>& before, std::vector<Json> items) {
    const std::lock_guard lock(mutex_);
    std::set<std::string> changed;
    refresh_some(before, std::move(items), changed);
    return changed;
  }
  // What no page has brought is gone.
  std::set<std::string> refresh_end(const std::set<std::string>& before,
                                    const std::string& version) {
    const std::lock_guard lock(mutex_);
    std::set<std::string> changed;
    drop_old(before, number(version), changed);
    return changed;
  }
  // The cluster has the kind no more. If it comes again, it begins with a list.
  void clear() {
    const std::lock_guard lock(mutex_);
    entries_.clear();
    incoming_.clear();
    by_model_.clear();
    watched_ = 0;
    synced_ = false;
  }
  // A DELETE said that this incarnation is gone.
  void erase(const std::string& key, const std::string& uid) {
    const std::lock_guard lock(mutex_);
    const auto at = entries_.find(key);
    if (at == entries_.end() || at->second.uid != uid) return;
    forget(at);
  }

  Pointer find(const std::string& key) const {
    std::unique_lock lock(mutex_);
    const auto at = entries_.find(key);
    if (at == entries_.end()) return nullptr;
    const Kept kept = at->second.kept;
    lock.unlock();
    return Traits::open(kept);
  }
  // The resource version; 0 when it is not there.
  std::uint64_t version(const std::string& key) const {
    const std::lock_guard lock(mutex_);
    const auto at = entries_.find(key);
    return at == entries_.end() ? 0 : at->second.version;
  }
  // "" when it is not there.
  std::string uid(const std::string& key) const {
    const std::lock_guard lock(mutex_);
    const auto at = entries_.find(key);
    return at == entries_.end() ? std::string() : at->second.uid;
  }
  // In the order of their names.
  std::vector<Pointer> of_model(const std::string& model) const {
    std::unique_lock lock(mutex_);
    std::vector<Kept> kept;
    for (const auto& at : names_of(model)) kept.push_back(at->second.kept);
    lock.unlock();
    return opened(kept);
  }
  std::vector<std::string> keys() const {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> result;
    for (const auto& [key, entry] : entries_) result.push_back(key);
    return result;
  }
  // Of one namespace.
  std::vector<std::string> keys_in(const std::string& ns) const {
    const std::string prefix = ns + "/";
    const std::lock_guard lock(mutex_);
    std::vector<std::string> result;
    for (auto at = entries_.lower_bound(prefix); at != entries_.end(); ++at) {
      if (!at->first.starts_with(prefix)) break;
      result.push_back(at->first);
    }
    return result;
  }
  // Models of one namespace of which something is here, by their keys.
  std::vector<std::string> models_in(const std::string& ns) const {
    const std::string prefix = ns + "/";
    const std::lock_guard lock(mutex_);
    std::vector<std::string> result;
    for (auto at = by_model_.lower_bound(prefix); at != by_model_.end(); ++at) {
      if (!at->first.starts_with(prefix)) break;
      result.push_back(at->first);
    }
    return result;
  }
  std::vector<Pointer> all() const {
    std::unique_lock lock(mutex_);
    std::vector<Kept> kept;
    for (const auto& [key, entry] : entries_) kept.push_back(entry.kept);
    lock.unlock();
    return opened(kept);
  }
  // Whether one whole list has come.
  bool synced() const {
    const std::lock_guard lock(mutex_);
    return synced_;
  }
  std::size_t size() const {
    const std::lock_guard lock(mutex_);
    return entries_.size();
  }

 private:
  // As an object comes.
  struct Entry {
    ObjectId id;
    Kept kept;
  };
  // As it stays. There are tens of thousands: no text stands twice.
  struct Held {
    std::string uid;
    std::uint64_t version = 0;
    const std::string* model = nullptr;  // a key of by_model_
    Kept kept;
  };
  using Entries = std::map<std::string, Held>;
  using Names = std::vector<typename Entries::const_iterator>;  // in their order

  static std::uint64_t number(const std::string& version) {
    return version.empty() ? 0 : std::strtoull(version.c_str(), nullptr, 10);
  }
  // NOLINTNEXTLINE(performance-unnecessary-value-param): pods alone are not trimmed by moving
  static Entry entry_of(Json object) {
    ObjectId id = Traits::id(object);
    return {std::move(id), Traits::keep(Traits::trim(std::move(object)))};
  }
  static bool same(const Kept& a, const Kept& b) {
    return a == b || Traits::same(*Traits::open(a), *Traits::open(b));
  }
  static std::vector<Pointer> opened(const std::vector<Kept>& kept) {
    std::vector<Pointer> result;
    result.reserve(kept.size());
    for (const Kept& each : kept) result.push_back(Traits::open(each));
    return result;
  }

  void put_locked(Entry entry, bool from_watch, std::set<std::string>& changed) {
    const std::uint64_t version = entry.id.version;
    if (from_watch) {
      watched_ = std::max(watched_, version);
    } else if (version <= watched_) {
      return;  // the watch has brought this or something newer, perhaps its end
    }
    const auto at = entries_.find(entry.id.key);
    if (at != entries_.end()) {
      const bool same_one = at->second.uid == entry.id.uid;
      if (same_one && version <= at->second.version) return;
      if (!same_one && version < at->second.version) return;
      if (!same(at->second.kept, entry.kept)) changed.insert(*at->second.model);
      forget(at);
    } else {
      changed.insert(entry.id.model);
    }
    insert(std::move(entry));
  }

  std::set<std::string> refresh_locked(std::set<std::string> before, std::vector<Json> items,
                                       std::uint64_t version) {
    std::set<std::string> changed;
    refresh_some(before, std::move(items), changed);
    drop_old(before, version, changed);
    return changed;
  }
  void refresh_some(std::set<std::string>& before, std::vector<Json> items,
                    std::set<std::string>& changed) {
    for (Json& item : items) {
      Entry entry = entry_of(std::move(item));
      before.erase(entry.id.key);
      put_locked(std::move(entry), /*from_watch=*/false, changed);
    }
  }
  // What was there before and is not in the list goes, unless it is newer than the list.
  void drop_old(const std::set<std::string>& before, std::uint64_t version,
                std::set<std::string>& changed) {
    for (const std::string& key : before) {
      const auto at = entries_.find(key);
      if (at == entries_.end() || at->second.version > version) continue;
      changed.insert(*at->second.model);
      forget(at);
    }
  }

  void erase_locked(const ObjectId& id, std::set<std::string>& changed) {
    watched_ = std::max(watched_, id.version);
    const auto at = entries_.find(id.key);
    // A newer object of the same name may be here already.
    if (at == entries_.end() || at->second.uid != id.uid) return;
    changed.insert(*at->second.model);
    forget(at);
  }

  // The list is the truth up to its version; answers of our own writes after it stay.
  void swap_in(std::uint64_t version, std::set<std::string>& changed) {
    for (auto at = entries_.begin(); at != entries_.end();) {
      const auto old = at++;
      if (incoming_.contains(old->first)) continue;
      changed.insert(*old->second.model);
      if (old->second.version <= version) forget(old);
    }
    for (auto& [key, entry] : incoming_) {
      const auto old = entries_.find(key);
      const bool there = old != entries_.end();
      if (!there || !same(old->second.kept, entry.kept)) changed.insert(entry.id.model);
      if (there && old->second.version > version) continue;
      if (there) forget(old);
      insert(std::move(entry));
    }
    incoming_.clear();
    watched_ = std::max(watched_, version);
    synced_ = true;
  }

  const Names& names_of(const std::string& model) const {
    static const Names kNone;
    const auto found = by_model_.find(model);
    return found == by_model_.end() ? kNone : found->second;
  }
  static auto place_of(Names& names, const std::string& key) {
    return std::ranges::lower_bound(names, key, {}, [](auto at) -> auto& { return at->first; });
  }
  // A key that is not there yet.
  void insert(Entry entry) {
    const auto model = by_model_.try_emplace(std::move(entry.id.model)).first;
    Held held{std::move(entry.id.uid), entry.id.version, &model->first, std::move(entry.kept)};
    const auto at = entries_.emplace(std::move(entry.id.key), std::move(held)).first;
    model->second.insert(place_of(model->second, at->first), at);
  }
  void forget(typename Entries::iterator at) {
    const auto model = by_model_.find(*at->second.model);
    model->second.erase(place_of(model->second, at->first));
    if (model->second.empty()) by_model_.erase(model);
    entries_.erase(at);
  }

  mutable std::mutex mutex_;
  Entries entries_;
  std::map<std::string, Names> by_model_;
  std::map<std::string, Entry> incoming_;  // of a list that is not complete yet
  std::uint64_t watched_ = 0;              // the newest version that the watch has brought
  bool synced_ = false;
};

struct Store {
  Cache<ModelTraits> models;
  Cache<PodTraits> pods;
  Cache<ChildTraits> services;
  Cache<ChildTraits> revisions;
  Cache<StatelessTraits> budgets;     // PodDisruptionBudgets
  Cache<StatelessTraits> pod_groups;  // empty where the cluster has no such kind
  Cache<AutoscalerTraits> autoscalers;
  Cache<NodeTraits> nodes;
  // Nodes and what is made only because they are seen; false with rights in one namespace.
  bool with_nodes = false;

  bool synced() const {
    return models.synced() && pods.synced() && services.synced() && revisions.synced() &&
           autoscalers.synced() && (!with_nodes || (budgets.synced() && nodes.synced()));
  }
};

}  // namespace dsm::runtime

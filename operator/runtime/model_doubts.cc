#include "operator/runtime/model_doubts.h"

#include <malloc.h>

#include <utility>

#include "operator/api/names.h"

namespace dsm::runtime {

void ModelDoubts::begin() {
  std::vector<std::string> models = store_.models.keys();
  const std::lock_guard lock(mutex_);
  doubtful_ = {models.begin(), models.end()};
  all_due_ = true;
  ++round_;
}

void ModelDoubts::doubt(const std::string& model) {
  const std::lock_guard lock(mutex_);
  doubtful_.insert(model);
  if (reading_) since_.insert(model);
}

void ModelDoubts::forget(const std::string& model) {
  const std::lock_guard lock(mutex_);
  doubtful_.erase(model);
  since_.erase(model);
}

Result<bool> ModelDoubts::settle(const std::string& model) {
  std::unique_lock lock(mutex_);
  if (!doubtful_.contains(model) || store_.models.uid(model).empty()) return true;
  const auto known = all_due_ ? store_.models.find(model) : nullptr;
  if (known == nullptr || unseen(*known)) {
    lock.unlock();
    if (Status read = read_one(model); !read) return std::unexpected(read.error());
    return true;
  }
  if (reading_) {
    waiting_.insert(model);
    return false;
  }
  reading_ = true;
  const std::uint64_t round = round_;
  lock.unlock();
  const Status read = read_all();
  all_read(round, read.has_value());
  if (!read) return std::unexpected(read.error());
  lock.lock();
  if (doubtful_.contains(model)) return fail(ErrorKind::kTransient, "a doubt came meanwhile");
  return true;
}

Status ModelDoubts::read_one(const std::string& model) {
  const std::string ns = model.substr(0, model.find('/'));
  const std::string name = model.substr(ns.size() + 1);
  auto object = reads_.get(kube::kDeepSeekModels, ns, name);
  // One that is gone is so in the store soon: until then this is an error.
  if (!object) return std::unexpected<Error>(object.error());
  kube::ListOptions options;
  options.label_selector = std::string(api::kModelLabel) + "=" + name;
  auto pods = reads_.list(kube::kPods, ns, options);
  if (!pods) return std::unexpected<Error>(pods.error());
  auto revisions = reads_.list(kube::kControllerRevisions, ns, std::move(options));
  if (!revisions) return std::unexpected<Error>(revisions.error());
  store_.models.put(*std::move(object));
  store_.revisions.refresh(model, std::move(revisions->items), revisions->resource_version);
  store_.pods.refresh(model, std::move(pods->items), pods->resource_version);
  const std::lock_guard lock(mutex_);
  doubtful_.erase(model);
  return {};
}

Status ModelDoubts::read_all() {
  const std::string ours =
      std::string(api::kManagedByLabel) + "=" + std::string(api::kManagedByValue);
  Status read = read_kind(kube::kDeepSeekModels, "", store_.models);
  if (read) read = read_kind(kube::kControllerRevisions, ours, store_.revisions);
  if (read) read = read_kind(kube::kPods, ours, store_.pods);
  malloc_trim(0);
  return read;
}

template <typename Cache>
Status ModelDoubts::read_kind(const kube::Resource& resource, const std::string& label_selector,
                              Cache& cache) {
  const std::vector<std::string> keys = cache.keys();
  std::set<std::string> before(keys.begin(), keys.end());
  const auto changed = [this](const std::set<std::string>& models) {
    for (const std::string& model : models) {
      if (!model.empty()) look_at_(model, Millis(0));
    }
  };
  kube::ListOptions options;
  options.label_selector = label_selector;
  options.limit = kPageSize;
  const auto version = reads_.list_pages(
      resource, ns_, std::move(options),
      [&](std::vector<Json> items) { changed(cache.refresh_page(before, std::move(items))); });
  if (!version) return std::unexpected<Error>(version.error());
  changed(cache.refresh_end(before, *version));
  return {};
}

void ModelDoubts::all_read(std::uint64_t round, bool read) {
  std::unique_lock lock(mutex_);
  reading_ = false;
  std::set<std::string> since = std::exchange(since_, {});
  // Who began to lead again meanwhile begins anew.
  if (read && round == round_) {
    doubtful_ = std::move(since);
    all_due_ = false;
  }
  const std::set<std::string> waiting = std::exchange(waiting_, {});
  lock.unlock();
  for (const std::string& model : waiting) look_at_(model, read ? Millis(0) : kReadAgain);
}

}  // namespace dsm::runtime

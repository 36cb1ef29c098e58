#include "operator/runtime/tenant_doubts.h"

#include "operator/api/names.h"

namespace dsm::runtime {
namespace {

constexpr const char* kTenants = "";

}  // namespace

void TenantDoubts::begin() {
  const std::lock_guard lock(mutex_);
  ++doubts_;
  known_.clear();
}

void TenantDoubts::doubt(const std::string& ns) {
  const std::lock_guard lock(mutex_);
  ++doubts_;
  known_.erase(ns);
}

bool TenantDoubts::is_known(const std::string& what, std::uint64_t& seen) {
  const std::lock_guard lock(mutex_);
  seen = doubts_;
  return known_.contains(what);
}

Status TenantDoubts::known(const std::string& what, std::uint64_t seen) {
  const std::lock_guard lock(mutex_);
  if (doubts_ != seen) return fail(ErrorKind::kTransient, "something was written meanwhile");
  known_.insert(what);
  return {};
}

Status TenantDoubts::settle_tenants() {
  const std::lock_guard lock(settling_);
  return settle_tenants_locked();
}

Status TenantDoubts::settle_tenants_locked() {
  std::uint64_t seen = 0;
  if (is_known(kTenants, seen)) return {};
  auto list = reads_.list(kube::kDeepSeekTenants, "", {});
  if (!list) return std::unexpected<Error>(list.error());
  for (const std::string& tenant :
       tenants_.tenants.refresh_namespace("", std::move(list->items), list->resource_version)) {
    hooks_.tenant_changed(tenant);
  }
  return known(kTenants, seen);
}

Status TenantDoubts::settle(const std::string& ns) {
  const std::lock_guard lock(settling_);
  if (Status known = settle_tenants_locked(); !known) return known;
  const plan::TenantPointer tenant = tenants_.tenant_of(ns);
  if (!tenant) return {};
  for (const std::string& each : tenant->namespaces) {
    if (Status known = settle_namespace(each); !known) return known;
  }
  return {};
}

Status TenantDoubts::settle_namespace(const std::string& ns) {
  std::uint64_t seen = 0;
  if (is_known(ns, seen)) return {};
  const auto into = [&](auto& cache) {
    return [&cache, &ns](kube::ObjectList list) {
      return cache.refresh_namespace(ns, std::move(list.items), list.resource_version);
    };
  };
  Status read = refresh(kube::kDeepSeekModels, ns, into(models_.models));
  if (read) read = refresh(kube::kControllerRevisions, ns, into(models_.revisions));
  if (read) {
    read = refresh(kube::kPods, ns, [&](kube::ObjectList list) {
      hooks_.pods_listed(list.items);
      return into(models_.pods)(std::move(list));
    });
  }
  return read ? known(ns, seen) : read;
}

Status TenantDoubts::refresh(const kube::Resource& resource, const std::string& ns,
                             const std::function<std::set<std::string>(kube::ObjectList)>& take) {
  kube::ListOptions options;
  if (resource != kube::kDeepSeekModels) {
    options.label_selector =
        std::string(api::kManagedByLabel) + "=" + std::string(api::kManagedByValue);
  }
  auto list = reads_.list(resource, ns, std::move(options));
  if (!list) return std::unexpected<Error>(list.error());
  for (const std::string& model : take(*std::move(list))) {
    if (!model.empty()) hooks_.model_changed(model);
  }
  return {};
}

}  // namespace dsm::runtime

// What must be certain before anything is given from a tenant's budget. A budget is over many
// models, and watches may be late: whoever has just begun to lead could give away room that the
// pods of a model which it has not heard of have taken a moment ago, or by a budget that is not the
// tenant's any more. So the tenants, and the models, revisions and pods in a tenant's namespaces,
// are listed once after this process began to lead, and a namespace again after a write there that
// was not answered. Thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "kube/client.h"
#include "operator/runtime/tenant_store.h"

namespace dsm::runtime {

class TenantDoubts {
 public:
  struct Hooks {
    // What a list has shown to be another than it was: its watch brings no news of it any more.
    std::function<void(const std::string& model)> model_changed;
    std::function<void(const std::string& tenant)> tenant_changed;
    // The pods of a namespace as the API server gave them.
    std::function<void(const std::vector<Json>& pods)> pods_listed;
  };

  // All must outlive it.
  TenantDoubts(kube::Client& reads, Store& models, TenantStore& tenants, Hooks hooks)
      : reads_(reads), models_(models), tenants_(tenants), hooks_(std::move(hooks)) {}

  // This process begins to lead: nothing is certain.
  void begin();
  // Whether a write in this namespace took effect is not known.
  void doubt(const std::string& ns);
  // Makes certain which tenants there are.
  Status settle_tenants();
  // And all that counts in the budget of a namespace's tenant, if it has one.
  Status settle(const std::string& ns);

 private:
  Status settle_tenants_locked();
  Status settle_namespace(const std::string& ns);
  // Takes a list of one namespace into a cache.
  Status refresh(const kube::Resource& resource, const std::string& ns,
                 const std::function<std::set<std::string>(kube::ObjectList)>& take);
  // Certain from now on, unless a doubt has come since `seen`.
  Status known(const std::string& what, std::uint64_t seen);
  bool is_known(const std::string& what, std::uint64_t& seen);

  kube::Client& reads_;
  Store& models_;
  TenantStore& tenants_;
  const Hooks hooks_;
  std::mutex settling_;  // one reads, the others wait for what it has read
  std::mutex mutex_;
  std::uint64_t doubts_ = 0;     // so far; guarded by mutex_
  std::set<std::string> known_;  // namespaces, and "" for the tenants; guarded by mutex_
};

}  // namespace dsm::runtime

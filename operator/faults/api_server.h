// An API server in memory, as far as the operator uses one, behind the same bytes: names are
// unique, writes compare uid and resource version, the spec's changes count as generations, fields
// have owners, of which an apply takes away what was its alone, pods end gracefully, what belongs
// to nobody any more is collected, and every change is an event. For tests; single-threaded.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "base/clock.h"
#include "kube/request.h"
#include "kube/transport.h"
#include "operator/faults/kubelets.h"
#include "operator/faults/managed_fields.h"
#include "operator/faults/objects.h"

namespace dsm::faults {

class ApiServer {
 public:
  explicit ApiServer(Clock& clock);

  int quota = 1000;  // pods that a namespace may have
  // Changes a pod that is being made; says why it may not be: an admission webhook. Empty: none.
  std::function<std::string(Json& pod)> webhook;

  kube::HttpResponse answer(const kube::HttpRequest& request);
  // "pods", "deepseekmodels/status", ...
  static std::string what(const kube::HttpRequest& request);

  // What users do.
  void make_model(const std::string& ns, const std::string& name, const Json& spec);
  void edit_model(const std::string& key, const Json& merge_patch);  // of the spec
  // Foreground: the model stays until what belongs to it is gone.
  void delete_model(const std::string& key, bool foreground);

  // Kinds that somebody defines or not: PodGroups, and Kueue's Workloads. With its definition all
  // objects of a kind go.
  void define(const kube::Resource& resource, bool defined);

  // A second passes in the cluster, and the garbage collector comes by.
  void pass_second();

  const Objects& objects() const { return objects_; }
  // For controllers in the cluster, and not for pods.
  Objects& objects() { return objects_; }
  // Objects that were made so far.
  int made() const { return uids_; }
  // Who has fields of an object: "manager Apply" and "manager Update".
  std::set<std::string> owners_of(const Json& object) const;
  Kubelets& kubelets() { return kubelets_; }
  const Kubelets& kubelets() const { return kubelets_; }

 private:
  // What a request is about.
  struct Place {
    const kube::Resource* resource = nullptr;
    std::string ns;
    std::string name;  // "": all of them
    std::string subresource;
    std::map<std::string, std::string> query;

    std::string key() const { return ns.empty() ? name : ns + "/" + name; }
  };
  static Place place_of(const std::string& target);

  kube::HttpResponse list(const Place& place) const;
  kube::HttpResponse create(const Place& place, const Json& object);
  kube::HttpResponse make(const Place& place, Json object);
  kube::HttpResponse replace(const Place& place, Json object);
  kube::HttpResponse apply(const Place& place, const Json& wanted);
  kube::HttpResponse patch(const Place& place, const Json& patch, bool strategic);
  kube::HttpResponse release(const Place& place, const Json& patch);
  kube::HttpResponse discover(const std::string& target) const;
  // A pod, also when it has gone a moment ago.
  kube::HttpResponse last_of(const Place& place) const;
  kube::HttpResponse remove(const Place& place, const Json& options);
  kube::HttpResponse put(const Place& place, Json object);
  ManagedFields& fields_of(const Json& object);
  void collect();

  Clock& clock_;
  Objects objects_;
  Kubelets kubelets_;
  std::map<std::string, ManagedFields> fields_;  // by the object's uid
  std::set<std::string> defined_;                // plurals of optional kinds
  int uids_ = 0;
};

}  // namespace dsm::faults

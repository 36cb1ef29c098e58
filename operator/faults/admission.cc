#include "operator/faults/admission.h"

#include "kube/parse.h"
#include "operator/api/quantity.h"

namespace dsm::faults {
namespace {

using kube::member;
using kube::text_of;

constexpr std::string_view kRequests = "requests.";

std::string namespace_of(const Json& object) {
  return text_of(member(object, "metadata"), "namespace");
}

bool has_ended(const Json& pod, WallTime now) {
  const std::string phase = text_of(member(pod, "status"), "phase");
  const std::string deletion = text_of(member(pod, "metadata"), "deletionTimestamp");
  return phase == "Failed" || phase == "Succeeded" ||
         (!deletion.empty() && from_rfc3339(deletion) < now);
}

// Only of these a quota demands that every container says a request.
bool must_be_said(const std::string& resource) {
  return resource == "cpu" || resource == "memory";
}

bool is_said(const Json& pod, const std::string& resource) {
  for (const Json& container : pod["spec"]["containers"]) {
    if (!member(member(container, "resources"), "requests").contains(resource)) return false;
  }
  return true;
}

}  // namespace

void take_default_requests(const Objects& objects, Json& pod) {
  for (const auto& [key, range] : objects.all(kube::kLimitRanges)) {
    if (namespace_of(range) != namespace_of(pod)) continue;
    for (const Json& limit : range["spec"]["limits"]) {
      for (Json& container : pod["spec"]["containers"]) {
        Json& requests = container["resources"]["requests"];
        for (const auto& [resource, quantity] : limit["defaultRequest"].items()) {
          if (!requests.contains(resource)) requests[resource] = quantity;
        }
      }
    }
  }
}

double requested(const Json& pod, const std::string& resource) {
  double sum = 0;
  for (const Json& container : pod["spec"]["containers"]) {
    const std::string quantity =
        text_of(member(member(container, "resources"), "requests"), resource);
    sum += api::milli_of(quantity).value_or(0);
  }
  return sum;
}

std::string over_quota(const Objects& objects, const Json& pod, WallTime now) {
  const std::string ns = namespace_of(pod);
  for (const auto& [key, quota] : objects.all(kube::kResourceQuotas)) {
    if (namespace_of(quota) != ns) continue;
    for (const auto& [name, hard] : quota["spec"]["hard"].items()) {
      if (!name.starts_with(kRequests)) continue;
      const std::string resource = name.substr(kRequests.size());
      if (must_be_said(resource) && !is_said(pod, resource)) {
        return "failed quota: " + text_of(quota["metadata"], "name") + ": must specify " + name;
      }
      const double more = requested(pod, resource);
      double used = 0;
      for (const auto& [other_key, other] : objects.all(kube::kPods)) {
        if (namespace_of(other) == ns && !has_ended(other, now)) used += requested(other, resource);
      }
      if (more > 0 && used + more > api::milli_of(hard.get<std::string>()).value_or(0)) {
        return "exceeded quota: " + text_of(quota["metadata"], "name") + ", limited: " + name +
               "=" + hard.get<std::string>();
      }
    }
  }
  return {};
}

}  // namespace dsm::faults

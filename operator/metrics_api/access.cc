#include "operator/metrics_api/access.h"

#include <algorithm>

namespace dsm::metrics_api {
namespace {

constexpr std::string_view kMasters = "system:masters";

// What the caller wants to do, in words.
std::string deed(const Call& call) {
  const std::string of = " of " + std::string(call.group.name) + " in namespace " + call.ns;
  if (call.kind == Call::Kind::kExternal) return "list " + call.metric + of;
  if (call.kind == Call::Kind::kObject) {
    return "get " + std::string(kModelsResource) + "/" + call.metric + of;
  }
  return "get " + call.path;
}

}  // namespace

kube::Json review_of(const User& user, const Call& call) {
  kube::Json spec = {{"user", user.name}, {"groups", user.groups}};
  if (!user.uid.empty()) spec["uid"] = user.uid;
  if (!user.extra.empty()) spec["extra"] = user.extra;
  if (call.kind == Call::Kind::kExternal) {
    spec["resourceAttributes"] = {{"verb", "list"},
                                  {"group", call.group.name},
                                  {"version", call.group.version},
                                  {"resource", call.metric},
                                  {"namespace", call.ns}};
  } else if (call.kind == Call::Kind::kObject) {
    spec["resourceAttributes"] = {{"verb", "get"},
                                  {"group", call.group.name},
                                  {"version", call.group.version},
                                  {"resource", kModelsResource},
                                  {"subresource", call.metric},
                                  {"name", call.model},
                                  {"namespace", call.ns}};
  } else {
    spec["nonResourceAttributes"] = {{"verb", "get"}, {"path", call.path}};
  }
  return {{"apiVersion", kube::kSubjectAccessReviews.api_version()},
          {"kind", kube::kSubjectAccessReviews.kind},
          {"spec", std::move(spec)}};
}

std::optional<Verdict> Access::known(const User& user, const Call& call) {
  if (std::ranges::find(user.groups, kMasters) != user.groups.end()) return Verdict{true, ""};
  const std::string question = review_of(user, call).dump();
  const TimePoint now = client_.clock().now();
  const std::lock_guard lock(mutex_);
  const auto found = kept_.find(question);
  if (found == kept_.end()) return std::nullopt;
  if (found->second.until > now) return found->second.verdict;
  kept_.erase(found);
  return std::nullopt;
}

Result<Verdict> Access::ask(const User& user, const Call& call) {
  const kube::Json review = review_of(user, call);
  const auto answer = client_.create(kube::kSubjectAccessReviews, "", review);
  if (!answer) return std::unexpected<Error>(answer.error());
  const kube::Json status = answer->value("status", kube::Json::object());
  Verdict verdict;
  verdict.allowed = status.value("allowed", false) && !status.value("denied", false);
  if (!verdict.allowed) verdict.why = user.name + " may not " + deed(call);
  const TimePoint now = client_.clock().now();
  const std::lock_guard lock(mutex_);
  if (kept_.size() >= kMostKept) {
    std::erase_if(kept_, [&](const auto& entry) { return entry.second.until <= now; });
    if (kept_.size() >= kMostKept) kept_.clear();
  }
  kept_[review.dump()] = {verdict, now + kKept};
  return verdict;
}

}  // namespace dsm::metrics_api

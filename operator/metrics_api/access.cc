#include "operator/metrics_api/access.h"

#include <algorithm>

#include "kube/parse.h"

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
  return kept_.find(review_of(user, call).dump(), client_.clock().now());
}

Result<Verdict> Access::ask(const User& user, const Call& call) {
  const kube::Json review = review_of(user, call);
  const auto answer = client_.create(kube::kSubjectAccessReviews, "", review);
  if (!answer) return std::unexpected<Error>(answer.error());
  const kube::Json& status = kube::member(*answer, "status");
  Verdict verdict;
  verdict.allowed =
      kube::member(status, "allowed") == true && kube::member(status, "denied") != true;
  if (!verdict.allowed) verdict.why = user.name + " may not " + deed(call);
  kept_.put(review.dump(), verdict, client_.clock().now());
  return verdict;
}

}  // namespace dsm::metrics_api

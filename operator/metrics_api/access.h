// Who may ask for what: the API server decides (SubjectAccessReview), by the roles of the cluster.
// Its answers are kept for a short time. Thread-safe.
#pragma once

#include <optional>
#include <string>

#include "kube/client.h"
#include "operator/metrics_api/call.h"
#include "operator/metrics_api/identity.h"
#include "operator/metrics_api/kept.h"

namespace dsm::metrics_api {

// The question as a SubjectAccessReview, read off the path as the API server itself reads it: an
// external metric is a resource of its group, listed in its namespace, that of a model a
// subresource of the model, anything else a path.
kube::Json review_of(const User& user, const Call& call);

struct Verdict {
  bool allowed = false;
  std::string why;  // of a refusal
};

class Access {
 public:
  // `client` must outlive it; its POSTs are questions and change nothing.
  explicit Access(kube::Client& client) : client_(client) {}

  // Without asking: the group system:masters may do everything, as everywhere, and what was decided
  // a moment ago still holds. Nothing: ask().
  std::optional<Verdict> known(const User& user, const Call& call);
  // Blocks until the API server has answered; an error means that it has not.
  Result<Verdict> ask(const User& user, const Call& call);

 private:
  kube::Client& client_;
  Kept<Verdict> kept_;  // by the text of the question
};

}  // namespace dsm::metrics_api

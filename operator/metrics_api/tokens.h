// Whose a bearer token is: the API server says (TokenReview). It is asked for no audience, so that
// a token counts that opens the API server itself, and none that was made for another service. What
// it said of a token that counts is kept for a short time, under a keyed hash and never the token
// itself; a refusal is not kept, so that a stranger cannot fill the memory. Thread-safe.
#pragma once

#include <optional>
#include <string>

#include "kube/client.h"
#include "operator/metrics_api/identity.h"
#include "operator/metrics_api/kept.h"

namespace dsm::metrics_api {

inline constexpr kube::Resource kTokenReviews{"authentication.k8s.io", "v1", "tokenreviews",
                                              "TokenReview", /*namespaced=*/false};

class Tokens {
 public:
  // `client` must outlive it; its POSTs are questions and change nothing.
  explicit Tokens(kube::Client& client);

  // Without asking: whose the token was a moment ago. Nothing: ask().
  std::optional<User> known(const BearerToken& token);
  // Blocks until the API server has answered. An error means that it has not; no user, that the
  // token is nobody's: wrong, expired, revoked or for another audience.
  Result<std::optional<User>> ask(const BearerToken& token);

 private:
  std::string hash_of(const BearerToken& token) const;

  kube::Client& client_;
  const std::string hash_key_;  // of this process alone
  Kept<User> kept_;
};

}  // namespace dsm::metrics_api

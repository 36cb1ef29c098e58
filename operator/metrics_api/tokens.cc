#include "operator/metrics_api/tokens.h"

#include "base/random.h"
#include "kube/parse.h"

namespace dsm::metrics_api {
namespace {

using kube::Json;

constexpr std::size_t kHashKeyBytes = 32;

std::vector<std::string> texts(const Json& list) {
  std::vector<std::string> out;
  if (!list.is_array()) return out;
  for (const Json& one : list) {
    if (one.is_string()) out.push_back(one.get<std::string>());
  }
  return out;
}

// Nothing: the review says that the token is nobody's.
std::optional<User> user_of(const Json& review) {
  const Json& status = kube::member(review, "status");
  if (kube::member(status, "authenticated") != true) return std::nullopt;
  const Json& said = kube::member(status, "user");
  User user;
  user.name = kube::text_of(said, "username");
  if (user.name.empty()) return std::nullopt;
  user.uid = kube::text_of(said, "uid");
  user.groups = texts(kube::member(said, "groups"));
  const Json& extra = kube::member(said, "extra");
  for (const auto& [key, values] : extra.items()) user.extra[key] = texts(values);
  return with_everyones_group(std::move(user));
}

}  // namespace

Tokens::Tokens(kube::Client& client) : client_(client), hash_key_(random_hex(kHashKeyBytes)) {}

std::string Tokens::hash_of(const BearerToken& token) const {
  return hmac_sha256_hex(hash_key_, token.text);
}

std::optional<User> Tokens::known(const BearerToken& token) {
  return kept_.find(hash_of(token), client_.clock().now());
}

Result<std::optional<User>> Tokens::ask(const BearerToken& token) {
  const Json review = {{"apiVersion", kTokenReviews.api_version()},
                       {"kind", kTokenReviews.kind},
                       {"spec", {{"token", token.text}}}};
  const auto answer = client_.create(kTokenReviews, "", review);
  if (!answer) return std::unexpected<Error>(answer.error());
  std::optional<User> user = user_of(*answer);
  if (user) kept_.put(hash_of(token), *user, client_.clock().now());
  return user;
}

}  // namespace dsm::metrics_api

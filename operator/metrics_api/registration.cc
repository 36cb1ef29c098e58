#include "operator/metrics_api/registration.h"

#include <algorithm>

#include "kube/config.h"
#include "kube/resource.h"
#include "operator/api/names.h"

namespace dsm::metrics_api {
namespace {

constexpr int kPort = 443;
constexpr int kGroupPriority = 100;
// Clocks of other machines may be behind ours.
constexpr std::chrono::hours kBackdated{1};

constexpr const char* kCertificateKey = "tls.crt";
constexpr const char* kPrivateKey = "tls.key";
constexpr const char* kAuthorityKey = "ca.crt";
constexpr std::string_view kEndOfCertificate = "-----END CERTIFICATE-----\n";

std::string text(const Json& object, const char* pointer) {
  const Json value =
      object.is_object() ? object.value(Json::json_pointer(pointer), Json()) : Json();
  return value.is_string() ? value.get<std::string>() : std::string();
}

Json metadata(std::string_view name, const Place& place, const std::string& owner_uid) {
  return {{"name", name},
          {"labels",
           {{std::string(api::kNameLabel), "deepseek-operator"},
            {std::string(api::kManagedByLabel), api::kManagedByValue}}},
          {"ownerReferences", Json::array({{{"apiVersion", kube::kClusterRoles.api_version()},
                                            {"kind", kube::kClusterRoles.kind},
                                            {"name", place.owner},
                                            {"uid", owner_uid}}})}};
}

// The first certificate of the text.
std::string first_of(const std::string& certificates) {
  const auto end = certificates.find(kEndOfCertificate);
  return end == std::string::npos ? "" : certificates.substr(0, end + kEndOfCertificate.size());
}

}  // namespace

Result<Serving> serving_of(const Json& secret) {
  const auto read = [&](const char* key) -> Result<std::string> {
    const std::string pointer = std::string("/data/") + key;
    auto decoded = kube::base64_decode(text(secret, pointer.c_str()));
    if (!decoded || decoded->empty()) {
      return fail(ErrorKind::kInvalid, std::string("the Secret has no readable ") + key);
    }
    return decoded;
  };
  auto authorities = read(kAuthorityKey);
  if (!authorities) return std::unexpected(authorities.error());
  auto certificate = read(kCertificateKey);
  if (!certificate) return std::unexpected(certificate.error());
  auto key = read(kPrivateKey);
  if (!key) return std::unexpected(key.error());
  return Serving{*std::move(authorities), {*std::move(certificate), *std::move(key)}};
}

bool must_renew(const Serving* serving, const Place& place, WallTime now) {
  if (serving == nullptr) return true;
  const auto facts = certificate_facts(serving->pair.certificate);
  if (!facts || facts->until - now < kRenewBefore) return true;
  return std::ranges::find(facts->dns_names, place.dns_name()) == facts->dns_names.end();
}

Result<Serving> new_serving(const Serving* before, const Place& place, WallTime now) {
  const WallTime from = now - kBackdated;
  const WallTime until = now + kCertificateLife;
  auto authority = make_authority("deepseek-operator metrics api CA", from, until);
  if (!authority) return std::unexpected(authority.error());
  auto pair = make_leaf(*authority, {.common_name = "deepseek-operator metrics api",
                                     .dns_names = {place.dns_name()},
                                     .use = LeafRequest::Use::kServer,
                                     .from = from,
                                     .until = until});
  if (!pair) return std::unexpected(pair.error());
  std::string authorities = authority->certificate;
  if (before != nullptr) authorities += first_of(before->authorities);
  return Serving{std::move(authorities), *std::move(pair)};
}

Json secret_json(const Serving& serving, const Place& place, const std::string& owner_uid,
                 const std::string& resource_version) {
  Json meta = metadata(place.secret(), place, owner_uid);
  meta["namespace"] = place.ns;
  if (!resource_version.empty()) meta["resourceVersion"] = resource_version;
  return {{"apiVersion", "v1"},
          {"kind", "Secret"},
          {"metadata", std::move(meta)},
          {"type", "kubernetes.io/tls"},
          {"data",
           {{kAuthorityKey, kube::base64_encode(serving.authorities)},
            {kCertificateKey, kube::base64_encode(serving.pair.certificate)},
            {kPrivateKey, kube::base64_encode(serving.pair.key)}}}};
}

Json api_service_json(const Group& group, const std::string& authorities, const Place& place,
                      const std::string& owner_uid) {
  // The newer of two versions of a group comes first.
  const int version_priority = group == kCustomMetrics ? 200 : 100;
  return {{"apiVersion", kube::kApiServices.api_version()},
          {"kind", kube::kApiServices.kind},
          {"metadata", metadata(group.api_service(), place, owner_uid)},
          {"spec",
           {{"group", group.name},
            {"version", group.version},
            {"groupPriorityMinimum", kGroupPriority},
            {"versionPriority", version_priority},
            {"caBundle", kube::base64_encode(authorities)},
            {"service", {{"namespace", place.ns}, {"name", place.service}, {"port", kPort}}}}}};
}

Claim claim_of(const Json* api_service, const Place& place) {
  if (api_service == nullptr) return {};
  const std::string ns = text(*api_service, "/spec/service/namespace");
  const std::string service = text(*api_service, "/spec/service/name");
  const std::string by = text(*api_service, "/metadata/labels/app.kubernetes.io~1managed-by");
  if (by == api::kManagedByValue && ns == place.ns && service == place.service) {
    return {Claim::Kind::kOurs, ""};
  }
  return {Claim::Kind::kForeign,
          service.empty() ? "an APIService without a Service" : "Service " + ns + "/" + service};
}

Registration registration_for(const Claims& claims) {
  using State = plan::MetricsApi::State;
  const Deed away = claims.custom.kind == Claim::Kind::kOurs ? Deed::kRemove : Deed::kLeave;
  if (claims.external.kind != Claim::Kind::kForeign) {
    return {Deed::kKeep, away, {State::kOurs}};
  }
  const std::string& owner = claims.external.owner;
  if (claims.custom.kind == Claim::Kind::kForeign) {
    return {Deed::kLeave, Deed::kLeave, {State::kForeign, owner, claims.custom.owner}};
  }
  if (claims.older_custom.kind != Claim::Kind::kFree) {
    return {Deed::kLeave, away, {State::kForeign, owner, claims.older_custom.owner}};
  }
  return {Deed::kLeave, Deed::kKeep, {State::kCustom, owner}};
}

}  // namespace dsm::metrics_api

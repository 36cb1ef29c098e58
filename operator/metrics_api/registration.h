// The objects by which the cluster finds and trusts the metrics APIs, and what is to be done about
// them: a Secret and an APIService for each group that we serve. Pure.
//
// The certificate is made by the operator itself and kept in a Secret that its replicas share. Each
// new one has an authority of its own, whose key is thrown away once it has signed; the Secret's
// ca.crt also holds the authority before it, so that replicas may change over one after the other.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/certificate.h"
#include "operator/metrics_api/call.h"
#include "operator/plan/observed.h"

namespace dsm::metrics_api {

using Json = nlohmann::json;

// Lifetime of a certificate, and how long before its end there is a new one.
inline constexpr std::chrono::hours kCertificateLife{90 * 24};
inline constexpr std::chrono::hours kRenewBefore{30 * 24};

// Where the API is reached, and the ClusterRole of the chart that owns what we make: it is removed
// with the chart, and the garbage collector removes the rest.
struct Place {
  std::string ns;
  std::string service;
  std::string owner;  // name of the ClusterRole

  std::string secret() const { return service + "-tls"; }
  std::string dns_name() const { return service + "." + ns + ".svc"; }
};

// What the Secret holds.
struct Serving {
  std::string authorities;  // PEM, for caBundle
  KeyPair pair;

  bool operator==(const Serving&) const = default;
};
// kInvalid: it does not hold what it should.
Result<Serving> serving_of(const Json& secret);

// Whether there must be a new certificate now. `serving`: the one there is.
bool must_renew(const Serving* serving, const Place& place, WallTime now);

// A new certificate; `before`: the one that it replaces.
Result<Serving> new_serving(const Serving* before, const Place& place, WallTime now);

// The Secret. `resource_version` of the one that it replaces; "": there is none.
Json secret_json(const Serving& serving, const Place& place, const std::string& owner_uid,
                 const std::string& resource_version);

Json api_service_json(const Group& group, const std::string& authorities, const Place& place,
                      const std::string& owner_uid);

// Who has an APIService: nobody, we, or somebody else, who is named.
struct Claim {
  enum class Kind { kFree, kOurs, kForeign };
  Kind kind = Kind::kFree;
  std::string owner;
};
Claim claim_of(const Json* api_service, const Place& place);

// Who has the APIServices that matter.
struct Claims {
  Claim external;
  Claim custom;
  Claim older_custom;  // kOlderCustomApiService; we never make it
};
// What becomes of an APIService: it is left alone (it is somebody else's, or not needed and not
// there), made or mended, or removed.
enum class Deed { kLeave, kKeep, kRemove };
struct Registration {
  Deed external = Deed::kLeave;
  Deed custom = Deed::kLeave;
  plan::MetricsApi state;  // once that is done
};
// External metrics are ours wherever they are free. Only beside a foreign owner of theirs do we
// take custom metrics, and only when nobody else serves any version of them: autoscalers ask the
// newest version alone, so ours would hide an adapter's.
Registration registration_for(const Claims& claims);

}  // namespace dsm::metrics_api

// X.509 certificates (OpenSSL): made for our own servers, read, and judged where a client shows
// one. Everything is PEM text; keys are P-256. Values only, no threading concerns.
#pragma once

#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace dsm {

struct KeyPair {
  std::string certificate;
  std::string key;

  bool operator==(const KeyPair&) const = default;
};

// An authority that signs itself.
Result<KeyPair> make_authority(const std::string& common_name, WallTime from, WallTime until);

struct LeafRequest {
  enum class Use { kServer, kClient };
  std::string common_name;  // may be empty: then it has none
  std::vector<std::string> organizations = {};
  std::vector<std::string> dns_names = {};
  Use use = Use::kServer;
  WallTime from;
  WallTime until;
};
Result<KeyPair> make_leaf(const KeyPair& authority, const LeafRequest& request);

struct CertificateFacts {
  std::string common_name;  // of several the last, as Go and so Kubernetes reads them
  std::vector<std::string> organizations;
  std::vector<std::string> dns_names;
  WallTime from;
  WallTime until;
};
// Of the first certificate in the text; kInvalid when there is none.
Result<CertificateFacts> certificate_facts(const std::string& certificates);

// Whether the first certificate is a client's and is by one of the authorities, through the others
// of its text, at this time. kDenied says why not, kInvalid that there is nothing to judge by.
Status check_client(const std::string& certificates, const std::string& authorities, WallTime now);

}  // namespace dsm

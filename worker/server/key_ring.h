// The API keys that open the endpoint, as the operator has told them over the internal port, and
// the salt that keeps the prefix cache of one tenant apart from another's. Keys are known by their
// hash only. A ring that waits opens to nobody until it is told; one that does not is open until
// then. What is told replaces all that was told before, at once and for every request that begins
// afterwards. Thread-safe.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/http/message.h"
#include "worker/server/api_error.h"

namespace dsm::server {

class KeyRing {
 public:
  explicit KeyRing(bool waits) : waits_(waits) {}

  // The body of a PUT /internal/keys: {"digest", "required", "hashSalt", "cacheSalt", "keys":
  // [...]}, where a key is HMAC-SHA256(hashSalt, SHA-256 of the API key), all in hex. kInvalid,
  // with nothing changed, for any other.
  Status tell(std::string_view body);

  // Nobody is let in, because nothing was told yet.
  bool awaited() const;
  // For the status: "" (nothing was told, and it is open), "awaited", or the digest of what was
  // told.
  std::string told() const;

  // The cache salt of a request that is let in; 401 or 503 for one that is not. The key is in
  // Authorization: Bearer, or in X-Api-Key as Anthropic's clients send it.
  Parsed<std::string> admit(const http::Request& request) const;

 private:
  struct Told {
    std::string digest;
    bool required = false;
    std::string hash_salt;
    std::string cache_salt;
    std::vector<std::string> hashes;
  };
  std::shared_ptr<const Told> current() const;

  const bool waits_;
  mutable std::mutex mutex_;
  std::shared_ptr<const Told> told_;  // guarded by mutex_; null: nothing yet
};

}  // namespace dsm::server

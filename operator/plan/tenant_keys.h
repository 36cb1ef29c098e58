// Which API keys a leader is to know, as the message that tells it. A key itself never gets here:
// the runtime reads it from a Secret and keeps its SHA-256. What a leader is told is
// HMAC(hash salt, SHA-256 of the key), so that the message of one model opens no other, and a salt
// for its prefix cache. Both salts come from the model's internal token, which only the operator
// and the model's pods know: the message is the same as long as nothing changed, and no secret more
// has to be kept. Pure values.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "operator/plan/tenancy.h"

namespace dsm::plan {

// The API keys of one namespace.
struct ApiKeys {
  std::map<std::string, std::string> hashes;  // name of the entry -> SHA-256 of its key, in hex
  std::vector<std::string> mistakes;          // sentences about entries that open nothing

  bool operator==(const ApiKeys&) const = default;
};

inline constexpr std::size_t kShortestKey = 16;
inline constexpr std::size_t kLongestKey = 256;
inline constexpr std::size_t kMostKeys = 1000;

// From the Secret's decoded entries; white space around a key is not a part of it.
ApiKeys api_keys(const std::string& ns, const std::map<std::string, std::string>& entries);

// A leader reports as "keys": "" when it was told nothing and answers everybody, kKeysAwaited when
// it was told nothing and answers nobody, else the digest of what it was told last.
inline constexpr std::string_view kKeysAwaited = "awaited";

struct KeyMessage {
  std::string digest;  // what a leader reports that was told it
  std::string body;    // of PUT /internal/keys
};

// `tenant` null: the leader answers everybody. `keys` null: there is no Secret.
KeyMessage key_message(const TenantView* tenant, const ApiKeys* keys, const std::string& token);

// Whether a leader that reports `reported` has to be told.
bool must_be_told(const KeyMessage& message, const std::string& reported);

}  // namespace dsm::plan

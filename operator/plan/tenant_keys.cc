#include "operator/plan/tenant_keys.h"

#include <nlohmann/json.hpp>

#include "base/random.h"
#include "operator/api/names.h"

namespace dsm::plan {
namespace {

using nlohmann::json;

constexpr const char* kOpen = "open";

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const auto first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

}  // namespace

ApiKeys api_keys(const std::string& ns, const std::map<std::string, std::string>& entries) {
  ApiKeys keys;
  const auto mistake = [&](const std::string& name, const std::string& what) {
    keys.mistakes.push_back("Secret " + ns + "/" + std::string(api::kApiKeysSecret) + ": entry " +
                            name + " opens nothing: " + what);
  };
  for (const auto& [name, entry] : entries) {
    const std::string_view key = trimmed(entry);
    if (keys.hashes.size() == kMostKeys) {
      mistake(name, "a Secret has room for " + std::to_string(kMostKeys) + " keys");
      break;
    }
    if (key.size() < kShortestKey || key.size() > kLongestKey) {
      mistake(name, "a key has " + std::to_string(kShortestKey) + " to " +
                        std::to_string(kLongestKey) +
                        " characters, for example `openssl rand -hex 24`");
    } else {
      keys.hashes[name] = sha256_hex(key);
    }
  }
  return keys;
}

KeyMessage key_message(const TenantView* tenant, const ApiKeys* keys, const std::string& token) {
  if (tenant == nullptr) {
    const json body = {{"digest", kOpen}, {"required", false}};
    return {kOpen, body.dump()};
  }
  const std::string hash_salt = hmac_sha256_hex(token, "key hashes of " + tenant->uid);
  // Where the spec cannot be read, the wall stands.
  const bool required = !tenant->spec || tenant->spec->keys_required;
  json body = {{"required", required},
               {"hashSalt", hash_salt},
               {"cacheSalt", hmac_sha256_hex(token, "prefix cache of " + tenant->uid)},
               {"keys", json::array()}};
  if (required && keys != nullptr) {
    for (const auto& [name, hash] : keys->hashes) {
      body["keys"].push_back(hmac_sha256_hex(hash_salt, hash));
    }
  }
  std::string digest = sha256_hex(body.dump()).substr(0, 16);
  body["digest"] = digest;
  return {std::move(digest), body.dump()};
}

bool must_be_told(const KeyMessage& message, const std::string& reported) {
  if (message.digest == kOpen && reported.empty()) return false;  // it answers everybody
  return message.digest != reported;
}

}  // namespace dsm::plan

#include "worker/server/key_ring.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/random.h"

namespace dsm::server {
namespace {

using nlohmann::json;

constexpr std::size_t kHashDigits = 64;
constexpr std::size_t kLongestKey = 256;
constexpr std::size_t kMostKeys = 1000;

bool is_hex(const std::string& text, std::size_t digits) {
  return text.size() == digits && std::ranges::all_of(text, [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

std::string text(const json& from, const char* name) {
  const auto found = from.find(name);
  return found != from.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::string_view key_of(const http::Request& request) {
  constexpr std::string_view kBearer = "Bearer ";
  const std::string_view given = request.header("authorization");
  return given.starts_with(kBearer) ? given.substr(kBearer.size()) : request.header("x-api-key");
}

ApiError no_entry(std::string message) {
  return {.status = 401,
          .message = std::move(message),
          .param = "",
          .code = "invalid_api_key",
          .retry_after_s = 0};
}

}  // namespace

Status KeyRing::tell(std::string_view body) {
  const json message = json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (!message.is_object()) return fail(ErrorKind::kInvalid, "the body is not a JSON object");
  const auto required = message.find("required");
  if (required == message.end() || !required->is_boolean()) {
    return fail(ErrorKind::kInvalid, "'required' must be true or false");
  }
  Told told;
  told.digest = text(message, "digest");
  told.required = required->get<bool>();
  told.hash_salt = text(message, "hashSalt");
  told.cache_salt = text(message, "cacheSalt");
  if (told.digest.empty() || told.digest.size() > 64) {
    return fail(ErrorKind::kInvalid, "'digest' must be a text of at most 64 characters");
  }
  if (told.required && told.hash_salt.empty()) {
    return fail(ErrorKind::kInvalid, "'hashSalt' is missing");
  }
  const json keys = message.value("keys", json::array());
  if (!keys.is_array() || keys.size() > kMostKeys) {
    return fail(ErrorKind::kInvalid,
                "'keys' must be a list of at most " + std::to_string(kMostKeys) + " keys");
  }
  for (const json& key : keys) {
    std::string hash = key.is_string() ? key.get<std::string>() : std::string();
    if (!is_hex(hash, kHashDigits)) {
      return fail(ErrorKind::kInvalid, "an entry of 'keys' must have 64 hexadecimal digits");
    }
    told.hashes.push_back(std::move(hash));
  }
  auto next = std::make_shared<const Told>(std::move(told));
  const std::lock_guard lock(mutex_);
  told_ = std::move(next);
  return {};
}

std::shared_ptr<const KeyRing::Told> KeyRing::current() const {
  const std::lock_guard lock(mutex_);
  return told_;
}

bool KeyRing::awaited() const {
  return waits_ && current() == nullptr;
}

std::string KeyRing::told() const {
  const auto now = current();
  if (now) return now->digest;
  return waits_ ? "awaited" : "";
}

Parsed<std::string> KeyRing::admit(const http::Request& request) const {
  const auto now = current();
  if (!now && waits_) {
    return std::unexpected(unavailable("the model has not been told its API keys yet", 1));
  }
  if (!now) return std::string();
  if (!now->required) return now->cache_salt;
  const std::string_view given = key_of(request);
  if (given.empty()) {
    return std::unexpected(
        no_entry("an API key is needed: send it as 'Authorization: Bearer <key>'"));
  }
  // Longer than any key: not worth a hash.
  if (given.size() > kLongestKey) return std::unexpected(no_entry("the API key is not valid"));
  const std::string hash = hmac_sha256_hex(now->hash_salt, sha256_hex(given));
  // Every hash is compared, to its end, so that the time says nothing about them.
  bool known = false;
  for (const std::string& one : now->hashes) {
    known = CRYPTO_memcmp(one.data(), hash.data(), kHashDigits) == 0 || known;
  }
  if (!known) return std::unexpected(no_entry("the API key is not valid"));
  return now->cache_salt;
}

}  // namespace dsm::server

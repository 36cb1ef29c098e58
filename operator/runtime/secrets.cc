#include "operator/runtime/secrets.h"

#include "kube/config.h"
#include "kube/parse.h"
#include "operator/api/names.h"

namespace dsm::runtime {

Secrets::Entry Secrets::entry_of(kube::Json object, TimePoint read) {
  Entry entry;
  entry.object = std::move(object);
  entry.read = read;
  const std::string token = kube::text_of(kube::member(entry.object, "data"), api::kTokenKey);
  entry.token = kube::base64_decode(token).value_or("");
  entry.object.erase("data");
  entry.object.erase("stringData");
  return entry;
}

Secrets::Kept Secrets::keep(const Entry& entry) {
  return {KeptPacked::keep(entry.object), entry.token, entry.read};
}

Secrets::Entry Secrets::open(const Kept& kept) {
  return {std::move(*KeptPacked::open(kept.object)), kept.token, kept.read};
}

Result<Secrets::Entry> Secrets::of_model(const std::string& model) {
  const TimePoint now = client_.clock().now();
  std::optional<Kept> kept;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = entries_.find(model); found != entries_.end()) kept = found->second;
  }
  std::optional<Entry> known;
  if (kept) known = open(*kept);
  // One that was not there is looked for each time: another replica is about to make it.
  if (known && !known->object.is_null() && now - known->read < kKept) return *known;

  const auto slash = model.find('/');
  const kube::ApiResult<kube::Json> read = client_.get(kube::kSecrets, model.substr(0, slash),
                                                       api::token_secret(model.substr(slash + 1)));
  if (!read && read.error().kind != ErrorKind::kNotFound) {
    if (known) return *known;
    return std::unexpected<Error>(read.error());
  }
  Entry entry;
  entry.read = now;
  if (read) entry = entry_of(*read, now);
  Kept fresh = keep(entry);
  const std::lock_guard lock(mutex_);
  entries_[model] = std::move(fresh);
  return entry;
}

void Secrets::put(const std::string& model, kube::Json object) {
  Kept fresh = keep(entry_of(std::move(object), client_.clock().now()));
  const std::lock_guard lock(mutex_);
  entries_[model] = std::move(fresh);
}

void Secrets::forget(const std::string& model) {
  const std::lock_guard lock(mutex_);
  entries_.erase(model);
}

}  // namespace dsm::runtime

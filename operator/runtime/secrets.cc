#include "operator/runtime/secrets.h"

#include "kube/config.h"
#include "operator/api/names.h"

namespace dsm::runtime {

Secrets::Entry Secrets::entry_of(const kube::Json& object, TimePoint read) {
  Entry entry;
  entry.object = object;
  entry.read = read;
  const kube::Json data = object.value("data", kube::Json::object());
  if (const auto token = data.find(api::kTokenKey); token != data.end() && token->is_string()) {
    entry.token = kube::base64_decode(token->get<std::string>()).value_or("");
  }
  entry.object.erase("data");
  entry.object.erase("stringData");
  if (entry.object.contains("metadata")) entry.object["metadata"].erase("managedFields");
  return entry;
}

Result<Secrets::Entry> Secrets::of_model(const std::string& model) {
  const TimePoint now = client_.clock().now();
  std::optional<Entry> known;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = entries_.find(model); found != entries_.end()) known = found->second;
  }
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
  const std::lock_guard lock(mutex_);
  entries_[model] = entry;
  return entry;
}

void Secrets::put(const std::string& model, const kube::Json& object) {
  Entry entry = entry_of(object, client_.clock().now());
  const std::lock_guard lock(mutex_);
  entries_[model] = std::move(entry);
}

void Secrets::forget(const std::string& model) {
  const std::lock_guard lock(mutex_);
  entries_.erase(model);
}

}  // namespace dsm::runtime

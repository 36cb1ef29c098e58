#include "kube/events.h"

#include <algorithm>

#include "base/random.h"

namespace dsm::kube {
namespace {

constexpr double kBucket = 25;
constexpr auto kRefill = std::chrono::minutes(5);       // one note
constexpr auto kSeriesEnds = std::chrono::minutes(10);  // after its last note
constexpr auto kSeriesPause = std::chrono::minutes(1);  // between writes of one series
constexpr std::size_t kLongestNote = 1024;
constexpr std::size_t kTidyAt = 512;  // entries, at least

// Cut at a whole UTF-8 character.
std::string cut(std::string text) {
  if (text.size() <= kLongestNote) return text;
  std::size_t end = kLongestNote;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  text.resize(end);
  return text;
}

}  // namespace

bool EventLedger::take(const std::string& uid, TimePoint now) {
  const auto [at, fresh] = buckets_.try_emplace(uid, Bucket{kBucket, now});
  Bucket& bucket = at->second;
  bucket.tokens =
      std::min(kBucket, bucket.tokens + std::chrono::duration<double>(now - bucket.filled) /
                                            std::chrono::duration<double>(kRefill));
  bucket.filled = now;
  if (bucket.tokens < 1) return false;
  bucket.tokens -= 1;
  return true;
}

void EventLedger::forget_old(TimePoint now) {
  if (series_.size() + buckets_.size() < std::max(kTidyAt, 2 * kept_)) return;
  std::erase_if(series_, [&](const auto& entry) { return now - entry.second.last > kSeriesEnds; });
  std::erase_if(buckets_, [&](const auto& entry) {
    return now - entry.second.filled > kRefill * static_cast<int>(kBucket);
  });
  kept_ = series_.size() + buckets_.size();
}

std::optional<EventLedger::Entry> EventLedger::record(const std::string& regarding_name,
                                                      const std::string& regarding_uid,
                                                      const EventNote& note, TimePoint now) {
  forget_old(now);
  const std::string key = regarding_uid + '\n' + note.reason + '\n' + note.action + '\n' +
                          (note.warning ? 'w' : 'n') + note.note;
  const auto known = series_.find(key);
  if (known != series_.end() && now - known->second.last <= kSeriesEnds) {
    Series& series = known->second;
    ++series.count;
    series.last = now;
    if (now - series.written < kSeriesPause || !take(regarding_uid, now)) return std::nullopt;
    series.written = now;
    return Entry{series.name, series.count};
  }
  if (!take(regarding_uid, now)) return std::nullopt;
  const Series series{regarding_name + "." + random_hex(8), 1, now, now};
  series_[key] = series;
  return Entry{series.name, 1};
}

EventRecorder::EventRecorder(Client& client, std::string controller, std::string instance,
                             Logger log)
    : client_(client),
      controller_(std::move(controller)),
      instance_(std::move(instance)),
      log_(std::move(log)) {}

void EventRecorder::record(const Json& object, const EventNote& note) {
  const Json metadata = object.value("metadata", Json::object());
  const std::string name = metadata.value("name", std::string());
  const std::string uid = metadata.value("uid", std::string());
  // Events about a cluster-scoped object live in the default namespace.
  const std::string ns = metadata.value("namespace", std::string("default"));
  std::optional<EventLedger::Entry> entry;
  {
    const std::lock_guard lock(mutex_);
    entry = ledger_.record(name, uid, note, client_.clock().now());
  }
  if (!entry) return;
  const std::string time = to_rfc3339_micro(client_.clock().wall_now());
  const ApiResult<Json> written =
      entry->count > 1
          ? client_.merge_patch(kEvents, ns, entry->name,
                                {{"series", {{"count", entry->count}, {"lastObservedTime", time}}}})
          : client_.create(kEvents, ns,
                           {{"apiVersion", kEvents.api_version()},
                            {"kind", kEvents.kind},
                            {"metadata", {{"name", entry->name}, {"namespace", ns}}},
                            {"eventTime", time},
                            {"reportingController", controller_},
                            {"reportingInstance", instance_},
                            {"type", note.warning ? "Warning" : "Normal"},
                            {"reason", note.reason},
                            {"action", note.action},
                            {"note", cut(note.note)},
                            {"regarding",
                             {{"apiVersion", object.value("apiVersion", "")},
                              {"kind", object.value("kind", "")},
                              {"namespace", metadata.value("namespace", std::string())},
                              {"name", name},
                              {"uid", uid}}}});
  if (!written) log_.debug("event not written", {{"error", written.error().message}});
}

}  // namespace dsm::kube

#include "worker/server/worker_status.h"

#include <cmath>
#include <nlohmann/json.hpp>

namespace dsm::server {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kProbing = "Probing";
constexpr const char* kProbingMessage = "the ranks have met and answer the probe";
constexpr const char* kFallingAsleep = "FallingAsleep";
constexpr const char* kFallingAsleepMessage = "requests in work are ended before the ranks sleep";
constexpr const char* kDeviceDegraded = "DeviceDegraded";

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

template <typename T>
void add(Json& json, const char* name, const std::optional<T>& value) {
  if (value) json[name] = *value;
}

// What the device does not tell is left out.
void add_signs(Json& json, const health::Signs& signs) {
  add(json, "smClockMHz", signs.sm_clock_mhz);
  add(json, "memoryClockMHz", signs.memory_clock_mhz);
  if (signs.throttle) {
    Json& reasons = json["throttled"] = Json::array();
    for (const auto& [bit, name] : health::throttle_reasons()) {
      if ((*signs.throttle & bit) != 0) reasons.push_back(name);
    }
  }
  add(json, "eccCorrected", signs.ecc_corrected);
  add(json, "eccUncorrected", signs.ecc_uncorrected);
  if (signs.rows) {
    json["remappedRows"] = {{"corrected", signs.rows->corrected},
                            {"uncorrected", signs.rows->uncorrected},
                            {"pending", signs.rows->pending},
                            {"failed", signs.rows->failed}};
  }
  add(json, "nvlinksUp", signs.links);
  add(json, "nvlinkErrors", signs.link_errors);
}

Json device_json(const health::DeviceHealth& device) {
  Json json = {{"name", device.device},
               {"health", health::to_string(device.level)},
               {"message", device.message},
               {"problems", device.problems},
               {"utilisationPercent", device.utilisation_percent},
               {"temperatureCelsius", device.temperature_celsius},
               {"powerWatts", device.power_watts},
               {"memoryUsedBytes", device.memory_used},
               {"memoryTotalBytes", device.memory_total},
               {"memoryAllocatedBytes", device.memory_allocated},
               {"memoryFragmentedBytes", device.memory_fragmented}};
  add_signs(json, device.signs);
  json["xids"] = device.xids;
  return json;
}

Json rank_json(const RankView& rank) {
  Json json = {{"rank", rank.rank},
               {"phase", rank.phase},
               {"loadedBytes", rank.loaded_bytes},
               {"totalBytes", rank.total_bytes},
               {"error", rank.error}};
  if (rank.device.level != health::Level::kUnknown) json["device"] = device_json(rank.device);
  return json;
}

// The first of the ranks whose device a person should look at, while all of them compute; empty:
// there is none, or something else is to be told first.
std::string degraded_device(const WorkerView& view) {
  if (view.phase() != "Ready") return "";
  for (const RankView& rank : view.group.ranks) {
    if (rank.device.level != health::Level::kDegraded) continue;
    return "rank " + std::to_string(rank.rank) + ": " + rank.device.message;
  }
  return "";
}

}  // namespace

bool WorkerView::falls_asleep() const {
  return sleeps && leader && group.phase == "Ready";
}

bool WorkerView::probing() const {
  return !falls_asleep() && group.phase == "Ready" && leader && !(engine && engine->serving);
}

std::string WorkerView::phase() const {
  if (probing() && !draining) return "Rendezvous";
  if (falls_asleep() && !draining) return "Asleep";
  return draining && group.phase != "Failed" ? "Draining" : group.phase;
}

Health startup_health(const WorkerView& view) {
  return {view.group.loaded, view.group.reason, view.group.message};
}

Health ready_health(const WorkerView& view) {
  if (view.draining) return {false, "Draining", "the worker is shutting down"};
  if (view.probing()) return {false, kProbing, kProbingMessage};
  if (view.falls_asleep()) return {false, kFallingAsleep, kFallingAsleepMessage};
  return {view.group.phase == "Ready", view.group.reason, view.group.message};
}

Health live_health(const WorkerView& view) {
  if (view.engine_stuck) return {false, "EngineStuck", "the engine's loop does not move"};
  return {view.group.live, view.group.reason, view.group.message};
}

http::Response health_response(const Health& health) {
  http::Response response;
  response.status = health.good ? 200 : 503;
  response.body = dump(Json{{"status", health.good ? "ok" : "unavailable"},
                            {"reason", health.reason},
                            {"message", health.message}});
  return response;
}

std::string status_json(const WorkerView& view, const Identity& identity) {
  const engine::EngineStats stats = view.engine.value_or(engine::EngineStats());
  std::uint64_t loaded = 0;
  std::uint64_t total = 0;
  Json ranks = Json::array();
  for (const RankView& rank : view.group.ranks) {
    loaded += rank.loaded_bytes;
    total += rank.total_bytes;
    ranks.push_back(rank_json(rank));
  }
  const std::string& error =
      view.group.last_error.empty() ? stats.last_error : view.group.last_error;
  const std::string degraded = degraded_device(view);
  const Json json = {{"phase", view.phase()},
                     {"reason", view.draining         ? "Draining"
                                : view.probing()      ? kProbing
                                : view.falls_asleep() ? kFallingAsleep
                                : !degraded.empty()   ? kDeviceDegraded
                                                      : view.group.reason},
                     {"message", view.probing()        ? kProbingMessage
                                 : view.falls_asleep() ? kFallingAsleepMessage
                                 : !degraded.empty()   ? degraded
                                                       : view.group.message},
                     {"model", identity.model},
                     {"namespace", identity.ns},
                     {"revision", identity.revision},
                     {"group", identity.group},
                     {"pod", identity.pod},
                     {"epoch", view.group.epoch},
                     {"loadedBytes", loaded},
                     {"totalBytes", total},
                     {"queueDepth", stats.waiting},
                     {"queueAgeSeconds", view.queue_age_s},
                     {"running", stats.running},
                     {"kvUsed", stats.kv_blocks_used * engine::kBlockTokens},
                     {"kvEmpty", stats.kv_slots_empty},
                     {"kvTotal", stats.kv_blocks_total * engine::kBlockTokens},
                     {"tokensPerSecond", std::round(view.tokens_per_second * 10) / 10},
                     {"maxModelLen", view.max_model_len},
                     {"keys", view.keys},
                     {"sleep", view.sleeps},
                     {"lastError", error},
                     {"ranks", std::move(ranks)}};
  return dump(json);
}

std::string with_time(const std::string& status_json, WallTime time) {
  // The object's closing brace makes room for one more field.
  return status_json.substr(0, status_json.size() - 1) + ",\"time\":\"" + to_rfc3339(time) + "\"}";
}

}  // namespace dsm::server

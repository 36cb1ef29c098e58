#include "operator/api/status.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "operator/api/reasons.h"

namespace dsm::api {
namespace {

using nlohmann::json;

template <typename T>
void read(const json& from, const char* name, T& out) {
  const auto it = from.find(name);
  if (it == from.end()) return;
  if constexpr (std::is_same_v<T, std::string>) {
    if (it->is_string()) out = it->get<std::string>();
  } else if constexpr (std::is_same_v<T, bool>) {
    if (it->is_boolean()) out = it->get<bool>();
  } else {
    if (it->is_number_integer()) out = it->get<T>();
  }
}

// The list under `name`, or an empty one.
const json& items(const json& from, const char* name) {
  static const json kEmpty = json::array();
  const auto it = from.find(name);
  return it != from.end() && it->is_array() ? *it : kEmpty;
}

// The texts under `name`; what is none is left out.
std::vector<std::string> texts(const json& from, const char* name) {
  std::vector<std::string> out;
  for (const auto& entry : items(from, name)) {
    if (entry.is_string()) out.push_back(entry.get<std::string>());
  }
  return out;
}

DeviceStatus parse_device(const json& from) {
  DeviceStatus d;
  read(from, "rank", d.rank);
  read(from, "name", d.name);
  read(from, "node", d.node);
  read(from, "health", d.health);
  d.problems = texts(from, "problems");
  return d;
}

json group_json(const GroupStatus& g) {
  json out = {{"name", g.name},
              {"revision", g.revision},
              {"phase", g.phase},
              {"loadedBytes", g.loaded_bytes},
              {"totalBytes", g.total_bytes},
              {"restarts", g.restarts},
              {"recentRestarts", g.recent_restarts},
              {"served", g.served}};
  if (!g.reason.empty()) out["reason"] = g.reason;
  if (!g.message.empty()) out["message"] = g.message;
  if (!g.nodes.empty()) out["nodes"] = g.nodes;
  for (const auto& device : g.devices) out["devices"].push_back(to_json(device));
  return out;
}

GroupStatus parse_group(const json& from) {
  GroupStatus g;
  read(from, "name", g.name);
  read(from, "revision", g.revision);
  read(from, "phase", g.phase);
  read(from, "reason", g.reason);
  read(from, "message", g.message);
  read(from, "loadedBytes", g.loaded_bytes);
  read(from, "totalBytes", g.total_bytes);
  read(from, "restarts", g.restarts);
  read(from, "recentRestarts", g.recent_restarts);
  read(from, "served", g.served);
  g.nodes = texts(from, "nodes");
  for (const auto& device : items(from, "devices")) {
    if (device.is_object()) g.devices.push_back(parse_device(device));
  }
  return g;
}

Truth parse_truth(const std::string& text) {
  if (text == "True") return Truth::kTrue;
  return text == "False" ? Truth::kFalse : Truth::kUnknown;
}

void collect_paths(const json& value, const std::string& prefix, std::vector<std::string>& out) {
  for (const auto& [key, entry] : value.items()) {
    const std::string path = prefix + key;
    if (entry.is_object()) {
      collect_paths(entry, path + ".", out);
    } else if (entry.is_array() && !entry.empty() && entry.front().is_object()) {
      collect_paths(entry.front(), path + "[].", out);
    } else {
      out.push_back(entry.is_array() ? path + "[]" : path);
    }
  }
}

}  // namespace

std::string_view to_string(Truth truth) {
  constexpr std::array<std::string_view, 3> kNames = {"Unknown", "False", "True"};
  return kNames[static_cast<std::size_t>(truth)];
}

json to_json(const DeviceStatus& d) {
  json out = {{"rank", d.rank}, {"name", d.name}, {"health", d.health}};
  if (!d.node.empty()) out["node"] = d.node;
  if (!d.problems.empty()) out["problems"] = d.problems;
  return out;
}

json to_json(const Condition& c) {
  return {{"type", c.type},
          {"status", to_string(c.status)},
          {"observedGeneration", c.observed_generation},
          {"lastTransitionTime", c.last_transition},
          {"reason", c.reason},
          {"message", c.message}};
}

Condition parse_condition(const json& from) {
  Condition c;
  std::string truth;
  read(from, "type", c.type);
  read(from, "status", truth);
  read(from, "observedGeneration", c.observed_generation);
  read(from, "lastTransitionTime", c.last_transition);
  read(from, "reason", c.reason);
  read(from, "message", c.message);
  c.status = parse_truth(truth);
  return c;
}

json to_json(const ModelStatus& s) {
  json out = {{"observedGeneration", s.observed_generation},
              {"replicas", s.replicas},
              {"readyReplicas", s.ready_replicas},
              {"updatedReplicas", s.updated_replicas},
              {"ready", s.ready},
              {"selector", s.selector},
              {"queueDepth", s.queue_depth},
              {"currentRevision", s.current_revision},
              {"updatedRevision", s.updated_revision},
              {"endpoint", s.endpoint},
              {"capacity",
               {{"maxContext", s.capacity.max_context},
                {"kvTokens", s.capacity.kv_tokens},
                {"tokensPerSecond", s.capacity.tokens_per_second}}},
              {"groups", json::array()},
              {"conditions", json::array()}};
  if (s.cold_start_seconds > 0) out["coldStartSeconds"] = s.cold_start_seconds;
  for (const auto& group : s.groups) out["groups"].push_back(group_json(group));
  for (const auto& condition : s.conditions) {
    out["conditions"].push_back(to_json(condition));
  }
  if (s.backoff) {
    out["backoff"] = {{"reason", s.backoff->reason},
                      {"count", s.backoff->count},
                      {"until", s.backoff->until},
                      {"message", s.backoff->message}};
  }
  if (s.rollback) {
    out["rollback"] = {{"request", s.rollback->request},
                       {"from", s.rollback->from},
                       {"active", s.rollback->active},
                       {"message", s.rollback->message}};
    if (!s.rollback->to.empty()) out["rollback"]["to"] = s.rollback->to;
  }
  for (const auto& node : s.avoided_nodes) {
    out["avoidedNodes"].push_back({{"name", node.name}, {"until", node.until}});
  }
  return out;
}

ModelStatus parse_status(const json& from) {
  ModelStatus s;
  if (!from.is_object()) return s;
  read(from, "observedGeneration", s.observed_generation);
  read(from, "replicas", s.replicas);
  read(from, "readyReplicas", s.ready_replicas);
  read(from, "updatedReplicas", s.updated_replicas);
  read(from, "ready", s.ready);
  read(from, "selector", s.selector);
  read(from, "queueDepth", s.queue_depth);
  read(from, "currentRevision", s.current_revision);
  read(from, "updatedRevision", s.updated_revision);
  read(from, "endpoint", s.endpoint);
  if (const auto it = from.find("capacity"); it != from.end() && it->is_object()) {
    read(*it, "maxContext", s.capacity.max_context);
    read(*it, "kvTokens", s.capacity.kv_tokens);
    read(*it, "tokensPerSecond", s.capacity.tokens_per_second);
  }
  read(from, "coldStartSeconds", s.cold_start_seconds);
  if (const auto it = from.find("backoff"); it != from.end() && it->is_object()) {
    s.backoff.emplace();
    read(*it, "reason", s.backoff->reason);
    read(*it, "count", s.backoff->count);
    read(*it, "until", s.backoff->until);
    read(*it, "message", s.backoff->message);
  }
  if (const auto it = from.find("rollback"); it != from.end() && it->is_object()) {
    s.rollback.emplace();
    read(*it, "request", s.rollback->request);
    read(*it, "from", s.rollback->from);
    read(*it, "to", s.rollback->to);
    read(*it, "active", s.rollback->active);
    read(*it, "message", s.rollback->message);
  }
  for (const auto& entry : items(from, "avoidedNodes")) {
    if (!entry.is_object()) continue;
    AvoidedNode& node = s.avoided_nodes.emplace_back();
    read(entry, "name", node.name);
    read(entry, "until", node.until);
  }
  for (const auto& group : items(from, "groups")) {
    if (group.is_object()) s.groups.push_back(parse_group(group));
  }
  for (const auto& condition : items(from, "conditions")) {
    if (condition.is_object()) s.conditions.push_back(parse_condition(condition));
  }
  return s;
}

const Condition* find_condition(const ModelStatus& status, std::string_view type) {
  const auto it = std::ranges::find(status.conditions, type, &Condition::type);
  return it == status.conditions.end() ? nullptr : &*it;
}

void set_condition(std::vector<Condition>& conditions, Condition next, WallTime now) {
  const auto it = std::ranges::find(conditions, next.type, &Condition::type);
  if (it == conditions.end()) {
    next.last_transition = to_rfc3339(now);
    conditions.push_back(std::move(next));
    return;
  }
  const bool same = it->status == next.status && !it->last_transition.empty();
  next.last_transition = same ? it->last_transition : to_rfc3339(now);
  *it = std::move(next);
}

void set_condition(ModelStatus& status, Condition next, WallTime now) {
  set_condition(status.conditions, std::move(next), now);
}

bool same_but_numbers(const ModelStatus& a, const ModelStatus& b) {
  const auto without = [](ModelStatus s) {
    s.queue_depth = 0;
    s.capacity.tokens_per_second = 0;
    for (auto& group : s.groups) {
      group.loaded_bytes = 0;
      if (group.reason == kLoadingWeights) group.message.clear();
    }
    for (auto& condition : s.conditions) {
      if (condition.reason == kLoadingWeights) condition.message.clear();
    }
    return to_json(s);
  };
  return without(a) == without(b);
}

bool same_but_progress(const ModelStatus& a, const ModelStatus& b) {
  const auto without = [](ModelStatus s) {
    s.queue_depth = 0;
    s.ready_replicas = 0;
    s.ready.clear();
    s.capacity = {};
    for (auto& group : s.groups) {
      GroupStatus kept;
      kept.name = group.name;
      kept.revision = group.revision;
      kept.restarts = group.restarts;
      kept.recent_restarts = group.recent_restarts;
      group = kept;
    }
    for (auto& condition : s.conditions) {
      condition.reason.clear();
      condition.message.clear();
    }
    return to_json(s);
  };
  return without(a) == without(b);
}

std::vector<std::string> status_field_paths() {
  ModelStatus full;
  GroupStatus group;
  group.reason = "r";
  group.message = "m";
  group.nodes = {"n"};
  group.devices = {{.rank = 1, .name = "d", .node = "n", .health = "h", .problems = {"p"}}};
  full.groups.push_back(std::move(group));
  full.conditions.emplace_back();
  full.cold_start_seconds = 1;
  full.rollback.emplace().to = "r";
  full.backoff.emplace();
  full.avoided_nodes.emplace_back();
  std::vector<std::string> paths;
  collect_paths(to_json(full), "", paths);
  return paths;
}

}  // namespace dsm::api

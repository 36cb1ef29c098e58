// What a worker says of itself: to the kubelet as three health answers, to the operator as a line
// of the status stream. Plain values and pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/http/message.h"
#include "worker/engine/engine.h"
#include "worker/health/device_health.h"

namespace dsm::server {

// Who the worker is; echoed, so that the operator can tell a stream of an old pod from a new one's.
struct Identity {
  std::string model;
  std::string ns;
  std::string group;
  std::string revision;
  std::string pod;
};

struct RankView {
  int rank = 0;
  std::string phase;
  std::uint64_t loaded_bytes = 0;
  std::uint64_t total_bytes = 0;
  std::string error;
  health::DeviceHealth device = {};
};

// The group as this process sees it; the server room does not know how groups work.
struct GroupView {
  std::string phase = "Starting";  // Starting, Rendezvous, Loading, Ready, Asleep, Failed
  std::string reason = "Starting";
  std::string message = "the worker is starting";
  std::uint64_t epoch = 0;
  bool loaded = false;  // this process has its weights
  bool live = true;     // false: only a restart helps
  std::vector<RankView> ranks;
  std::string last_error;
};

struct WorkerView {
  GroupView group;
  bool leader = false;
  bool draining = false;
  bool sleeps = false;                        // it is told to
  bool engine_stuck = false;                  // its loop has not made a round for long
  std::optional<engine::EngineStats> engine;  // of a leader whose engine runs
  int max_model_len = 0;
  long queue_age_s = 0;          // of the oldest request that waits
  double tokens_per_second = 0;  // generated, over the last seconds
  std::string keys;              // KeyRing::told()

  // It is told to sleep, and the engine ends its requests first.
  bool falls_asleep() const;
  // The ranks have met, and the engine of this leader has not taken them over yet.
  bool probing() const;
  // What the status stream calls the phase: draining hides Ready, nothing else.
  std::string phase() const;
};

struct Health {
  bool good = false;
  std::string reason;
  std::string message;
};
Health startup_health(const WorkerView& view);
Health ready_health(const WorkerView& view);
Health live_health(const WorkerView& view);
// 200 or 503 with {"status", "reason", "message"}.
http::Response health_response(const Health& health);

// A line of the status stream without its time, so that two can be compared; and with it.
std::string status_json(const WorkerView& view, const Identity& identity);
std::string with_time(const std::string& status_json, WallTime time);

}  // namespace dsm::server

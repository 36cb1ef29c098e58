// The two HTTP servers of a worker process: the public port (health and metrics on every process,
// the APIs on the leader) and, when there is a token, the internal one (status stream, API keys,
// sleep, drain). It serves health from start() on, while weights are still being loaded; what does
// not exist yet is attached later. Thread-safe.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/http/server.h"
#include "base/log.h"
#include "base/metrics.h"
#include "worker/server/api.h"
#include "worker/server/drain.h"
#include "worker/server/http_metrics.h"
#include "worker/server/key_ring.h"
#include "worker/server/status_stream.h"
#include "worker/server/worker_status.h"

namespace dsm::server {

struct WorkerServerOptions {
  std::string host = "0.0.0.0";
  std::uint16_t port = 8000;
  std::uint16_t internal_port = 8001;
  std::string internal_token_file;  // empty: no internal port
  bool leader = true;
  bool await_keys = false;  // a leader answers nobody until it was told its API keys
  bool can_sleep = true;    // its device can leave its memory to others
  int threads = 2;
  int max_model_len = 0;       // for the status; the API has its own from the model
  Millis stuck_after{60'000};  // an engine loop silent for so long is not live
  Identity identity;
  std::string version;
};

class WorkerServer {
 public:
  // `registry`, `drain` and `clock` outlive this. Sets drain's on_begin.
  WorkerServer(WorkerServerOptions options, MetricsRegistry& registry, Drain& drain, Clock& clock,
               Logger log);
  ~WorkerServer();  // stop()
  WorkerServer(const WorkerServer&) = delete;
  WorkerServer& operator=(const WorkerServer&) = delete;

  Status start();  // an error names the address that is taken, or the token file
  std::uint16_t port() const;
  std::uint16_t internal_port() const;  // 0: none

  // The group's state, asked whenever somebody wants to know. Callable until stop() has returned.
  void watch_group(std::function<GroupView()> look);
  // The leader's engine and API. They live until stop() has returned.
  void serve(Api& api, engine::Engine& engine, WorkerMetrics& metrics);

  WorkerView view() const;
  // The Api while requests are taken, else null. It lives until stop() has returned.
  Api* open_api() const;
  // Method and path of everything on the public port, as openapi.json documents it.
  struct Route {
    std::string method;
    std::string path;
  };
  const std::vector<Route>& routes() const { return routes_; }
  // Ends streams and connections; answers under way get `grace_s` to be sent.
  void stop(int grace_s = 2);

 private:
  struct Attached {
    std::function<GroupView()> group;
    Api* api = nullptr;
    engine::Engine* engine = nullptr;
    WorkerMetrics* metrics = nullptr;
  };
  Attached attached() const;
  void route(const std::string& method, const std::string& path, http::Handler handler);
  void route_async(const std::string& method, const std::string& path, http::AsyncHandler handler);
  void add_public_routes();
  void add_api_routes();
  void add_internal_routes();
  void add_sleep_routes();
  // What the engine is told as soon as there is one; nullopt: to be awake.
  void sleep(std::optional<engine::SleepMode> mode);
  std::optional<http::Response> not_allowed(const http::Request& request) const;
  bool api_open(const Attached& parts) const;
  http::Response not_serving(const http::Request& request) const;
  // Why this request is not answered; nullopt: it may be.
  std::optional<http::Response> refused(const Attached& parts, const http::Request& request) const;
  http::Response metrics_response();

  const WorkerServerOptions options_;
  MetricsRegistry& registry_;
  Drain& drain_;
  Clock& clock_;
  const Logger log_;
  ProcessMetrics process_metrics_;
  HttpMetrics http_metrics_;
  std::vector<Route> routes_;
  KeyRing keys_;
  mutable std::mutex mutex_;
  Attached attached_;
  std::optional<engine::SleepMode> sleep_;  // what was told last; guarded by mutex_
  mutable std::atomic<bool> was_ready_ = false;
  std::unique_ptr<StatusStream> status_;
  std::unique_ptr<http::Server> internal_;
  std::unique_ptr<http::Server> public_;
};

// A token as a file holds it: without the white space around it. kInvalid when there is none.
Result<std::string> read_token(const std::string& path);

}  // namespace dsm::server

// The OpenAI API over one model and one engine: bodies of requests in, Generations out.
// Thread-safe. On the way out: stop(), then the HTTP server's stop(), then the engine is destroyed,
// then this.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/http/server.h"
#include "base/log.h"
#include "worker/engine/engine.h"
#include "worker/server/drain.h"
#include "worker/server/generation.h"
#include "worker/server/metrics.h"
#include "worker/server/outlet.h"
#include "worker/server/served_model.h"
#include "worker/server/spec_builder.h"

namespace dsm::server {

class Api {
 public:
  // All of them outlive the Api.
  Api(const ServedModel& model, engine::Engine& engine, WorkerMetrics& metrics, Drain& drain,
      Clock& clock, Logger log);
  ~Api();  // stop()
  Api(const Api&) = delete;
  Api& operator=(const Api&) = delete;

  // POST /v1/chat/completions and /v1/completions.
  void chat(std::shared_ptr<http::Exchange> exchange);
  void completion(std::shared_ptr<http::Exchange> exchange);
  // GET /v1/models and /v1/models/{name}.
  http::Response models() const;
  http::Response model(const std::string& name) const;

  // Ends what still runs with a 503 and takes nothing more. Afterwards the engine is not used.
  void stop();

 private:
  class Entered;
  Parsed<RequestMeta> meta(const http::Request& request) const;
  Parsed<GenerationSpec> chat_spec(const http::Request& request) const;
  Parsed<GenerationSpec> completion_spec(const http::Request& request) const;
  void run(std::shared_ptr<http::Exchange> exchange,
           Parsed<GenerationSpec> (Api::*make_spec)(const http::Request&) const);
  void refuse(http::Exchange& exchange, const ApiError& error) const;
  void tick(TimePoint now);

  const ServedModel& model_;
  engine::Engine& engine_;
  WorkerMetrics& metrics_;
  Drain& drain_;
  Clock& clock_;
  Logger log_;
  std::mutex mutex_;
  std::vector<std::weak_ptr<Generation>> live_;
  bool stopped_ = false;
  GenerationEnv env_;
  Outlet outlet_;  // last: its thread uses all of the above
};

// The id under which a request is logged and answered: the client's own when it is harmless.
std::string request_id_of(const http::Request& request);

}  // namespace dsm::server

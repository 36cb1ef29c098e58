#include "worker/server/worker_server.h"

#include <openssl/crypto.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "worker/server/openapi.h"
#include "worker/server/sleep_request.h"

namespace dsm::server {
namespace {

constexpr std::size_t kMaxApiBody = 16 << 20;
constexpr std::size_t kMaxInternalBody = 256 << 10;  // a thousand API keys

// In constant time for texts of the same length.
bool same_secret(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

http::Response json_response(const nlohmann::json& body) {
  http::Response response;
  response.body = body.dump();
  return response;
}

}  // namespace

Result<std::string> read_token(const std::string& path) {
  std::ifstream file(path);
  if (!file) return fail(ErrorKind::kInvalid, "cannot read the token file '" + path + "'");
  std::string token((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  constexpr const char* kSpace = " \t\r\n";
  token.erase(0, token.find_first_not_of(kSpace));
  token.erase(token.find_last_not_of(kSpace) + 1);
  if (token.empty()) return fail(ErrorKind::kInvalid, "the token file '" + path + "' is empty");
  return token;
}

WorkerServer::WorkerServer(WorkerServerOptions options, MetricsRegistry& registry, Drain& drain,
                           Clock& clock, Logger log)
    : options_(std::move(options)),
      registry_(registry),
      drain_(drain),
      clock_(clock),
      log_(std::move(log)),
      process_metrics_(registry),
      http_metrics_(registry, clock),
      keys_(options_.leader && options_.await_keys) {
  public_ = std::make_unique<http::Server>(http::ServerOptions{.host = options_.host,
                                                               .port = options_.port,
                                                               .threads = options_.threads,
                                                               .max_body_bytes = kMaxApiBody},
                                           log_);
  public_->error_body([this](int status, const std::string& message) {
    http_metrics_.refused(status);
    return http_error(status, message);
  });
  add_public_routes();
  if (options_.leader) add_api_routes();
  if (!options_.internal_token_file.empty()) {
    status_ = std::make_unique<StatusStream>([this] { return view(); }, options_.identity, clock_);
    internal_ =
        std::make_unique<http::Server>(http::ServerOptions{.host = options_.host,
                                                           .port = options_.internal_port,
                                                           .threads = 1,
                                                           .max_body_bytes = kMaxInternalBody},
                                       log_);
    internal_->error_body(http_error);
    add_internal_routes();
    if (options_.leader) add_sleep_routes();
  }
  drain_.on_begin([this] {
    log_.info("draining");
    public_->close_connections_after_answer(true);
  });
}

WorkerServer::~WorkerServer() {
  stop(0);
}

Status WorkerServer::start() {
  if (internal_) {
    if (auto token = read_token(options_.internal_token_file); !token) {
      return std::unexpected(token.error());
    }
    if (auto started = internal_->start(); !started) return started;
  }
  return public_->start();
}

std::uint16_t WorkerServer::port() const {
  return public_->port();
}

std::uint16_t WorkerServer::internal_port() const {
  return internal_ ? internal_->port() : 0;
}

void WorkerServer::watch_group(std::function<GroupView()> look) {
  const std::lock_guard lock(mutex_);
  attached_.group = std::move(look);
}

void WorkerServer::serve(Api& api, engine::Engine& engine, WorkerMetrics& metrics) {
  api.guard(keys_);
  const std::lock_guard lock(mutex_);
  if (sleep_) engine.sleep(*sleep_);
  attached_.api = &api;
  attached_.engine = &engine;
  attached_.metrics = &metrics;
}

WorkerServer::Attached WorkerServer::attached() const {
  const std::lock_guard lock(mutex_);
  return attached_;
}

WorkerView WorkerServer::view() const {
  const Attached parts = attached();
  WorkerView view;
  if (parts.group) view.group = parts.group();
  view.leader = options_.leader;
  view.keys = keys_.told();
  if (keys_.awaited() && view.group.phase == "Ready") {
    view.group.phase = "Rendezvous";
    view.group.reason = "AwaitingKeys";
    view.group.message = "the group is formed; the operator has yet to tell it the API keys";
  }
  view.draining = drain_.begun();
  {
    const std::lock_guard lock(mutex_);
    view.sleeps = sleep_.has_value();
  }
  view.max_model_len = options_.max_model_len;
  if (parts.engine != nullptr) {
    view.engine = parts.engine->stats();
    view.engine_stuck = clock_.now() - parts.engine->last_round() > options_.stuck_after;
  }
  return view;
}

// Once the model has been served, requests are taken also while lost ranks come back: they wait in
// the queue.
bool WorkerServer::api_open(const Attached& parts) const {
  if (parts.api == nullptr) return false;
  if (!was_ready_) was_ready_ = parts.engine->stats().serving;
  return was_ready_;
}

Api* WorkerServer::open_api() const {
  const Attached parts = attached();
  return api_open(parts) ? parts.api : nullptr;
}

http::Response WorkerServer::not_serving(const http::Request& request) const {
  const WorkerView now = view();
  return refusal(request, request_id_of(request),
                 now.sleeps
                     ? from_engine(engine::asleep(), "")
                     : unavailable("the model is not being served yet: " + now.group.message, 2));
}

std::optional<http::Response> WorkerServer::refused(const Attached& parts,
                                                    const http::Request& request) const {
  if (!api_open(parts)) return not_serving(request);
  const auto admitted = keys_.admit(request);
  if (admitted) return std::nullopt;
  return refusal(request, request_id_of(request), admitted.error());
}

void WorkerServer::route(const std::string& method, const std::string& path,
                         http::Handler handler) {
  routes_.push_back({method, path});
  public_->route(method, path, http_metrics_.counted(method, path, std::move(handler)));
}

void WorkerServer::route_async(const std::string& method, const std::string& path,
                               http::AsyncHandler handler) {
  routes_.push_back({method, path});
  public_->route_async(method, path, http_metrics_.counted_async(method, path, std::move(handler)));
}

void WorkerServer::add_public_routes() {
  const auto ready = [this](const http::Request&) { return health_response(ready_health(view())); };
  route("GET", "/health/startup",
        [this](const http::Request&) { return health_response(startup_health(view())); });
  route("GET", "/health/live",
        [this](const http::Request&) { return health_response(live_health(view())); });
  route("GET", "/health/ready", ready);
  route("GET", "/health", ready);
  route("GET", "/ping", ready);
  route("GET", "/metrics", [this](const http::Request&) { return metrics_response(); });
  route("GET", "/version",
        [this](const http::Request&) { return json_response({{"version", options_.version}}); });
  route("GET", "/load", [this](const http::Request&) {
    return json_response({{"server_load", drain_.in_flight()}});
  });
  route("GET", "/openapi.json", [](const http::Request&) {
    http::Response response;
    response.body = kOpenApi;
    return response;
  });
}

http::Response WorkerServer::metrics_response() {
  process_metrics_.update();
  const Attached parts = attached();
  if (parts.metrics != nullptr) {
    parts.metrics->update(parts.engine->stats());
    parts.metrics->asleep(parts.group && parts.group().reason == "Asleep");
  }
  http::Response response;
  response.content_type = kMetricsContentType;
  response.body = metrics_text(registry_);
  return response;
}

void WorkerServer::add_api_routes() {
  const auto generate = [this](const std::string& path,
                               void (Api::*method)(std::shared_ptr<http::Exchange>)) {
    route_async("POST", path, [this, method](std::shared_ptr<http::Exchange> exchange) {
      const Attached parts = attached();
      if (api_open(parts)) {
        (parts.api->*method)(std::move(exchange));
      } else {
        exchange->respond(not_serving(exchange->request()));
      }
    });
  };
  const auto answer = [this](const std::string& path,
                             http::Response (Api::*method)(const http::Request&) const) {
    route("POST", path, [this, method](const http::Request& request) {
      const Attached parts = attached();
      if (auto refusal = refused(parts, request)) return std::move(*refusal);
      return (parts.api->*method)(request);
    });
  };
  generate("/v1/chat/completions", &Api::chat);
  generate("/v1/completions", &Api::completion);
  // DeepSeek's base URL for prefixes and for text in the middle.
  generate("/beta/chat/completions", &Api::chat);
  generate("/beta/completions", &Api::completion);
  generate("/v1/responses", &Api::responses);
  generate("/v1/messages", &Api::messages);
  generate("/v1/inference", &Api::inference);
  generate("/v1/load_lora_adapter", &Api::load_adapter);
  answer("/v1/messages/count_tokens", &Api::count_tokens);
  answer("/tokenize", &Api::tokenize);
  answer("/detokenize", &Api::detokenize);
  answer("/v1/unload_lora_adapter", &Api::unload_adapter);
  route("GET", "/v1/models", [this](const http::Request& request) {
    const Attached parts = attached();
    if (auto refusal = refused(parts, request)) return std::move(*refusal);
    return parts.api->models();
  });
  route("GET", "/v1/models/*", [this](const http::Request& request) {
    const Attached parts = attached();
    if (auto refusal = refused(parts, request)) return std::move(*refusal);
    return parts.api->model(request.path.substr(std::string_view("/v1/models/").size()));
  });
}

// The file is read each time, so that a token that is replaced needs no restart.
std::optional<http::Response> WorkerServer::not_allowed(const http::Request& request) const {
  constexpr std::string_view kBearer = "Bearer ";
  const std::string_view given = request.header("authorization");
  const auto token = read_token(options_.internal_token_file);
  if (token && given.starts_with(kBearer) && same_secret(given.substr(kBearer.size()), *token)) {
    return std::nullopt;
  }
  http::Response response = http_error(401, "a bearer token is needed");
  response.headers["WWW-Authenticate"] = "Bearer";
  return response;
}

void WorkerServer::add_internal_routes() {
  internal_->route_async("GET", "/internal/status", [this](std::shared_ptr<http::Exchange> e) {
    if (auto refusal = not_allowed(e->request())) {
      e->respond(std::move(*refusal));
    } else {
      status_->add(std::move(e));
    }
  });
  internal_->route("PUT", "/internal/keys", [this](const http::Request& request) {
    if (auto refusal = not_allowed(request)) return std::move(*refusal);
    if (const Status told = keys_.tell(request.body); !told) {
      return http_error(400, told.error().message);
    }
    log_.info("told the API keys", {{"digest", keys_.told()}});
    http::Response response;
    response.body = "{}";
    return response;
  });
  internal_->route("POST", "/internal/drain", [this](const http::Request& request) {
    if (auto refusal = not_allowed(request)) return std::move(*refusal);
    drain_.begin();
    http::Response response;
    response.status = 202;
    response.body = "{}";
    return response;
  });
}

void WorkerServer::sleep(std::optional<engine::SleepMode> mode) {
  const std::lock_guard lock(mutex_);
  if (sleep_ != mode) log_.info(mode ? "told to sleep" : "told to wake");
  sleep_ = mode;
  if (attached_.engine == nullptr) return;
  if (mode) {
    // What needs no weights goes on, also where nobody has asked for anything yet.
    if (attached_.engine->stats().serving) was_ready_ = true;
    attached_.engine->sleep(*mode);
  } else {
    attached_.engine->wake();
  }
}

void WorkerServer::add_sleep_routes() {
  const auto accepted = [] {
    http::Response response;
    response.status = 202;
    response.body = "{}";
    return response;
  };
  internal_->route("POST", "/internal/sleep", [this, accepted](const http::Request& request) {
    if (auto refusal = not_allowed(request)) return std::move(*refusal);
    if (!options_.can_sleep) {
      return error_response({.status = 409,
                             .message = "the worker was started without --sleep-mode "
                                        "(spec.engine.sleepMode), which a GPU needs to give its "
                                        "memory back",
                             .code = "no_sleep_mode"});
    }
    const auto mode = parse_sleep(request.query);
    if (!mode) return error_response(mode.error());
    sleep(*mode);
    return accepted();
  });
  internal_->route("POST", "/internal/wake", [this, accepted](const http::Request& request) {
    if (auto refusal = not_allowed(request)) return std::move(*refusal);
    sleep(std::nullopt);
    return accepted();
  });
}

void WorkerServer::stop(int grace_s) {
  public_->stop(grace_s);
  status_.reset();
  if (internal_) internal_->stop(grace_s);
  const std::lock_guard lock(mutex_);
  attached_ = {};
}

}  // namespace dsm::server

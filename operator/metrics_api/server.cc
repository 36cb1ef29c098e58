#include "operator/metrics_api/server.h"

namespace dsm::metrics_api {

MetricsServer::MetricsServer(http::ServerOptions options, Access& access, Clock& clock, Trust trust,
                             Source source, MetricsRegistry& registry, Logger log)
    : access_(access),
      clock_(clock),
      trust_(std::move(trust)),
      source_(std::move(source)),
      log_(log),
      answers_(prometheus::BuildCounter()
                   .Name("deepseek_operator_metrics_api_requests_total")
                   .Help("Requests to the metrics APIs by the code of the answer")
                   .Register(registry)),
      server_(std::move(options), std::move(log)) {
  for (const char* code : {"200", "400", "401", "403", "404", "429", "503"}) {
    answers_.Add({{"code", code}});
  }
  server_.error_body(status_answer);
  server_.route_async(
      "GET", "/*", [this](std::shared_ptr<http::Exchange> exchange) { take(std::move(exchange)); });
}

MetricsServer::~MetricsServer() {
  stop();
}

Status MetricsServer::start() {
  if (auto started = server_.start(); !started) return started;
  asker_ = std::jthread([this](const std::stop_token& stop) { ask(stop); });
  return {};
}

void MetricsServer::stop() {
  if (asker_.joinable()) {
    asker_.request_stop();
    asker_.join();
  }
  {
    const std::lock_guard lock(mutex_);
    waiting_.clear();
  }
  server_.stop();
}

void MetricsServer::take(std::shared_ptr<http::Exchange> exchange) {
  const http::Request& request = exchange->request();
  auto call = call_of(request.path, request.query);
  if (!call) return respond(*exchange, status_answer(400, call.error().message));
  if (call->kind == Call::Kind::kHealth) return respond(*exchange, answer(*call, {}));
  const auto trust = trust_();
  if (!trust) return respond(*exchange, status_answer(503, "callers cannot be told apart yet"));
  auto user = identify(*trust, request, clock_.wall_now());
  if (!user) {
    log_.debug("metrics api refused a caller",
               {{"remote", request.remote}, {"why", user.error().message}});
    return respond(*exchange, status_answer(401, user.error().message));
  }
  if (const auto verdict = access_.known(*user, *call)) return decide(*exchange, *call, *verdict);
  const std::lock_guard lock(mutex_);
  if (waiting_.size() >= kMostWaiting) {
    return respond(*exchange, status_answer(429, "too many requests wait for the API server"));
  }
  waiting_.push_back({std::move(exchange), *std::move(user), *std::move(call)});
  changed_.notify_one();
}

void MetricsServer::decide(http::Exchange& exchange, const Call& call, const Verdict& verdict) {
  if (!verdict.allowed) return respond(exchange, status_answer(403, verdict.why));
  respond(exchange,
          answer(call, call.asks_numbers() ? source_(call.ns, call.only_model()) : View()));
}

void MetricsServer::respond(http::Exchange& exchange, http::Response response) {
  answers_.Add({{"code", std::to_string(response.status)}}).Increment();
  exchange.respond(std::move(response));
}

void MetricsServer::ask(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [this] { return !waiting_.empty(); })) {
    const Question next = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    // The same question may have been answered while this one waited.
    auto verdict = access_.known(next.user, next.call);
    if (verdict) {
      decide(*next.exchange, next.call, *verdict);
    } else if (const auto asked = access_.ask(next.user, next.call)) {
      decide(*next.exchange, next.call, *asked);
    } else {
      respond(*next.exchange, status_answer(503, "the API server does not say who may ask: " +
                                                     asked.error().message));
    }
    lock.lock();
  }
}

}  // namespace dsm::metrics_api

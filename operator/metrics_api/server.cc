#include "operator/metrics_api/server.h"

namespace dsm::metrics_api {

MetricsServer::MetricsServer(http::ServerOptions options, Tokens& tokens, Access& access,
                             Clock& clock, TrustSource trust, Source source,
                             MetricsRegistry& registry, Logger log)
    : tokens_(tokens),
      access_(access),
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
  server_.route_async("GET", "/*", [this](const ExchangePointer& exchange) { take(exchange); });
}

MetricsServer::~MetricsServer() {
  stop();
}

Status MetricsServer::start() {
  access_asker_.start();
  token_asker_.start();
  return server_.start();
}

void MetricsServer::stop() {
  token_asker_.stop();
  access_asker_.stop();
  server_.stop();
}

void MetricsServer::take(const ExchangePointer& exchange) {
  const http::Request& request = exchange->request();
  const auto call = call_of(request.path, request.query);
  if (!call) return respond(*exchange, status_answer(400, call.error().message));
  if (call->kind == Call::Kind::kHealth) return respond(*exchange, answer(*call, {}));
  const auto trust = trust_();
  if (!trust) return respond(*exchange, status_answer(503, "callers cannot be told apart yet"));
  const auto caller = identify(*trust, request, clock_.wall_now());
  if (!caller) return refuse(*exchange, caller.error().message);
  if (const auto* user = std::get_if<User>(&*caller)) return authorize(exchange, *user, *call);
  const auto& token = std::get<BearerToken>(*caller);
  if (const auto user = tokens_.known(token)) return authorize(exchange, *user, *call);
  ask(token_asker_, *exchange,
      [this, exchange, token, call = *call] { authenticate(exchange, token, call); });
}

void MetricsServer::authenticate(const ExchangePointer& exchange, const BearerToken& token,
                                 const Call& call) {
  // Another request with the token may have been answered while this one waited.
  if (const auto user = tokens_.known(token)) return authorize(exchange, *user, call);
  const auto asked = tokens_.ask(token);
  if (!asked) {
    // Its words are for us, and a stranger asks.
    return respond(
        *exchange,
        status_answer(503, "the API server does not say whose the token is (" +
                               std::string(to_string(asked.error().kind)) + "): try again later"));
  }
  const std::optional<User>& user = *asked;
  if (!user) {
    return refuse(*exchange, "the bearer token is not valid for the API server of this cluster");
  }
  authorize(exchange, *user, call);
}

void MetricsServer::authorize(const ExchangePointer& exchange, const User& user, const Call& call) {
  if (const auto verdict = access_.known(user, call)) return decide(*exchange, call, *verdict);
  ask(access_asker_, *exchange, [this, exchange, user, call] {
    // The same question may have been answered while this one waited.
    if (const auto verdict = access_.known(user, call)) return decide(*exchange, call, *verdict);
    const auto asked = access_.ask(user, call);
    if (asked) return decide(*exchange, call, *asked);
    respond(*exchange, status_answer(503, "the API server does not say who may ask: " +
                                              asked.error().message));
  });
}

void MetricsServer::decide(http::Exchange& exchange, const Call& call, const Verdict& verdict) {
  if (!verdict.allowed) return respond(exchange, status_answer(403, verdict.why));
  respond(exchange,
          answer(call, call.asks_numbers() ? source_(call.ns, call.only_model()) : View()));
}

void MetricsServer::ask(Asker& asker, http::Exchange& exchange, Asker::Question question) {
  if (asker.add(std::move(question))) return;
  respond(exchange, status_answer(429, "too many requests wait for the API server"));
}

void MetricsServer::refuse(http::Exchange& exchange, const std::string& why) {
  log_.debug("metrics api refused a caller", {{"remote", exchange.request().remote}, {"why", why}});
  respond(exchange, status_answer(401, why));
}

void MetricsServer::respond(http::Exchange& exchange, http::Response response) {
  answers_.Add({{"code", std::to_string(response.status)}}).Increment();
  exchange.respond(std::move(response));
}

}  // namespace dsm::metrics_api

// The metrics APIs over TLS: who asks, whether he may, and the answer. Requests whose answer needs
// no question to the API server are answered on the HTTP thread, others wait for a thread that
// asks. Whose a token is another thread asks than what somebody may do: strangers with tokens of
// their own making do not hold up those whom the API server sends.
#pragma once

#include <prometheus/counter.h>

#include <functional>
#include <memory>

#include "base/http/server.h"
#include "base/metrics.h"
#include "operator/metrics_api/access.h"
#include "operator/metrics_api/api.h"
#include "operator/metrics_api/asker.h"
#include "operator/metrics_api/tokens.h"

namespace dsm::metrics_api {

class MetricsServer {
 public:
  // What is known of a model; `model` empty: of all in the namespace. On any thread.
  using Source = std::function<View(const std::string& ns, const std::string& model)>;
  // Whom to believe; nullptr: not known yet.
  using TrustSource = std::function<std::shared_ptr<const Trust>()>;

  // `options.tls` is given. `tokens`, `access` and `clock` must outlive the server.
  MetricsServer(http::ServerOptions options, Tokens& tokens, Access& access, Clock& clock,
                TrustSource trust, Source source, MetricsRegistry& registry, Logger log);
  ~MetricsServer();  // stop()
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

  Status start();
  void stop();
  std::uint16_t port() const { return server_.port(); }

 private:
  using ExchangePointer = std::shared_ptr<http::Exchange>;

  void take(const ExchangePointer& exchange);
  // Whose the token is, and then what he may do.
  void authenticate(const ExchangePointer& exchange, const BearerToken& token, const Call& call);
  void authorize(const ExchangePointer& exchange, const User& user, const Call& call);
  void decide(http::Exchange& exchange, const Call& call, const Verdict& verdict);
  // Asks on the asker's thread, or answers that too many wait.
  void ask(Asker& asker, http::Exchange& exchange, Asker::Question question);
  void refuse(http::Exchange& exchange, const std::string& why);
  void respond(http::Exchange& exchange, http::Response response);

  Tokens& tokens_;
  Access& access_;
  Clock& clock_;
  const TrustSource trust_;
  const Source source_;
  const Logger log_;
  prometheus::Family<prometheus::Counter>& answers_;
  http::Server server_;
  Asker access_asker_;  // last, with the next: they use everything above
  Asker token_asker_;
};

}  // namespace dsm::metrics_api

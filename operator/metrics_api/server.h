// The metrics APIs over TLS: who asks, whether he may, and the answer. Requests whose answer needs
// no question to the API server are answered on the HTTP thread, others wait for one thread that
// asks.
#pragma once

#include <prometheus/counter.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "base/http/server.h"
#include "base/metrics.h"
#include "operator/metrics_api/access.h"
#include "operator/metrics_api/api.h"

namespace dsm::metrics_api {

class MetricsServer {
 public:
  // What is known of a model; `model` empty: of all in the namespace. On any thread.
  using Source = std::function<View(const std::string& ns, const std::string& model)>;
  // Whom to believe; nullptr: not known yet.
  using Trust = std::function<std::shared_ptr<const ProxyTrust>()>;

  // Questions that wait for the API server's answer; more requests are answered 429.
  static constexpr std::size_t kMostWaiting = 64;

  // `options.tls` is given. `access` and `clock` must outlive the server.
  MetricsServer(http::ServerOptions options, Access& access, Clock& clock, Trust trust,
                Source source, MetricsRegistry& registry, Logger log);
  ~MetricsServer();  // stop()
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

  Status start();
  void stop();
  std::uint16_t port() const { return server_.port(); }

 private:
  struct Question {
    std::shared_ptr<http::Exchange> exchange;
    User user;
    Call call;
  };

  void take(std::shared_ptr<http::Exchange> exchange);
  void decide(http::Exchange& exchange, const Call& call, const Verdict& verdict);
  void respond(http::Exchange& exchange, http::Response response);
  void ask(const std::stop_token& stop);

  Access& access_;
  Clock& clock_;
  const Trust trust_;
  const Source source_;
  const Logger log_;
  prometheus::Family<prometheus::Counter>& answers_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Question> waiting_;  // guarded by mutex_
  http::Server server_;
  std::jthread asker_;  // last: it uses everything above
};

}  // namespace dsm::metrics_api

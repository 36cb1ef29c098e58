// deepseek-operator: wires the parts together, runs until SIGTERM or SIGINT, and leaves in order:
// workers finish the plan they have under way, the Lease is freed, then watches and servers end.
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>

#include "base/http/server.h"
#include "base/random.h"
#include "kube/config.h"
#include "kube/metrics.h"
#include "kube/transport.h"
#include "operator/api/names.h"
#include "operator/keda/keda_server.h"
#include "operator/metrics_api/metrics_api.h"
#include "operator/metrics_api/series.h"
#include "operator/options.h"
#include "operator/runtime/controller.h"

namespace dsm {
namespace {

// A look at one model that takes longer than this means that the process is stuck.
constexpr double kStuckSeconds = 600;
constexpr Millis kLongestWrite{8'000};
// The API server's own limit for a check of the metrics API is 5 s.
constexpr Millis kLongestReview{4'000};

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string host_name() {
  char name[256] = "";
  gethostname(name, sizeof name - 1);
  return name[0] == '\0' ? "deepseek-operator" : name;
}

template <typename T>
T or_throw(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return std::move(*result);
}

kube::ClientConfig client_config(const OperatorOptions& options) {
  if (!options.kubeconfig.empty()) {
    return or_throw(kube::kubeconfig_file(options.kubeconfig, options.context));
  }
  return or_throw(kube::in_cluster_config(environment("KUBERNETES_SERVICE_HOST"),
                                          environment("KUBERNETES_SERVICE_PORT")));
}

// Everything of the running operator. Members are made in this order and destroyed in reverse.
class Operator {
 public:
  Operator(const OperatorOptions& options, Logger log)
      : options_(options),
        log_(std::move(log)),
        config_(client_config(options)),
        identity_(options.identity.empty() ? host_name() + "_" + random_hex(4) : options.identity),
        process_(registry_),
        transport_(or_throw(kube::make_transport(config_))),
        observe_(kube::request_metrics(registry_, transport_->host())),
        lease_client_(*transport_, clock_,
                      client_options(options.lease_times().renew_deadline / 2, false)),
        reads_(*transport_, clock_, client_options(Seconds(30), false), stop_reads_.get_token()),
        writes_(*transport_, clock_, client_options(write_timeout(), true)),
        reviews_(*transport_, clock_, client_options(kLongestReview, false),
                 stop_reads_.get_token()),
        events_(writes_, "deepseek-operator", identity_, log_),
        metrics_(registry_, "deepseekmodel", options.workers),
        tenant_metrics_(registry_, "deepseektenant", 1),
        series_(registry_),
        controller_(controller_options(), reads_, writes_, events_, metrics_, log_),
        metrics_api_(make_metrics_api()),
        keda_(make_keda()),
        server_(server_options(), log_) {}

  void start() {
    serve();
    if (keda_) {
      controller_.on_load(
          [this](const std::string& ns, const std::string& model) { keda_->changed(ns, model); });
      if (Status started = keda_->start(); !started) {
        throw std::runtime_error(started.error().message);
      }
    }
    controller_.start();
    if (metrics_api_) {
      metrics_api_->start();
    } else {
      controller_.metrics_api({plan::MetricsApi::State::kOff, ""});
    }
    if (!options_.leader_elect) {
      writing_ = true;
      lead(true);
      return;
    }
    kube::ElectorOptions elector;
    elector.ns = own_namespace();
    elector.name = options_.lease_name;
    elector.identity = identity_;
    elector.times = options_.lease_times();
    elector.on_change = [this](bool leading) { lead(leading); };
    owned_elector_ = std::make_unique<kube::Elector>(lease_client_, std::move(elector), log_);
    elector_ = owned_elector_.get();
  }

  void stop() {
    stop_reads_.request_stop();
    if (metrics_api_) metrics_api_->stop();
    controller_.stop();
    if (keda_) keda_->stop();
    if (owned_elector_) owned_elector_->release();
    server_.stop(1);
  }

  ~Operator() {
    stop_reads_.request_stop();
    if (metrics_api_) metrics_api_->stop();
    controller_.stop();
    owned_elector_.reset();
  }

 private:
  std::string own_namespace() const {
    return options_.lease_namespace.empty() ? config_.ns : options_.lease_namespace;
  }
  void lead(bool leading) {
    controller_.lead(leading);
    if (metrics_api_) metrics_api_->lead(leading);
  }
  std::unique_ptr<metrics_api::MetricsApi> make_metrics_api() {
    if (!options_.metrics_api) return nullptr;
    metrics_api::MetricsApiOptions options;
    options.host = options_.listen;
    options.port = static_cast<std::uint16_t>(options_.metrics_api_port);
    options.place = {own_namespace(), options_.metrics_api_service, options_.metrics_api_owner};
    return std::make_unique<metrics_api::MetricsApi>(
        options, metrics_api::Clients{reads_, writes_, reviews_},
        [this](const std::string& ns, const std::string& model) { return view_of(ns, model); },
        [this](plan::MetricsApi state) { controller_.metrics_api(std::move(state)); }, registry_,
        log_);
  }
  metrics_api::View view_of(const std::string& ns, const std::string& model) const {
    return {controller_.synced(), controller_.loads(ns, model)};
  }
  std::unique_ptr<keda::KedaServer> make_keda() {
    if (options_.keda_port == 0) return nullptr;
    return std::make_unique<keda::KedaServer>(
        GrpcAddress{options_.listen, static_cast<std::uint16_t>(options_.keda_port)},
        [this](const std::string& ns, const std::string& model, const std::string& metric) {
          return metrics_api::number_of(view_of(ns, model), model, metric);
        },
        log_);
  }
  kube::ClientOptions client_options(Millis timeout, bool gated) {
    kube::ClientOptions result;
    result.field_manager = std::string(api::kFieldManager);
    result.timeout = timeout;
    result.observe = observe_;
    if (gated) result.may_write = [this](TimePoint end) { return may_write(end); };
    return result;
  }
  // Fits into what is left of a lease that was renewed a retry period ago.
  Millis write_timeout() const {
    const kube::LeaseTimes times = options_.lease_times();
    return std::min<Millis>(kLongestWrite, (times.duration - times.retry) / 2);
  }
  bool may_write(TimePoint end) const {
    const kube::Elector* elector = elector_.load();
    return elector == nullptr ? writing_.load() : elector->holds_until(end);
  }
  runtime::ControllerOptions controller_options() {
    runtime::ControllerOptions result;
    result.ns = options_.ns;
    result.plan.worker_image = options_.worker_image;
    result.plan.worker_image_cuda = options_.worker_image_cuda;
    result.plan.rdma_resource = options_.rdma_resource;
    result.plan.gpu_runtime_class = options_.gpu_runtime_class;
    result.plan.kueue = options_.kueue;
    result.plan.pull_policy = options_.pull_policy;
    // Nodes are no namespace's; the rights to see them come with those to all namespaces.
    result.plan.watches_nodes = options_.ns.empty();
    result.coscheduling = options_.coscheduling;
    result.workers = options_.workers;
    result.status_port = static_cast<std::uint16_t>(options_.worker_status_port);
    if (!options_.tenant_owner_role.empty()) {
      result.tenants = runtime::TenantOptions{
          .plan = {.owner_role = options_.tenant_owner_role,
                   .operator_namespace =
                       options_.lease_namespace.empty() ? config_.ns : options_.lease_namespace},
          .metrics = &tenant_metrics_};
    }
    return result;
  }
  http::ServerOptions server_options() const {
    http::ServerOptions result;
    result.host = options_.listen;
    result.port = static_cast<std::uint16_t>(options_.port);
    result.threads = 1;
    result.max_connections = 200;
    return result;
  }

  void serve() {
    server_.route("GET", "/metrics", [this](const http::Request&) {
      process_.update();
      controller_.update_metrics();
      // Before that there are models whose pods are not known.
      series_.update(controller_.synced() ? controller_.loads() : metrics_api::LoadSeries::Loads());
      if (metrics_api_) metrics_api_->update_metrics();
      return http::Response{200, kMetricsContentType, metrics_text(registry_), {}};
    });
    server_.route("GET", "/healthz", [this](const http::Request&) {
      return health(controller_.longest_look() < kStuckSeconds, "a look at a model is stuck");
    });
    server_.route("GET", "/readyz", [this](const http::Request&) {
      if (metrics_api_ && !metrics_api_->ready()) {
        return health(false, "the metrics API has no certificate yet");
      }
      return health(controller_.synced(), "the caches are not synced");
    });
    if (Status started = server_.start(); !started) {
      throw std::runtime_error(started.error().message);
    }
    log_.info("listening", {{"port", server_.port()}});
  }
  static http::Response health(bool good, const char* reason) {
    return {good ? 200 : 503,
            "text/plain; charset=utf-8",
            good ? "ok\n" : std::string(reason) + "\n",
            {}};
  }

  const OperatorOptions options_;
  const Logger log_;
  const kube::ClientConfig config_;
  const std::string identity_;
  SystemClock clock_;
  MetricsRegistry registry_;
  ProcessMetrics process_;
  std::stop_source stop_reads_;
  std::atomic<bool> writing_ = false;  // without leader election
  // Asked by the workers' write gate; null until the election has begun: nothing is written before.
  std::atomic<const kube::Elector*> elector_ = nullptr;
  std::unique_ptr<kube::Transport> transport_;
  kube::RequestObserver observe_;
  kube::Client lease_client_;
  kube::Client reads_;
  kube::Client writes_;
  kube::Client reviews_;
  kube::EventRecorder events_;
  runtime::ControllerMetrics metrics_;
  runtime::ControllerMetrics tenant_metrics_;
  metrics_api::LoadSeries series_;
  runtime::Controller controller_;
  std::unique_ptr<metrics_api::MetricsApi> metrics_api_;  // null: not asked for
  std::unique_ptr<keda::KedaServer> keda_;                // null: not asked for
  http::Server server_;
  std::unique_ptr<kube::Elector> owned_elector_;
};

int run(int argc, const char* const* argv) {
  OperatorOptions options;
  Flags flags("deepseek-operator", "Makes DeepSeekModel resources true.");
  options.add_to(flags);
  Status parsed = flags.parse(argc, argv);
  if (parsed) parsed = options.check();
  if (!parsed) {
    const bool help = parsed.error().kind == ErrorKind::kCancelled;
    std::fprintf(help ? stdout : stderr, "%s\n", parsed.error().message.c_str());
    return help ? 0 : 2;
  }
  // Blocked in every thread that starts from here on; this thread takes them below.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  // A heap per thread costs more memory than a few threads that rarely allocate gain by it.
  mallopt(M_ARENA_MAX, 2);
  kube::initialize_transport_threads(3);

  const Logger log =
      Logger::to_stderr(options.log_level == "debug" ? LogLevel::kDebug : LogLevel::kInfo,
                        options.log_format == "json" ? LogFormat::kJson : LogFormat::kText);
  Operator op(options, log);
  op.start();
  int signal_number = 0;
  sigwait(&signals, &signal_number);
  log.info("stopping", {{"signal", signal_number}});
  op.stop();
  return 0;
}

}  // namespace
}  // namespace dsm

int main(int argc, char** argv) {
  try {
    return dsm::run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "deepseek-operator: %s\n", e.what());
    return 1;
  }
}

#include "worker/server/http_metrics.h"

#include <array>
#include <atomic>
#include <utility>

namespace dsm::server {
namespace {

const prometheus::Histogram::BucketBoundaries kBounds = {.005, .01, .025, .05, .1, .25, .5, 1,
                                                         2.5,  5,   10,   30,  60, 120, 300};

std::string status_class(int status) {
  return std::to_string(status / 100) + "xx";
}

}  // namespace

struct HttpMetrics::Route {
  std::array<prometheus::Counter*, 4> by_class{};  // 2xx to 5xx
  prometheus::Histogram* duration = nullptr;
  Clock* clock = nullptr;

  void done(int status, TimePoint began) const {
    if (status >= 200 && status < 600) {
      by_class.at(static_cast<std::size_t>(status / 100 - 2))->Increment();
    }
    duration->Observe(std::chrono::duration<double>(clock->now() - began).count());
  }
};

namespace {

// An Exchange whose end is counted: when it was answered, and when it was dropped before that.
template <typename Route>
class CountedExchange final : public http::Exchange {
 public:
  CountedExchange(std::shared_ptr<http::Exchange> inner, std::shared_ptr<const Route> route)
      : inner_(std::move(inner)), route_(std::move(route)), began_(route_->clock->now()) {}
  ~CountedExchange() override {
    // 499: the client went away before there was an answer.
    if (!counted_)
      route_->done(status_ != 0 ? int{status_} : (inner_->closed() ? 499 : 500), began_);
  }

  const http::Request& request() const override { return inner_->request(); }
  void respond(http::Response response) override {
    count(response.status);
    inner_->respond(std::move(response));
  }
  void start(int status, http::Headers headers) override {
    status_ = status;
    inner_->start(status, std::move(headers));
  }
  void write(std::string chunk) override { inner_->write(std::move(chunk)); }
  void finish() override {
    count(status_);
    inner_->finish();
  }
  void abort() override { inner_->abort(); }
  void on_close(std::function<void()> callback) override { inner_->on_close(std::move(callback)); }
  bool closed() const override { return inner_->closed(); }
  std::size_t buffered_bytes() const override { return inner_->buffered_bytes(); }

 private:
  void count(int status) {
    if (!counted_.exchange(true)) route_->done(status, began_);
  }

  const std::shared_ptr<http::Exchange> inner_;
  const std::shared_ptr<const Route> route_;
  const TimePoint began_;
  std::atomic<int> status_ = 0;
  std::atomic<bool> counted_ = false;
};

}  // namespace

HttpMetrics::HttpMetrics(MetricsRegistry& registry, Clock& clock)
    : requests_(prometheus::BuildCounter()
                    .Name("http_requests_total")
                    .Help("HTTP requests that were answered, by class of status")
                    .Register(registry)),
      durations_(prometheus::BuildHistogram()
                     .Name("http_request_duration_seconds")
                     .Help("From the whole request to the end of its answer")
                     .Register(registry)),
      clock_(clock) {
  requests_.Add({{"handler", "none"}, {"method", "any"}, {"status", "4xx"}});
}

std::shared_ptr<HttpMetrics::Route> HttpMetrics::route(const std::string& method,
                                                       const std::string& path) {
  auto made = std::make_shared<Route>();
  for (std::size_t i = 0; i < made->by_class.size(); ++i) {
    const int status = static_cast<int>(i + 2) * 100;
    made->by_class.at(i) =
        &requests_.Add({{"handler", path}, {"method", method}, {"status", status_class(status)}});
  }
  made->duration = &durations_.Add({{"handler", path}, {"method", method}}, kBounds);
  made->clock = &clock_;
  return made;
}

http::Handler HttpMetrics::counted(const std::string& method, const std::string& path,
                                   http::Handler handler) {
  return [route = route(method, path), handler = std::move(handler)](const http::Request& request) {
    const TimePoint began = route->clock->now();
    http::Response response = handler(request);
    route->done(response.status, began);
    return response;
  };
}

http::AsyncHandler HttpMetrics::counted_async(const std::string& method, const std::string& path,
                                              http::AsyncHandler handler) {
  return [route = route(method, path),
          handler = std::move(handler)](std::shared_ptr<http::Exchange> exchange) {
    handler(std::make_shared<CountedExchange<Route>>(std::move(exchange), route));
  };
}

void HttpMetrics::refused(int status) {
  requests_.Add({{"handler", "none"}, {"method", "any"}, {"status", status_class(status)}})
      .Increment();
}

}  // namespace dsm::server

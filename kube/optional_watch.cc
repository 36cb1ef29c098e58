#include "kube/optional_watch.h"

#include <algorithm>

#include "kube/sleep.h"

namespace dsm::kube {

ApiResult<bool> is_served(Client& client, const Resource& resource) {
  const ApiResult<HttpResponse> answer =
      client.send(discovery_request(resource), "discover " + resource.api_version());
  if (!answer) {
    const ErrorKind kind = answer.error().kind;
    if (kind == ErrorKind::kNotFound || kind == ErrorKind::kDenied) return false;
    return std::unexpected(answer.error());
  }
  const Json list = Json::parse(answer->body, nullptr, /*allow_exceptions=*/false);
  const auto resources = list.find("resources");
  if (resources == list.end() || !resources->is_array()) return false;
  return std::ranges::any_of(*resources, [&](const Json& one) {
    return one.is_object() && one.value("name", Json()) == Json(resource.plural);
  });
}

OptionalWatch::OptionalWatch(Client& client, WatcherOptions options, Watcher::Handler events,
                             Change change, const Logger& log)
    : client_(client),
      options_(std::move(options)),
      events_(std::move(events)),
      change_(std::move(change)),
      log_(log.with({{"kind", options_.resource.kind}})),
      thread_([this](const std::stop_token& stop) { run(stop); }) {}

void OptionalWatch::run(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    const ApiResult<bool> served = is_served(client_, options_.resource);
    // A server that does not answer says nothing about its kinds.
    if (served && *served && !watcher_) begin();
    if (served && !*served) end();
    if (!sleep_for(client_.clock(), served || known_ ? kAskEvery : kFirstAnswer, stop)) return;
  }
}

void OptionalWatch::begin() {
  log_.info("optional kind is served", {{"version", options_.resource.api_version()}});
  watcher_ = std::make_unique<Watcher>(
      client_, options_,
      [this](std::vector<WatchEvent> events) {
        const bool whole = std::ranges::any_of(events, [](const WatchEvent& event) {
          return event.kind == WatchEvent::Kind::kInitDone;
        });
        events_(std::move(events));
        if (!whole || listed_.exchange(true)) return;
        known_ = true;
        change_(true);
      },
      log_);
}

void OptionalWatch::end() {
  const bool was_there = watcher_ != nullptr;
  watcher_.reset();
  listed_ = false;
  if (was_there) log_.info("optional kind is served no more");
  if (was_there || !known_.exchange(true)) change_(false);
  known_ = true;
}

}  // namespace dsm::kube

#include "kube/optional_watch.h"

#include <algorithm>
#include <utility>

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

OptionalKind::OptionalKind(Client& client, const Resource& resource, Watching watching,
                           Watcher::Handler events, Change change, Logger log)
    : client_(client),
      resource_(resource),
      watching_(std::move(watching)),
      events_(std::move(events)),
      change_(std::move(change)),
      log_(std::move(log)) {}

Millis OptionalKind::step() {
  const ApiResult<bool> served = is_served(client_, resource_);
  // A server that does not answer says nothing about its kinds.
  if (served && *served && !watches_) begin();
  if (served && !*served) end();
  return served || known_ ? kAskEvery : kFirstAnswer;
}

void OptionalKind::begin() {
  log_.info("optional kind is served", {{"version", resource_.api_version()}});
  watches_ = true;
  watching_.begin([this](std::vector<WatchEvent> events) {
    const bool whole = std::ranges::any_of(
        events, [](const WatchEvent& event) { return event.kind == WatchEvent::Kind::kInitDone; });
    events_(std::move(events));
    if (!whole || listed_.exchange(true)) return;
    known_ = true;
    change_(true);
  });
}

void OptionalKind::end() {
  const bool was_there = std::exchange(watches_, false);
  if (was_there) watching_.end();
  listed_ = false;
  if (was_there) log_.info("optional kind is served no more");
  if (was_there || !known_.exchange(true)) change_(false);
  known_ = true;
}

OptionalWatch::OptionalWatch(Client& client, WatcherOptions options, Watcher::Handler events,
                             Change change, const Logger& log)
    : kind_(client, options.resource,
            {.begin =
                 [this, &client, options, log](Watcher::Handler to) {
                   watcher_ = std::make_unique<Watcher>(
                       client, options, std::move(to), log.with({{"kind", options.resource.kind}}));
                 },
             .end = [this] { watcher_.reset(); }},
            std::move(events), std::move(change), log.with({{"kind", options.resource.kind}})),
      thread_([this, &client](const std::stop_token& stop) {
        while (sleep_for(client.clock(), kind_.step(), stop)) {
        }
      }) {}

}  // namespace dsm::kube

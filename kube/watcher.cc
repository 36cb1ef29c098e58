#include "kube/watcher.h"

#include "base/random.h"
#include "kube/sleep.h"

namespace dsm::kube {

Watcher::Watcher(Client& client, WatcherOptions options, Handler handler, Logger log)
    : client_(client),
      options_(std::move(options)),
      handler_(std::move(handler)),
      log_(log.with({{"watch", options_.resource.plural}})),
      random_(std::stoull(random_hex(8), nullptr, 16)),
      thread_([this](const std::stop_token& stop) { run(stop); }) {}

Watcher::~Watcher() = default;

void Watcher::run(const std::stop_token& stop) {
  WatchAction action = feed(watch_input::Begin{});
  while (!stop.stop_requested()) {
    switch (action.kind) {
      case WatchAction::Kind::kList:
        action = list(action);
        break;
      case WatchAction::Kind::kWatch:
      case WatchAction::Kind::kRead:
        action = watch(action, stop);
        break;
      case WatchAction::Kind::kWait:
        if (!action.error.empty()) {
          log_.info("watch interrupted",
                    {{"error", action.error}, {"again_in_ms", action.delay.count()}});
        }
        if (!sleep_for(client_.clock(), action.delay, stop)) return;
        action = feed(watch_input::Begin{});
        break;
    }
  }
}

WatchAction Watcher::feed(const WatchInput& input) {
  random_ = mix64(random_);
  const double random = static_cast<double>(random_ >> 11) * 0x1.0p-53;
  WatchStep result = step(std::move(state_), input, client_.clock().now(), random);
  state_ = std::move(result.state);
  if (!result.events.empty()) handler_(std::move(result.events));
  return std::move(result.action);
}

WatchAction Watcher::list(const WatchAction& action) {
  ListOptions list = action.list;
  list.label_selector = options_.label_selector;
  list.field_selector = options_.field_selector;
  ApiResult<HttpResponse> answer =
      client_.send(list_request(options_.resource, options_.ns, list), "list");
  if (answer) return feed(watch_input::Listed{std::move(*answer)});
  // The machine reads refusals itself: it looks at code and reason.
  const ApiError& error = answer.error();
  if (error.code == 0) return feed(watch_input::Listed{std::unexpected<Error>(error)});
  HttpResponse refusal;
  refusal.status = error.code;
  refusal.headers["retry-after"] = std::to_string(error.retry_after_s);
  refusal.body =
      Json{{"kind", "Status"}, {"reason", error.reason}, {"message", error.message}}.dump(
          -1, ' ', false, Json::error_handler_t::replace);
  return feed(watch_input::Listed{std::move(refusal)});
}

WatchAction Watcher::watch(const WatchAction& action, const std::stop_token& stop) {
  WatchOptions watch = action.watch;
  watch.label_selector = options_.label_selector;
  watch.field_selector = options_.field_selector;
  std::stop_source give_up;  // ends this stream only
  const std::stop_callback forward(stop, [&] { give_up.request_stop(); });
  WatchAction next;  // what the machine said last
  Result<HttpResponse> answer = client_.stream(
      watch_request(options_.resource, options_.ns, watch), options_.idle_timeout,
      [&](std::string_view bytes) {
        if (next.kind != WatchAction::Kind::kRead) return;
        next = feed(watch_input::Bytes{bytes});
        if (next.kind != WatchAction::Kind::kRead) give_up.request_stop();
      },
      give_up.get_token());
  if (next.kind != WatchAction::Kind::kRead || stop.stop_requested()) return next;
  return feed(watch_input::Ended{std::move(answer)});
}

}  // namespace dsm::kube

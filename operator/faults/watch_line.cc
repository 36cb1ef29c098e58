#include "operator/faults/watch_line.h"

#include <algorithm>

#include "kube/testing/scripted_transport.h"

namespace dsm::faults {
namespace {

using Kind = kube::WatchAction::Kind;

Json expired() {
  return {{"kind", "Status"}, {"code", 410}, {"reason", "Expired"}, {"message", "too old"}};
}

}  // namespace

WatchLine::WatchLine(ApiServer& server, Clock& clock, FaultSource& faults, runtime::Feed to)
    : server_(server), clock_(clock), faults_(faults), to_(std::move(to)) {
  feed(kube::watch_input::Begin{});
}

void WatchLine::feed(const kube::WatchInput& input) {
  kube::WatchStep result = kube::step(std::move(state_), input, clock_.now(), faults_.jitter());
  state_ = std::move(result.state);
  action_ = std::move(result.action);
  if (action_.kind == Kind::kWait) due_ = clock_.now() + action_.delay;
  if (!result.events.empty()) to_.take(std::move(result.events));
}

void WatchLine::tick(bool connected) {
  for (;;) {
    switch (action_.kind) {
      case Kind::kWait:
        coming_.clear();
        if (clock_.now() < due_) return;
        feed(kube::watch_input::Begin{});
        break;
      case Kind::kList:
        if (!list(connected)) return;
        break;
      case Kind::kWatch:
        if (!connected) return;
        open();
        break;
      case Kind::kRead:
        if (!connected) return;
        read();
        if (!deliver()) return;
        break;
    }
  }
}

// False: it is not there yet.
bool WatchLine::list(bool connected) {
  if (!list_) {
    due_ = clock_.now() + faults_.of_list();
    if (connected) {
      kube::ListOptions options = action_.list;
      options.label_selector = to_.label_selector;
      options.field_selector = to_.field_selector;
      list_ = server_.answer(kube::list_request(to_.resource, "", options));
    } else {
      list_ = fail(ErrorKind::kTransient, "no connection");
    }
  }
  if (clock_.now() < due_) return false;
  Result<kube::HttpResponse> answer = *std::move(list_);
  list_.reset();
  feed(kube::watch_input::Listed{std::move(answer)});
  return true;
}

void WatchLine::open() {
  coming_.clear();
  const std::uint64_t seen = std::stoull(action_.watch.resource_version);
  const auto& events = server_.objects().events(to_.resource);
  next_ = static_cast<std::size_t>(
      std::ranges::upper_bound(events, seen, {}, &Objects::Event::version) - events.begin());
  action_.kind = Kind::kRead;
}

// What has happened goes on its way, in its order.
void WatchLine::read() {
  const auto& events = server_.objects().events(to_.resource);
  for (; next_ < events.size(); ++next_) {
    const Objects::Event& event = events[next_];
    if (!selected(event.object, to_.label_selector)) continue;
    if (!field_selected(event.object, to_.field_selector)) continue;
    const EventFault fault = faults_.of_event(std::string(to_.resource.plural));
    TimePoint due = clock_.now() + fault.delay;
    if (!coming_.empty()) due = std::max(due, coming_.back().due);
    coming_.push_back({event.line, due, fault.dropped});
    if (fault.twice) coming_.push_back({event.line, due, false});
  }
}

// False: nothing more is due.
bool WatchLine::deliver() {
  if (coming_.empty() || coming_.front().due > clock_.now()) return false;
  const Coming first = std::move(coming_.front());
  coming_.pop_front();
  if (!first.dropped) {
    feed(kube::watch_input::Bytes{first.line});
    return true;
  }
  const std::string line = Json{{"type", "ERROR"}, {"object", expired()}}.dump() + "\n";
  feed(kube::watch_input::Bytes{line});
  return true;
}

}  // namespace dsm::faults

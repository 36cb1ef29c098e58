#include "kube/watch.h"

#include <algorithm>

#include "kube/api_error.h"
#include "kube/client.h"
#include "kube/parse.h"

namespace dsm::kube {
namespace {

using Phase = WatchState::Phase;
using nlohmann::json;

// Far above the largest object that the API server stores (1.5 MB).
constexpr std::size_t kLongestLine = 16 << 20;

// One call of step(): the pieces of its answer while they are put together.
class Machine {
 public:
  Machine(WatchState state, TimePoint now, double random) : now_(now), random_(random) {
    out_.state = std::move(state);
  }
  WatchStep take() { return std::move(out_); }

  // A field of the wrong type: what it should have said is not known, so everything is listed anew.
  void unreadable() { retry(Phase::kList, "an answer has a field of the wrong type"); }

  void operator()(const watch_input::Begin&) { go_on(); }

  void operator()(const watch_input::Listed& input) {
    if (state().phase != Phase::kListing) return go_on();
    if (!input.answer) return retry(Phase::kList, input.answer.error().message);
    const HttpResponse& answer = *input.answer;
    if (!answer.ok()) return list_refused(answer);
    json page = parse_answer(answer.body);
    if (!page.is_object() || !page["items"].is_array() || !page["metadata"].is_object()) {
      return retry(Phase::kList, "the list cannot be read");
    }
    take_page(std::move(page));
  }

  void operator()(const watch_input::Bytes& input) {
    if (state().phase != Phase::kWatching) return;
    state().any_bytes = true;
    std::string_view rest = input.text;
    for (;;) {
      const auto end = rest.find('\n');
      if (end == std::string_view::npos) break;
      std::string line = std::move(state().partial);
      state().partial.clear();
      line += rest.substr(0, end);
      rest.remove_prefix(end + 1);
      if (!line.empty()) take_line(line);
      if (state().phase != Phase::kWatching) return;
    }
    state().partial += rest;
    if (state().partial.size() > kLongestLine) {
      return retry(Phase::kList, "a watch event is too long");
    }
    out_.action.kind = WatchAction::Kind::kRead;
  }

  void operator()(const watch_input::Ended& input) {
    if (state().phase != Phase::kWatching) return go_on();
    state().partial.clear();  // the new watch sends that event again
    if (!input.answer) return retry(Phase::kWatch, input.answer.error().message);
    if (!input.answer->ok()) return watch_refused(*input.answer);
    if (!state().any_bytes && now_ - state().watch_began < kWatchVeryShort) {
      return retry(Phase::kWatch, "the watch ended at once");
    }
    state().phase = Phase::kWatch;
    go_on();
  }

 private:
  WatchState& state() { return out_.state; }

  void emit(WatchEvent::Kind kind, json object = nullptr) {
    out_.events.push_back({kind, std::move(object)});
  }

  void go_on() {
    WatchAction& action = out_.action;
    if (state().phase == Phase::kWatch || state().phase == Phase::kWatching) {
      state().phase = Phase::kWatching;
      state().partial.clear();
      state().any_bytes = false;
      state().watch_began = now_;
      action.kind = WatchAction::Kind::kWatch;
      action.watch.resource_version = state().resource_version;
      action.watch.timeout_s =
          kWatchShortestTimeoutS + static_cast<int>(random_ * kWatchShortestTimeoutS);
      return;
    }
    state().phase = Phase::kListing;
    action.kind = WatchAction::Kind::kList;
    action.list.continue_token = state().continue_token;
    action.list.limit = state().page_size;
  }

  // Waits, longer with each failure in a row, and goes on with `next`. A list starts over.
  void retry(Phase next, std::string error, Millis at_least = Millis(0)) {
    const bool in_a_row =
        state().delay.count() > 0 && now_ - state().last_failure < state().delay + kWatchHealthy;
    state().delay = in_a_row ? std::min(state().delay * 2, kWatchLongestDelay) : kWatchFirstDelay;
    state().last_failure = now_;
    state().phase = next;
    if (next == Phase::kList) state().continue_token.clear();
    const auto stretched = std::chrono::duration_cast<Millis>(state().delay * (1.0 + random_));
    out_.action.kind = WatchAction::Kind::kWait;
    out_.action.delay = std::max(stretched, at_least);
    out_.action.error = std::move(error);
  }

  // What we know is too old: lists at once, without counting it as a failure unless that happens in
  // a row.
  void list_again(const std::string& why) {
    if (now_ - state().last_failure < kWatchFirstDelay) return retry(Phase::kList, why);
    state().last_failure = now_;
    state().phase = Phase::kList;
    state().continue_token.clear();
    out_.action.kind = WatchAction::Kind::kWait;
    out_.action.delay = Millis(0);
  }

  static ApiError refusal(const HttpResponse& answer, const char* what) {
    return api_error(answer.status, answer.body, answer.retry_after_s(), what);
  }

  void list_refused(const HttpResponse& answer) {
    const ApiError error = refusal(answer, "list");
    if (error.expired() && !state().continue_token.empty()) {
      state().page_size = 0;  // the pages took longer than the server keeps them
      return list_again(error.message);
    }
    retry(Phase::kList, error.message, Seconds(error.retry_after_s));
  }

  void watch_refused(const HttpResponse& answer) {
    const ApiError error = refusal(answer, "watch");
    if (error.expired()) return list_again(error.message);
    const bool may_help = error.kind == ErrorKind::kTransient || error.code == 429;
    retry(may_help ? Phase::kWatch : Phase::kList, error.message, Seconds(error.retry_after_s));
  }

  void take_page(json page) {
    const bool first = state().continue_token.empty();
    name_list_items(page);
    const json& metadata = page["metadata"];
    state().continue_token = metadata.value("continue", std::string());
    state().resource_version = metadata.value("resourceVersion", std::string());
    if (first) emit(WatchEvent::Kind::kInit);
    for (json& item : page["items"]) emit(WatchEvent::Kind::kInitApply, std::move(item));
    if (state().continue_token.empty()) {
      emit(WatchEvent::Kind::kInitDone,
           {{"metadata", {{"resourceVersion", state().resource_version}}}});
      state().page_size = kWatchPageSize;
      state().phase = Phase::kWatch;
    }
    go_on();
  }

  void take_line(const std::string& line) {
    json event = parse_answer(line);
    const bool readable =
        event.is_object() && event["type"].is_string() && event["object"].is_object();
    if (!readable) return retry(Phase::kList, "a watch event cannot be read");
    const std::string type = event["type"];
    json object = std::move(event["object"]);
    if (type == "ERROR") return in_stream_error(object);
    const std::string version = text_of(member(object, "metadata"), "resourceVersion");
    if (version.empty()) return retry(Phase::kList, "a watch event has no resource version");
    if (type == "ADDED" || type == "MODIFIED") {
      emit(WatchEvent::Kind::kApply, std::move(object));
    } else if (type == "DELETED") {
      emit(WatchEvent::Kind::kDelete, std::move(object));
    } else if (type != "BOOKMARK") {
      return retry(Phase::kList, "unknown watch event " + type);
    }
    state().resource_version = version;
  }

  void in_stream_error(const json& status) {
    const ApiError error = api_error(status.value("code", 0), status.dump(), 0, "watch");
    if (error.expired()) return list_again(error.message);
    // The server has no time: what we have seen stays good. Anything else: start over.
    retry(error.code == 429 ? Phase::kWatch : Phase::kList, error.message,
          Seconds(error.retry_after_s));
  }

  const TimePoint now_;
  const double random_;
  WatchStep out_;
};

}  // namespace

WatchStep step(WatchState state, const WatchInput& input, TimePoint now, double random) {
  Machine machine(std::move(state), now, random);
  try {
    std::visit(machine, input);
  } catch (const json::exception&) {
    machine.unreadable();
  }
  return machine.take();
}

}  // namespace dsm::kube

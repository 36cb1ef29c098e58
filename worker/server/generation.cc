#include "worker/server/generation.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace dsm::server {
namespace {

double seconds(TimePoint from, TimePoint to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

Generation::Generation(GenerationEnv& env, GenerationSpec spec,
                       std::shared_ptr<http::Exchange> exchange)
    : env_(env), spec_(std::move(spec)), exchange_(std::move(exchange)) {
  last_sent_ = spec_.arrived;
  const auto n = static_cast<std::size_t>(spec_.n);
  for (std::size_t i = 0; i < spec_.sequences.size(); ++i) {
    if (i % n == 0) prompt_tokens_ += static_cast<int>(spec_.sequences[i].prompt.size());
    max_tokens_ = std::max(max_tokens_, spec_.sequences[i].max_tokens);
    choices_.push_back({.output = std::move(spec_.outputs[i])});
    choices_.back().text.has_reasoning = spec_.reasoning == ChoiceOutput::Reasoning::kInside;
  }
  open_choices_ = choices_.size();
}

void Generation::start() {
  const std::shared_ptr<http::Exchange> exchange = exchange_;
  {
    // Events that come before all sequences are known wait for this lock on the outlet's thread.
    const std::lock_guard lock(mutex_);
    for (std::size_t i = 0; i < spec_.sequences.size(); ++i) {
      auto submitted =
          env_.engine.submit(std::move(spec_.sequences[i]),
                             [self = shared_from_this(), i](const engine::TokenEvent& event) {
                               self->on_event(i, event);
                             });
      if (!submitted) {
        const ApiError error = from_engine(submitted.error(), spec_.prompt_param);
        env_.metrics.rejected(error.status == 429   ? error.code
                              : error.status >= 500 ? "unavailable"
                                                    : "invalid");
        fail_request(error, "rejected");
        return;
      }
      choices_[i].sequence = *submitted;
    }
    spec_.sequences.clear();
  }
  // The callback must not keep this alive: the engine and the outlet do.
  exchange->on_close([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self) return;
    {
      const std::lock_guard lock(self->inbox_mutex_);
      self->gone_ = true;
    }
    self->env_.outlet.post([self] { self->process(); });
  });
}

void Generation::on_event(std::size_t choice, const engine::TokenEvent& event) {
  const TimePoint now = env_.clock.now();
  const std::lock_guard lock(inbox_mutex_);
  inbox_.push_back({.choice = choice, .event = event, .at = now});
  if (std::exchange(scheduled_, true)) return;
  env_.outlet.post([self = shared_from_this()] { self->process(); });
}

void Generation::process() {
  const std::lock_guard lock(mutex_);
  std::vector<Event> events;
  bool gone = false;
  {
    const std::lock_guard inbox_lock(inbox_mutex_);
    events.swap(inbox_);
    scheduled_ = false;
    gone = gone_;
  }
  for (const Event& event : events) {
    if (ended_) return;
    take(event);
    if (!ended_) check_reader();
  }
  if (gone && !ended_) end("cancelled");
}

// Tokens to text, up to the end that a stop string makes.
ChoiceOutput::Delta Generation::push_tokens(ChoiceState& choice, const Event& event) {
  const engine::TokenEvent& from = event.event;
  ChoiceOutput::Delta delta;
  if (!from.prompt_logprobs.empty()) choice.output.prompt(from.prompt_logprobs);
  for (std::size_t i = 0; i < from.tokens.size() && !delta.stopped; ++i) {
    if (!first_token_) {
      first_token_ = event.at;
      env_.metrics.first_token(seconds(spec_.arrived, event.at));
    }
    if (choice.last_token) env_.metrics.next_token(seconds(*choice.last_token, event.at));
    choice.last_token = event.at;
    delta.append(
        choice.output.push(from.tokens[i], i < from.logprobs.size() ? &from.logprobs[i] : nullptr));
  }
  const bool complete = from.finished && (*from.finished == engine::FinishReason::kStop ||
                                          *from.finished == engine::FinishReason::kLength);
  if (complete && !delta.stopped) delta.append(choice.output.finish());
  return delta;
}

void Generation::take(const Event& event) {
  ChoiceState& choice = choices_[event.choice];
  if (choice.done) return;  // what the engine computed beyond a stop string
  choice.cached_tokens = std::max(choice.cached_tokens, event.event.cached_prompt_tokens);
  choice.times = event.event.times;
  ChoiceOutput::Delta text = push_tokens(choice, event);
  ChoiceDelta delta{.index = static_cast<int>(event.choice),
                    .content = std::move(text.content),
                    .reasoning = std::move(text.reasoning),
                    .tool_calls = std::move(text.tool_calls),
                    .logprobs = std::move(text.logprobs),
                    .prompt_logprobs = std::move(text.prompt_logprobs)};
  const auto& finished = event.event.finished;
  if (text.stopped) {
    env_.engine.cancel(choice.sequence);
    return end_choice(event.choice, engine::FinishReason::kStop, std::move(delta));
  }
  if (!finished) return emit(event.choice, std::move(delta));
  if (*finished == engine::FinishReason::kStop || *finished == engine::FinishReason::kLength) {
    return end_choice(event.choice, *finished, std::move(delta));
  }
  emit(event.choice, std::move(delta));
  fail_finished(*finished, event.event.error);
}

// A sequence that ended without an answer ends the request.
void Generation::fail_finished(engine::FinishReason reason, const std::optional<Error>& cause) {
  switch (reason) {
    case engine::FinishReason::kDeadline:
      return fail_request({.status = 408,
                           .message = "the request's time is over",
                           .param = "",
                           .code = "deadline_exceeded",
                           .retry_after_s = 0},
                          "deadline");
    case engine::FinishReason::kCancelled:
      return fail_request(unavailable("the server is shutting down", 1), "cancelled");
    default: {
      const Error error =
          cause.value_or(Error{ErrorKind::kInternal, "the model failed in this step", 0});
      if (error.kind == ErrorKind::kTransient && !error.reason.empty()) {
        return fail_request(from_engine(error, spec_.prompt_param), "cancelled");
      }
      return fail_request({.status = 500,
                           .message = "the model failed: " + error.message,
                           .param = "",
                           .code = "internal_error",
                           .retry_after_s = 0},
                          "error");
    }
  }
}

// A piece of a choice; the first one, which may be empty, tells that the choice has begun.
void Generation::emit(std::size_t index, ChoiceDelta delta) {
  ChoiceState& choice = choices_[index];
  const bool last = !delta.finish_reason.empty();
  const bool first = !choice.begun && (last || choice.output.tokens() > 0);
  const bool numbers = !delta.logprobs.empty() || !delta.prompt_logprobs.empty();
  if (!first && !last && !delta.has_text() && !numbers) return;
  delta.role = first;
  choice.begun = choice.begun || first;
  if (!spec_.options.stream) return append(choice.text, std::move(delta));
  const Usage so_far = usage();
  std::string bytes;
  if (!std::exchange(stream_open_, true)) bytes = spec_.writer->open(so_far);
  bytes += spec_.writer->delta(delta, so_far);
  send(std::move(bytes));
}

void Generation::end_choice(std::size_t index, engine::FinishReason reason, ChoiceDelta last) {
  ChoiceState& choice = choices_[index];
  choice.done = true;
  finish_reason_ = reason == engine::FinishReason::kLength ? "length" : "stop";
  last.finish_reason = choice.output.finish_reason(reason);
  last.stop_string = choice.output.stop_string().value_or("");
  emit(index, std::move(last));
  if (--open_choices_ == 0) complete();
}

void Generation::start_stream() {
  if (std::exchange(stream_started_, true)) return;
  exchange_->start(200, {{"Content-Type", spec_.writer->stream_type()},
                         {"Cache-Control", "no-cache"},
                         {"X-Accel-Buffering", "no"},
                         {"X-Request-Id", spec_.request_id}});
}

void Generation::send(std::string bytes) {
  if (bytes.empty()) return;
  start_stream();
  largest_sent_ = std::max(largest_sent_, bytes.size());
  exchange_->write(std::move(bytes));
  last_sent_ = env_.clock.now();
}

// What was sent at once, as the numbers of a long prompt are, the client cannot have read yet.
void Generation::check_reader() {
  if (exchange_->buffered_bytes() <= env_.unread_bytes + largest_sent_) return;
  exchange_->abort();
  end("slow_reader");
}

void Generation::complete() {
  if (spec_.options.stream) {
    send(spec_.writer->close(usage()));
    exchange_->finish();
  } else {
    std::vector<Choice> texts;
    texts.reserve(choices_.size());
    for (ChoiceState& choice : choices_) texts.push_back(std::move(choice.text));
    http::Response response;
    response.content_type = spec_.writer->whole_type();
    response.body = spec_.writer->whole(texts, usage());
    response.headers["X-Request-Id"] = spec_.request_id;
    exchange_->respond(std::move(response));
  }
  end(finish_reason_);
}

void Generation::fail_request(const ApiError& error, const std::string& reason) {
  if (stream_started_) {
    std::string bytes = stream_open_ ? "" : spec_.writer->open(usage());
    send(bytes + spec_.writer->error(error));
    exchange_->finish();
  } else {
    http::Response response = spec_.writer->refusal(error);
    response.headers["X-Request-Id"] = spec_.request_id;
    exchange_->respond(std::move(response));
  }
  end(reason);
}

void Generation::abort(const ApiError& error) {
  const std::lock_guard lock(mutex_);
  if (!ended_) fail_request(error, "cancelled");
}

void Generation::keep_alive(TimePoint now) {
  const std::lock_guard lock(mutex_);
  if (ended_ || !spec_.options.stream || now - last_sent_ < kKeepAlive) return;
  send(spec_.writer->keep_alive());
  check_reader();
}

void Generation::end(const std::string& reason) {
  ended_ = true;
  for (ChoiceState& choice : choices_) {
    if (!choice.done && choice.sequence != 0) env_.engine.cancel(choice.sequence);
    choice.done = true;
  }
  const Usage used = usage();
  if (reason != "rejected") {
    WorkerMetrics::Finished finished{.reason = reason,
                                     .seconds = since_arrival(),
                                     .prompt_tokens = used.prompt_tokens,
                                     .generation_tokens = used.completion_tokens,
                                     .n = spec_.n,
                                     .max_tokens = max_tokens_,
                                     .times = times()};
    for (const ChoiceState& choice : choices_) {
      finished.longest_choice = std::max(finished.longest_choice, choice.output.tokens());
    }
    env_.metrics.finished(finished);
  }
  env_.log.info("request ended", {{"request_id", spec_.request_id},
                                  {"reason", reason},
                                  {"prompt_tokens", used.prompt_tokens},
                                  {"cached_tokens", used.cached_tokens},
                                  {"completion_tokens", used.completion_tokens},
                                  {"seconds", since_arrival()}});
  exchange_.reset();
  env_.drain.leave();
}

Usage Generation::usage() const {
  Usage now{.prompt_tokens = prompt_tokens_};
  const auto n = static_cast<std::size_t>(spec_.n);
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    // A prompt counts once, however many choices it has.
    if (i % n == 0) now.cached_tokens += choices_[i].cached_tokens;
    now.completion_tokens += choices_[i].output.tokens();
    now.reasoning_tokens += choices_[i].output.reasoning_tokens();
  }
  return now;
}

// From where the first of its sequences came to where the last did.
engine::SequenceTimes Generation::times() const {
  engine::SequenceTimes all;
  for (const ChoiceState& choice : choices_) {
    const engine::SequenceTimes& one = choice.times;
    if (!one.started) continue;
    if (!all.started) all = one;
    all.submitted = std::min(all.submitted, one.submitted);
    all.started = std::min(all.started, one.started);
    if (!all.first_token) all.first_token = one.first_token;
    if (one.first_token) all.first_token = std::min(all.first_token, one.first_token);
    all.last_token = std::max(all.last_token, one.last_token);
  }
  return all;
}

double Generation::since_arrival() const {
  return seconds(spec_.arrived, env_.clock.now());
}

}  // namespace dsm::server

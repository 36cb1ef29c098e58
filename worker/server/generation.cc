#include "worker/server/generation.h"

#include <algorithm>
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
    choices_.push_back({.sequence = 0,
                        .output = std::move(spec_.outputs[i]),
                        .text = {},
                        .cached_tokens = 0,
                        .last_token = std::nullopt});
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
        env_.metrics.rejected(error.status == 429   ? "queue_full"
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
  }
  if (gone && !ended_) end("cancelled");
}

void Generation::take(const Event& event) {
  ChoiceState& choice = choices_[event.choice];
  if (choice.done) return;  // what the engine computed beyond a stop string
  choice.cached_tokens = std::max(choice.cached_tokens, event.event.cached_prompt_tokens);
  ChoiceOutput::Delta delta;
  if (!event.event.prompt_logprobs.empty()) choice.output.prompt(event.event.prompt_logprobs);
  for (std::size_t i = 0; i < event.event.tokens.size() && !delta.stopped; ++i) {
    if (!std::exchange(any_token_, true)) {
      env_.metrics.first_token(seconds(spec_.arrived, event.at));
    }
    if (choice.last_token) env_.metrics.next_token(seconds(*choice.last_token, event.at));
    choice.last_token = event.at;
    const auto& logprobs = event.event.logprobs;
    delta.append(
        choice.output.push(event.event.tokens[i], i < logprobs.size() ? &logprobs[i] : nullptr));
  }
  const auto& finished = event.event.finished;
  if (!delta.stopped && finished &&
      (*finished == engine::FinishReason::kStop || *finished == engine::FinishReason::kLength)) {
    delta.append(choice.output.finish());
  }
  emit(event.choice, std::move(delta));
  if (choice.done || !finished) return;
  switch (*finished) {
    case engine::FinishReason::kStop:
    case engine::FinishReason::kLength:
      return end_choice(event.choice, choice.output.finish_reason(*finished));
    case engine::FinishReason::kDeadline:
      return fail_request({.status = 504,
                           .message = "the request's time is over",
                           .param = "",
                           .code = "deadline_exceeded",
                           .retry_after_s = 0},
                          "deadline");
    case engine::FinishReason::kCancelled:
      return fail_request(unavailable("the server is shutting down", 1), "cancelled");
    case engine::FinishReason::kError: {
      const Error error = event.event.error.value_or(
          Error{ErrorKind::kInternal, "the model failed in this step", 0});
      return fail_request({.status = 500,
                           .message = "the model failed: " + error.message,
                           .param = "",
                           .code = "internal_error",
                           .retry_after_s = 0},
                          "error");
    }
  }
}

void Generation::send_chunk(const ChoiceDelta& delta) {
  const auto now = spec_.options.continuous_usage ? std::optional(usage()) : std::nullopt;
  send(chunk_json(spec_.head, delta, spec_.options.include_usage, now));
}

// Text of a choice, and its end when a stop string came. The first chunk of a chat tells the role.
void Generation::emit(std::size_t index, ChoiceOutput::Delta delta) {
  ChoiceState& choice = choices_[index];
  if (spec_.options.stream) {
    ChoiceDelta chunk{.index = static_cast<int>(index)};
    if (spec_.head.kind == ApiKind::kChat && !choice.role_sent && choice.output.tokens() > 0) {
      choice.role_sent = true;
      chunk.role = true;
      send_chunk(chunk);
      chunk.role = false;
    }
    if (!delta.content.empty() || !delta.reasoning.empty()) {
      chunk.content = std::move(delta.content);
      chunk.reasoning = std::move(delta.reasoning);
      send_chunk(chunk);
    }
  } else {
    choice.text.content += delta.content;
    choice.text.reasoning += delta.reasoning;
  }
  if (!delta.stopped) return;
  env_.engine.cancel(choice.sequence);
  end_choice(index, choice.output.finish_reason(engine::FinishReason::kStop));
}

void Generation::end_choice(std::size_t index, const std::string& finish_reason) {
  ChoiceState& choice = choices_[index];
  choice.done = true;
  choice.text.finish_reason = finish_reason;
  finish_reason_ = finish_reason;
  if (spec_.options.stream) {
    ChoiceDelta chunk{.index = static_cast<int>(index)};
    if (spec_.head.kind == ApiKind::kChat && !std::exchange(choice.role_sent, true)) {
      chunk.role = true;  // an answer without a token has its first chunk too
      send_chunk(chunk);
      chunk.role = false;
    }
    chunk.finish_reason = finish_reason;
    send_chunk(chunk);
  }
  if (--open_choices_ == 0) complete();
}

void Generation::open_stream() {
  if (std::exchange(stream_open_, true)) return;
  exchange_->start(200, {{"Content-Type", "text/event-stream; charset=utf-8"},
                         {"Cache-Control", "no-cache"},
                         {"X-Accel-Buffering", "no"},
                         {"X-Request-Id", spec_.request_id}});
}

void Generation::send(const std::string& data) {
  open_stream();
  exchange_->write(sse_event(data));
  last_sent_ = env_.clock.now();
}

void Generation::complete() {
  if (spec_.options.stream) {
    if (spec_.options.include_usage) send(usage_chunk_json(spec_.head, usage()));
    exchange_->write(kSseDone);
    exchange_->finish();
  } else {
    std::vector<Choice> texts;
    texts.reserve(choices_.size());
    for (ChoiceState& choice : choices_) texts.push_back(std::move(choice.text));
    http::Response response;
    response.body = answer_json(spec_.head, texts, usage());
    response.headers["X-Request-Id"] = spec_.request_id;
    exchange_->respond(std::move(response));
  }
  end(finish_reason_);
}

void Generation::fail_request(const ApiError& error, const std::string& reason) {
  if (stream_open_) {
    exchange_->write(sse_event(error_json(error)));
    exchange_->finish();
  } else {
    http::Response response = error_response(error);
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
  open_stream();
  exchange_->write(kSseComment);
  last_sent_ = now;
}

void Generation::end(const std::string& reason) {
  ended_ = true;
  for (ChoiceState& choice : choices_) {
    if (!choice.done && choice.sequence != 0) env_.engine.cancel(choice.sequence);
    choice.done = true;
  }
  const Usage used = usage();
  if (reason != "rejected") {
    env_.metrics.finished({.reason = reason,
                           .seconds = since_arrival(),
                           .prompt_tokens = used.prompt_tokens,
                           .generation_tokens = used.completion_tokens});
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

double Generation::since_arrival() const {
  return seconds(spec_.arrived, env_.clock.now());
}

}  // namespace dsm::server

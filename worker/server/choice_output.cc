#include "worker/server/choice_output.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <utility>

#include "base/random.h"

namespace dsm::server {
namespace {

template <typename T>
void move_behind(std::vector<T>& to, std::vector<T>&& from) {
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

std::vector<engine::PositionLogprobs> with_top(std::vector<engine::PositionLogprobs> positions,
                                               int top) {
  for (auto& position : positions) {
    if (position.top.size() > static_cast<std::size_t>(top)) {
      position.top.resize(static_cast<std::size_t>(top));
    }
  }
  return positions;
}

}  // namespace

void ChoiceOutput::Delta::append(Delta more) {
  content += more.content;
  reasoning += more.reasoning;
  move_behind(tool_calls, std::move(more.tool_calls));
  move_behind(logprobs, std::move(more.logprobs));
  move_behind(prompt_logprobs, std::move(more.prompt_logprobs));
  stopped = stopped || more.stopped;
}

ChoiceOutput::ChoiceOutput(std::unique_ptr<text::OutputParser> parser, Options options)
    : parser_(std::move(parser)),
      stops_(std::move(options.stops), options.include_stop),
      options_(std::move(options)) {
  if (!options_.make_call_id) options_.make_call_id = [] { return "call_" + random_hex(12); };
}

void ChoiceOutput::prompt(std::vector<engine::PositionLogprobs> logprobs) {
  prompt_logprobs_ = std::move(logprobs);
}

// What stands before the first token: the prompt and what is told of it.
void ChoiceOutput::begin(Delta& delta) {
  if (std::exchange(begun_, true)) return;
  if (options_.prompt_logprobs >= 0) {
    delta.prompt_logprobs = with_top(prompt_logprobs_, options_.prompt_logprobs);
  }
  if (!options_.echo) return;
  delta.content += options_.echo->text;
  if (options_.echo->logprobs < 0 || options_.echo->tokens.empty()) return;
  // Nothing stands before the first token that could make it more or less likely.
  delta.logprobs.push_back({.chosen = {.token = options_.echo->tokens.front(),
                                       .logprob = std::numeric_limits<float>::quiet_NaN()},
                            .top = {}});
  move_behind(delta.logprobs, with_top(std::move(prompt_logprobs_), options_.echo->logprobs));
}

ChoiceOutput::Delta ChoiceOutput::push(engine::TokenId token,
                                       const engine::PositionLogprobs* logprobs) {
  Delta delta;
  begin(delta);
  if (stopped_) return delta;
  ++tokens_;
  if (logprobs != nullptr) {
    waiting_.push_back({.logprobs = *logprobs, .begin = parsed_, .end = std::nullopt});
  }
  delta.append(checked(parser_->push(token)));
  return delta;
}

ChoiceOutput::Delta ChoiceOutput::finish() {
  Delta delta;
  begin(delta);
  if (stopped_) return delta;
  delta.append(checked(parser_->finish()));
  if (!stopped_) release(delta, stops_.flush());
  release_logprobs(delta, /*at_end=*/true);
  return delta;
}

void ChoiceOutput::release(Delta& delta, std::string_view text) {
  released_ += text.size();
  delta.content += text;
}

ChoiceOutput::Delta ChoiceOutput::checked(text::OutputParser::Delta raw) {
  Delta delta;
  parsed_ += raw.content.size();
  if (!raw.empty()) {
    for (Waiting& token : waiting_) {
      if (!token.end) token.end = parsed_;
    }
  }
  delta.reasoning = std::move(raw.reasoning);
  text::StopChecker::Output output = stops_.push(raw.content);
  release(delta, output.text);
  stopped_ = output.stopped;
  for (text::ToolCallPiece& piece : raw.tool_calls) {
    if (stopped_) break;
    // No stop string goes on behind a call.
    release(delta, stops_.flush());
    if (options_.one_tool_call && piece.index > 0) {
      stopped_ = true;
      break;
    }
    called_ = true;
    ToolCallDelta call{.index = piece.index};
    if (!piece.name.empty()) call.id = options_.make_call_id();
    call.name = std::move(piece.name);
    call.arguments = std::move(piece.arguments);
    delta.tool_calls.push_back(std::move(call));
  }
  delta.stopped = stopped_;
  release_logprobs(delta, /*at_end=*/false);
  return delta;
}

void ChoiceOutput::release_logprobs(Delta& delta, bool at_end) {
  while (!waiting_.empty()) {
    Waiting& token = waiting_.front();
    const std::size_t end = token.end.value_or(parsed_);
    const bool out = stopped_ ? token.begin < released_ || end == token.begin
                              : token.end.has_value() && end <= released_;
    if (!out && !at_end && !stopped_) return;
    if (out || (at_end && !stopped_)) delta.logprobs.push_back(std::move(token.logprobs));
    waiting_.pop_front();
  }
}

std::string ChoiceOutput::finish_reason(engine::FinishReason reason) const {
  if (reason == engine::FinishReason::kLength) return "length";
  return called_ ? "tool_calls" : "stop";
}

}  // namespace dsm::server

// OpenAI's text completions.
#include <algorithm>
#include <cmath>
#include <utility>

#include "worker/server/answer_json.h"
#include "worker/server/answer_writer.h"
#include "worker/text/utf8.h"

namespace dsm::server {
namespace {

// Characters that begin in these bytes: a token may hold a part of one.
std::size_t characters(std::string_view bytes) {
  return static_cast<std::size_t>(std::count_if(bytes.begin(), bytes.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

class CompletionWriter final : public AnswerWriter {
 public:
  CompletionWriter(AnswerForm form, const text::Tokenizer& tokenizer)
      : form_(std::move(form)), tokenizer_(tokenizer) {}

  std::string whole(const std::vector<Choice>& choices, const Usage& usage) override {
    Json json = head();
    Json list = Json::array();
    for (std::size_t i = 0; i < choices.size(); ++i) {
      const Choice& choice = choices[i];
      std::size_t offset = 0;
      Json one = {{"index", i}, {"text", choice.content}};
      one["logprobs"] = form_.logprobs ? logprobs(choice.logprobs, offset) : Json();
      one["finish_reason"] = choice.finish_reason;
      if (!choice.prompt_logprobs.empty()) {
        one["prompt_logprobs"] = prompt_logprobs_array(tokenizer_, choice.prompt_logprobs);
      }
      list.push_back(std::move(one));
    }
    json["choices"] = std::move(list);
    json["usage"] = usage_object(usage);
    return dump(json);
  }

  std::string open(const Usage& /*so_far*/) override { return ""; }

  std::string delta(const ChoiceDelta& delta, const Usage& so_far) override {
    std::string text;
    if (!delta.content.empty() || !delta.logprobs.empty() || !delta.prompt_logprobs.empty()) {
      Json piece = chunk(delta.index, delta.content, so_far);
      Json& choice = piece["choices"][0];
      if (!delta.logprobs.empty()) {
        const auto index = static_cast<std::size_t>(delta.index);
        if (index >= offsets_.size()) offsets_.resize(index + 1);
        choice["logprobs"] = logprobs(delta.logprobs, offsets_[index]);
      }
      if (!delta.prompt_logprobs.empty()) {
        choice["prompt_logprobs"] = prompt_logprobs_array(tokenizer_, delta.prompt_logprobs);
      }
      text += sse_event(dump(piece));
    }
    if (!delta.finish_reason.empty()) {
      Json last = chunk(delta.index, "", so_far);
      last["choices"][0]["finish_reason"] = delta.finish_reason;
      text += sse_event(dump(last));
    }
    return text;
  }

  std::string close(const Usage& usage) override {
    std::string text;
    if (form_.include_usage) {
      Json json = head();
      json["choices"] = Json::array();
      json["usage"] = usage_object(usage);
      text = sse_event(dump(json));
    }
    return text + kSseDone;
  }

  std::string error(const ApiError& error) override { return sse_event(error_json(error)); }

 private:
  Json head() const {
    return {{"id", form_.head.id},
            {"object", "text_completion"},
            {"created", form_.head.created},
            {"model", form_.head.model}};
  }

  Json chunk(int index, const std::string& content, const Usage& so_far) const {
    Json json = head();
    json["choices"] = Json::array(
        {{{"index", index}, {"text", content}, {"logprobs", nullptr}, {"finish_reason", nullptr}}});
    if (form_.continuous_usage) {
      json["usage"] = usage_object(so_far);
    } else if (form_.include_usage) {
      json["usage"] = nullptr;
    }
    return json;
  }

  // Tokens are keys here, so one that is not whole characters says that it is bytes.
  std::string name(engine::TokenId token) const {
    const bool whole = text::is_valid_utf8(tokenizer_.piece(token));
    return (whole ? "" : "bytes:") + token_text(tokenizer_, token);
  }

  // `offset` counts the characters of the choice before these tokens, and goes on.
  Json logprobs(const std::vector<engine::PositionLogprobs>& positions, std::size_t& offset) const {
    Json tokens = Json::array();
    Json values = Json::array();
    Json tops = Json::array();
    Json offsets = Json::array();
    for (const engine::PositionLogprobs& position : positions) {
      tokens.push_back(name(position.chosen.token));
      // Not a number: an echoed prompt's first token, of which nothing can be told.
      const float chosen = position.chosen.logprob;
      values.push_back(std::isnan(chosen) ? Json() : Json(finite_logprob(chosen)));
      Json top = Json::object();
      for (const engine::TokenLogprob& likely : position.top) {
        top[name(likely.token)] = finite_logprob(likely.logprob);
      }
      tops.push_back(position.top.empty() ? Json() : std::move(top));
      offsets.push_back(offset);
      offset += characters(tokenizer_.piece(position.chosen.token));
    }
    return {{"tokens", std::move(tokens)},
            {"token_logprobs", std::move(values)},
            {"top_logprobs", std::move(tops)},
            {"text_offset", std::move(offsets)}};
  }

  const AnswerForm form_;
  const text::Tokenizer& tokenizer_;
  std::vector<std::size_t> offsets_;  // of each choice
};

}  // namespace

std::unique_ptr<AnswerWriter> make_completion_writer(AnswerForm form,
                                                     const text::Tokenizer& tokenizer) {
  return std::make_unique<CompletionWriter>(std::move(form), tokenizer);
}

}  // namespace dsm::server

// The forms of a chat that are not OpenAI's chat completions, and what needs the tokenizer alone.
#include <utility>

#include "base/random.h"
#include "worker/server/answer_json.h"
#include "worker/server/api.h"
#include "worker/server/inference_request.h"
#include "worker/server/messages_request.h"
#include "worker/server/responses_request.h"

namespace dsm::server {
namespace {

http::Response json_response(const http::Request& request, const Json& json) {
  http::Response response;
  response.body = dump(json);
  response.headers["X-Request-Id"] = request_id_of(request);
  return response;
}

// Errors about the conversation name the field that holds it here.
Parsed<GenerationSpec> with_prompt_param(Parsed<GenerationSpec> made, const char* param) {
  if (!made && made.error().param == "messages") made.error().param = param;
  if (made) made->prompt_param = param;
  return made;
}

}  // namespace

Parsed<GenerationSpec> Api::responses_spec(const http::Request& request) const {
  auto parsed = parse_responses(request.body, model_.defaults);
  if (!parsed) return std::unexpected(parsed.error());
  auto made = with_prompt_param(chat_spec(request, std::move(parsed->chat)), "input");
  if (!made) return made;
  made->head.id = "resp_" + random_hex(16);
  made->writer = make_responses_writer(made->head, parsed->echo);
  return made;
}

Parsed<GenerationSpec> Api::messages_spec(const http::Request& request) const {
  auto made = chat_spec(request, parse_messages(request.body, model_.defaults, /*generates=*/true));
  if (!made) return made;
  made->head.id = "msg_" + random_hex(12);
  made->writer = make_messages_writer(made->head, made->request_id);
  return made;
}

Parsed<GenerationSpec> Api::inference_spec(const http::Request& request,
                                           const WriterMaker& make_writer) const {
  auto made = with_prompt_param(
      chat_spec(request, parse_inference(request.body, model_.name, model_.defaults)), "prompt");
  if (!made) return made;
  made->head.id = "inf-" + random_hex(12);
  made->writer = make_writer(made->head);
  return made;
}

void Api::responses(std::shared_ptr<http::Exchange> exchange) {
  run(std::move(exchange),
      [this](const http::Request& request) { return responses_spec(request); });
}

void Api::messages(std::shared_ptr<http::Exchange> exchange) {
  run(std::move(exchange), [this](const http::Request& request) { return messages_spec(request); });
}

void Api::inference(std::shared_ptr<http::Exchange> exchange) {
  inference(std::move(exchange), make_inference_writer);
}

void Api::inference(std::shared_ptr<http::Exchange> exchange, const WriterMaker& make_writer) {
  run(std::move(exchange), [this, &make_writer](const http::Request& request) {
    return inference_spec(request, make_writer);
  });
}

Parsed<std::vector<engine::TokenId>> Api::prompt_tokens(const ChatRequest& chat) const {
  if (const auto known = adapter_named(model_, chat.model); !known) {
    return std::unexpected(known.error());
  }
  auto prompt = model_.chat_template.encode(model_.tokenizer, chat.messages, chat.template_options);
  if (!prompt) return template_error(prompt.error());
  return std::move(prompt->ids);
}

http::Response Api::count_tokens(const http::Request& request) const {
  const auto chat = parse_messages(request.body, model_.defaults, /*generates=*/false);
  if (!chat) return refusal(request, request_id_of(request), chat.error());
  const auto ids = prompt_tokens(*chat);
  if (!ids) return refusal(request, request_id_of(request), ids.error());
  return json_response(request, {{"input_tokens", ids->size()}});
}

http::Response Api::tokenize(const http::Request& request) const {
  const auto refuse = [&](const ApiError& error) {
    return refusal(request, request_id_of(request), error);
  };
  const auto asked = parse_tokenize(request.body, model_.name, model_.defaults);
  if (!asked) return refuse(asked.error());
  if (const auto known = adapter_named(model_, asked->model); !known) return refuse(known.error());
  std::vector<engine::TokenId> ids;
  if (const auto* text = std::get_if<std::string>(&asked->prompt)) {
    ids = asked->add_special_tokens ? model_.tokenizer.encode_prompt(*text)
                                    : model_.tokenizer.encode(*text, text::SpecialTokens::kAllow);
  } else {
    auto encoded = prompt_tokens(std::get<ChatRequest>(asked->prompt));
    if (!encoded) return refuse(encoded.error());
    ids = std::move(*encoded);
  }
  Json strings = nullptr;
  if (asked->return_token_strs) {
    strings = Json::array();
    for (const engine::TokenId id : ids) strings.push_back(token_text(model_.tokenizer, id));
  }
  return json_response(request, {{"count", ids.size()},
                                 {"max_model_len", model_.max_model_len},
                                 {"tokens", ids},
                                 {"token_strs", std::move(strings)}});
}

http::Response Api::detokenize(const http::Request& request) const {
  const auto asked = parse_detokenize(request.body, model_.name, model_.vocab_size);
  const auto refuse = [&](const ApiError& error) {
    return refusal(request, request_id_of(request), error);
  };
  if (!asked) return refuse(asked.error());
  if (const auto known = adapter_named(model_, asked->model); !known) return refuse(known.error());
  return json_response(
      request, {{"prompt", model_.tokenizer.decode(asked->tokens, /*skip_special=*/false)}});
}

}  // namespace dsm::server

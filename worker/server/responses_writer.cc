// OpenAI's Responses. An answer is a list of items: the thought (`reasoning`), the text (`message`)
// and the tool calls (`function_call`), one after the other. In a stream each item is announced,
// grows, and is shown whole when the next one begins; events are numbered, and the last one holds
// the whole response.
#include <utility>

#include "worker/server/answer_json.h"
#include "worker/server/answer_writer.h"

namespace dsm::server {
namespace {

enum class ItemKind { kReasoning, kMessage, kFunctionCall };

struct Item {
  ItemKind kind = ItemKind::kMessage;
  std::string id;
  std::string text;  // of the thought, of the message, or the arguments of the call
  std::string call_id = {};
  std::string name = {};
  bool incomplete = false;
};

Json text_part(const Item& item, const std::string& text) {
  if (item.kind == ItemKind::kReasoning) return {{"type", "reasoning_text"}, {"text", text}};
  return {{"type", "output_text"},
          {"text", text},
          {"annotations", Json::array()},
          {"logprobs", Json::array()}};
}

// `open`: as it is announced, with nothing in it.
Json item_object(const Item& item, bool open) {
  const char* status = open ? "in_progress" : (item.incomplete ? "incomplete" : "completed");
  if (item.kind == ItemKind::kFunctionCall) {
    return {{"type", "function_call"},
            {"id", item.id},
            {"call_id", item.call_id},
            {"name", item.name},
            {"arguments", open ? "" : item.text},
            {"status", status}};
  }
  Json content = Json::array();
  if (!open) content.push_back(text_part(item, item.text));
  if (item.kind == ItemKind::kReasoning) {
    return {{"type", "reasoning"},
            {"id", item.id},
            {"summary", Json::array()},
            {"content", std::move(content)},
            {"status", status}};
  }
  return {{"type", "message"},
          {"id", item.id},
          {"role", "assistant"},
          {"content", std::move(content)},
          {"status", status}};
}

Json response_usage(const Usage& usage) {
  return {
      {"input_tokens", usage.prompt_tokens},
      {"input_tokens_details", {{"cached_tokens", usage.cached_tokens}, {"cache_write_tokens", 0}}},
      {"output_tokens", usage.completion_tokens},
      {"output_tokens_details", {{"reasoning_tokens", usage.reasoning_tokens}}},
      {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
}

class ResponsesWriter final : public AnswerWriter {
 public:
  ResponsesWriter(AnswerHead head, const std::string& echo)
      : head_(std::move(head)), echo_(parse_or(echo, Json::object())) {}

  std::string whole(const std::vector<Choice>& choices, const Usage& usage) override {
    const Choice& choice = choices.front();
    if (choice.has_reasoning && !choice.reasoning.empty()) {
      add(ItemKind::kReasoning).text = choice.reasoning;
    }
    if (!choice.content.empty() || choice.tool_calls.empty()) {
      add(ItemKind::kMessage).text = choice.content;
    }
    for (const text::ToolCall& call : choice.tool_calls) {
      Item& item = add(ItemKind::kFunctionCall);
      item.call_id = call.id;
      item.name = call.name;
      item.text = call.arguments;
    }
    finish(choice.finish_reason);
    return dump(response(status(), &usage));
  }

  std::string open(const Usage& /*so_far*/) override {
    const Json empty = response("in_progress", nullptr);
    std::string text = event("response.created", {{"response", empty}});
    text += event("response.in_progress", {{"response", empty}});
    return text;
  }

  std::string delta(const ChoiceDelta& delta, const Usage& /*so_far*/) override {
    std::string text;
    if (!delta.reasoning.empty()) text += grow(ItemKind::kReasoning, delta.reasoning);
    if (!delta.content.empty()) text += grow(ItemKind::kMessage, delta.content);
    for (const ToolCallDelta& piece : delta.tool_calls) text += grow_call(piece);
    if (!delta.finish_reason.empty()) {
      // An answer without a token has its message too.
      if (items_.empty()) text += begin(ItemKind::kMessage);
      finish(delta.finish_reason);
      text += end_item();
    }
    return text;
  }

  std::string close(const Usage& usage) override {
    return event("response." + status(), {{"response", response(status(), &usage)}});
  }

  std::string error(const ApiError& error) override {
    // Clients that follow the events want the first, those that wait for the end the second.
    std::string text =
        event("error", {{"code", code(error)},
                        {"message", error.message},
                        {"param", error.param.empty() ? Json() : Json(error.param)}});
    Json failed = response("failed", nullptr);
    failed["error"] = {{"code", code(error)}, {"message", error.message}};
    return text + event("response.failed", {{"response", std::move(failed)}});
  }

 private:
  static std::string code(const ApiError& error) {
    return error.status == 429 ? "rate_limit_exceeded" : "server_error";
  }
  std::string status() const { return incomplete_ ? "incomplete" : "completed"; }

  // The part of our id that the items' ids share.
  std::string suffix() const { return head_.id.substr(head_.id.find('_') + 1); }

  Item& add(ItemKind kind) {
    const char* prefix = kind == ItemKind::kReasoning ? "rs_"
                         : kind == ItemKind::kMessage ? "msg_"
                                                      : "fc_";
    items_.push_back(
        {.kind = kind, .id = prefix + suffix() + "_" + std::to_string(items_.size()), .text = ""});
    return items_.back();
  }

  void finish(const std::string& finish_reason) {
    incomplete_ = finish_reason == "length";
    if (!items_.empty()) items_.back().incomplete = incomplete_;
  }

  Json response(const std::string& status, const Usage* usage) const {
    Json json = {{"id", head_.id},   {"object", "response"}, {"created_at", head_.created},
                 {"status", status}, {"error", nullptr},     {"incomplete_details", nullptr}};
    if (status == "incomplete") json["incomplete_details"] = {{"reason", "max_output_tokens"}};
    json["model"] = head_.model;
    Json output = Json::array();
    // Before the end the list grows by events of its own.
    if (status != "in_progress") {
      for (const Item& item : items_) output.push_back(item_object(item, false));
    }
    json["output"] = std::move(output);
    for (const auto& [name, value] : echo_.items()) json[name] = value;
    json["previous_response_id"] = nullptr;
    json["store"] = false;
    json["usage"] = usage == nullptr ? Json() : response_usage(*usage);
    return json;
  }

  // Numbers the event: calls must stand in the events' order, so never twice in one expression.
  std::string event(const std::string& type, Json fields) {
    Json json = {{"type", type}, {"sequence_number", sequence_++}};
    json.update(fields);
    return sse_event(type, dump(json));
  }
  // An event about the item that is open.
  std::string item_event(const std::string& type, Json fields) {
    Json json = {{"item_id", items_.back().id}, {"output_index", items_.size() - 1}};
    if (items_.back().kind != ItemKind::kFunctionCall) json["content_index"] = 0;
    json.update(fields);
    return event(type, std::move(json));
  }

  static std::string part_name(const Item& item) {
    return item.kind == ItemKind::kReasoning ? "response.reasoning_text" : "response.output_text";
  }

  std::string announce() {
    std::string text =
        event("response.output_item.added",
              {{"output_index", items_.size() - 1}, {"item", item_object(items_.back(), true)}});
    if (items_.back().kind != ItemKind::kFunctionCall) {
      text += item_event("response.content_part.added", {{"part", text_part(items_.back(), "")}});
    }
    open_ = true;
    return text;
  }

  std::string begin(ItemKind kind) {
    std::string text = end_item();
    add(kind);
    return text + announce();
  }

  std::string grow(ItemKind kind, const std::string& more) {
    std::string text;
    if (!open_ || items_.back().kind != kind) text = begin(kind);
    items_.back().text += more;
    Json fields = {{"delta", more}};
    if (kind == ItemKind::kMessage) fields["logprobs"] = Json::array();
    return text + item_event(part_name(items_.back()) + ".delta", std::move(fields));
  }

  std::string grow_call(const ToolCallDelta& piece) {
    std::string text;
    if (!open_ || items_.back().kind != ItemKind::kFunctionCall || piece.index != call_) {
      text = end_item();
      Item& item = add(ItemKind::kFunctionCall);
      item.call_id = piece.id;
      item.name = piece.name;
      call_ = piece.index;
      text += announce();
    }
    if (piece.arguments.empty()) return text;
    items_.back().text += piece.arguments;
    return text +
           item_event("response.function_call_arguments.delta", {{"delta", piece.arguments}});
  }

  std::string end_item() {
    if (!std::exchange(open_, false)) return "";
    const Item& item = items_.back();
    std::string text;
    if (item.kind == ItemKind::kFunctionCall) {
      text = item_event("response.function_call_arguments.done",
                        {{"name", item.name}, {"arguments", item.text}});
    } else {
      Json fields = {{"text", item.text}};
      if (item.kind == ItemKind::kMessage) fields["logprobs"] = Json::array();
      text = item_event(part_name(item) + ".done", std::move(fields));
      text += item_event("response.content_part.done", {{"part", text_part(item, item.text)}});
    }
    return text + event("response.output_item.done",
                        {{"output_index", items_.size() - 1}, {"item", item_object(item, false)}});
  }

  const AnswerHead head_;
  const Json echo_;
  std::vector<Item> items_;
  bool open_ = false;  // the last item still grows
  int call_ = -1;      // the index of the call that is open
  bool incomplete_ = false;
  int sequence_ = 0;
};

}  // namespace

std::unique_ptr<AnswerWriter> make_responses_writer(AnswerHead head, const std::string& echo) {
  return std::make_unique<ResponsesWriter>(std::move(head), echo);
}

}  // namespace dsm::server

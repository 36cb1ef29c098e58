// DeepSeek-V3.2, whose prompt is made by a Python program (encoding/encoding_dsv32.py in the
// checkpoint) instead of a Jinja text. Calls and tools are written as tags with the mark ｜DSML｜
// in them; tool results go on inside the turn; the thoughts of a turn are kept until the user
// speaks again.
#include <string>

#include "worker/text/chat_family.h"
#include "worker/text/chat_markers.h"
#include "worker/text/python_json.h"

namespace dsm::text {
namespace {

class V32Writer {
 public:
  V32Writer(std::span<const ChatMessage> messages, const ChatOptions& options, PromptSink& out)
      : messages_(messages), options_(options), out_(out) {
    for (std::size_t i = 0; i < messages.size(); ++i) {
      if (messages[i].role == Role::kUser) last_user_ = static_cast<std::ptrdiff_t>(i);
    }
  }

  Result<bool> write() {
    out_.marker(markers::kBos);
    // The tools are part of the first system message; without one, an empty one is assumed.
    bool tools_due = !options_.tools.empty();
    if (tools_due && messages_.front().role != Role::kSystem) {
      if (Status status = tools(); !status) return std::unexpected(status.error());
      tools_due = false;
    }
    for (at_ = 0; at_ < messages_.size(); ++at_) {
      const ChatMessage& message = messages_[at_];
      Status status;
      switch (message.role) {
        case Role::kSystem:
          out_.text(message.content);
          if (tools_due) status = tools();
          tools_due = false;
          break;
        case Role::kUser:
          out_.marker(markers::kUser);
          out_.text(message.content);
          if (!opens_turn()) break;
          out_.marker(markers::kAssistant);
          thought_marker(static_cast<std::ptrdiff_t>(at_) == last_user_);
          break;
        case Role::kAssistant:
          status = assistant(message);
          break;
        case Role::kTool:
          status = result(message);
          break;
      }
      if (!status) return std::unexpected(status.error());
    }
    return in_thought_;
  }

 private:
  // Behind the last message only when an answer is asked for.
  bool opens_turn() const { return at_ + 1 < messages_.size() || options_.add_generation_prompt; }
  bool in_last_turn() const { return static_cast<std::ptrdiff_t>(at_) > last_user_; }
  bool is_gone_on_with() const {
    return options_.continue_final_message && at_ + 1 == messages_.size();
  }

  void thought_marker(bool in_last_turn) {
    // A turn whose answer begins without a thought is gone on with as it was begun.
    in_thought_ = options_.thinking && in_last_turn;
    out_.marker(in_thought_ ? markers::kThinkOpen : markers::kThinkClose);
  }

  void tag(std::string_view before, std::string_view after) {
    out_.text(before);
    out_.marker(markers::kDsml);
    out_.text(after);
  }

  Status tools() {
    out_.text(
        "\n\n## Tools\n\nYou have access to a set of tools you can use to answer the user's "
        "question.\nYou can invoke functions by writing a \"");
    tag("<", "function_calls>\" block like the following as part of your reply to the user:\n");
    tag("<", "function_calls>\n");
    tag("<", "invoke name=\"$FUNCTION_NAME\">\n");
    tag("<", "parameter name=\"$PARAMETER_NAME\" string=\"true|false\">$PARAMETER_VALUE");
    tag("</", "parameter>\n...\n");
    tag("</", "invoke>\n");
    tag("<", "invoke name=\"$FUNCTION_NAME2\">\n...\n");
    tag("</", "invoke>\n");
    tag("</", "function_calls>\n\n");
    out_.text(
        "String and scalar parameters should be specified as is without any escaping or quotes, "
        "while lists and objects should use JSON format. The \"string\" attribute should be set "
        "to \"true\" for string type parameters and \"false\" for other types (numbers, booleans, "
        "arrays, objects).\n\nIf the thinking_mode is enabled, then after function results you "
        "should strongly consider outputting a thinking block. Here is an example:\n\n");
    tag("<", "function_calls>\n...\n");
    tag("</", "function_calls>\n\n<function_results>\n...\n</function_results>\n\n");
    out_.marker(markers::kThinkOpen);
    out_.text("...thinking about results");
    out_.marker(markers::kThinkClose);
    out_.text("\n\nHere are the functions available in JSONSchema format:\n<functions>\n");
    for (const ToolDefinition& tool : options_.tools) {
      nlohmann::ordered_json description = {{"name", tool.name}};
      if (!tool.description.empty()) description["description"] = tool.description;
      if (!tool.parameters.empty()) {
        auto schema = parse_json(tool.parameters);
        if (!schema) {
          return fail(ErrorKind::kInvalid,
                      "tools: the parameters of '" + tool.name + "' are not a JSON Schema");
        }
        description["parameters"] = std::move(*schema);
      }
      if (tool.strict) description["strict"] = true;
      out_.text(python_json(description) + "\n");
    }
    out_.text("</functions>\n");
    return {};
  }

  Status assistant(const ChatMessage& message) {
    if (options_.thinking && in_last_turn()) {
      out_.text(message.reasoning);
      if (is_gone_on_with() && message.content.empty()) return {};
      out_.marker(markers::kThinkClose);
    }
    in_thought_ = false;
    out_.text(message.content);
    if (is_gone_on_with()) return {};
    if (!message.tool_calls.empty()) {
      out_.text("\n\n");
      tag("<", "function_calls>\n");
      for (const ToolCall& call : message.tool_calls) {
        if (Status status = invoke(call); !status) return status;
      }
      tag("</", "function_calls>");
    }
    out_.marker(markers::kEos);
    return {};
  }

  Status invoke(const ToolCall& call) {
    auto arguments = parse_json(call.arguments);
    if (!arguments || !arguments->is_object()) {
      return fail(ErrorKind::kInvalid, "messages: the arguments of the call of '" + call.name +
                                           "' are not a JSON object");
    }
    tag("<", "invoke name=\"" + call.name + "\">\n");
    std::string_view separator;
    for (const auto& [key, value] : arguments->items()) {
      out_.text(separator);
      const bool is_string = value.is_string();
      tag("<", "parameter name=\"" + key + "\" string=\"" + (is_string ? "true" : "false") + "\">");
      out_.text(is_string ? value.get<std::string>() : python_json(value));
      tag("</", "parameter>");
      separator = "\n";
    }
    out_.text("\n");
    tag("</", "invoke>\n");
    return {};
  }

  Status result(const ChatMessage& message) {
    std::size_t caller = at_;
    while (caller > 0 && messages_[caller].role == Role::kTool) --caller;
    const std::size_t order = at_ - caller;
    if (messages_[caller].role != Role::kAssistant || messages_[caller].tool_calls.size() < order) {
      return fail(ErrorKind::kInvalid, "messages[" + std::to_string(at_) +
                                           "]: a tool's answer must follow the assistant's message "
                                           "with the call that it answers");
    }
    if (order == 1) out_.text("\n\n<function_results>");
    out_.text("\n<result>");
    out_.text(message.content);
    out_.text("</result>");
    if (order < messages_[caller].tool_calls.size()) return {};
    out_.text("\n</function_results>");
    if (!opens_turn()) return {};
    out_.text("\n\n");
    thought_marker(in_last_turn());
    return {};
  }

  std::span<const ChatMessage> messages_;
  const ChatOptions& options_;
  PromptSink& out_;
  std::ptrdiff_t last_user_ = -1;
  std::size_t at_ = 0;
  bool in_thought_ = false;
};

}  // namespace

Result<bool> write_v32(std::span<const ChatMessage> messages, const ChatOptions& options,
                       PromptSink& out) {
  return V32Writer(messages, options, out).write();
}

}  // namespace dsm::text

// DeepSeek-V3 and R1 with their revisions. They share one shape: the system prompt behind BOS,
// <｜User｜>, <｜Assistant｜>, answers that end with EOS, calls as function<sep>NAME and a fenced
// block of JSON, the tools' answers between markers of their own. What differs is in V3Form.
//
// The first three revisions render a lone call without <｜tool▁calls▁end｜>, begin the block of
// calls only once in a conversation, and forget the calls of an answer that also has text. It is
// what their texts do.
#include <string>

#include "worker/text/chat_family.h"
#include "worker/text/chat_markers.h"

namespace dsm::text {
namespace {

struct V3Form {
  bool last_system_only = false;      // a later system message replaces the earlier
  bool calls_or_text = false;         // the oddities above
  bool strips_thoughts = false;       // earlier answers lose what is before </think>
  bool user_opens_assistant = false;  // <｜Assistant｜> is written with the user's message
  bool line_between_outputs = true;   // of the tools
  bool opens_thought = false;         // the generation prompt ends with <think> and a line feed
};

class V3Writer {
 public:
  V3Writer(const V3Form& form, const ChatOptions& options, PromptSink& out)
      : form_(form), options_(options), out_(out) {}

  Result<bool> write(std::span<const ChatMessage> messages) {
    out_.marker(markers::kBos);
    out_.text(system_prompt(messages));
    if (!options_.tools.empty()) {
      Status status = write_tools(options_.tools, ToolFormat::kTyped, out_);
      if (!status) return std::unexpected(status.error());
    }
    for (const ChatMessage& message : messages) {
      const bool go_on = options_.continue_final_message && &message == &messages.back();
      if (message.role == Role::kUser) user(message);
      if (message.role == Role::kAssistant && go_on) return go_on_with(message);
      if (message.role == Role::kAssistant) assistant(message);
      if (message.role == Role::kTool) output(message);
    }
    if (in_outputs_) out_.marker(markers::kOutputsEnd);
    if (!options_.add_generation_prompt || in_outputs_) return false;
    if (!assistant_open_) out_.marker(markers::kAssistant);
    if (form_.opens_thought) open_thought();
    return form_.opens_thought;
  }

 private:
  std::string system_prompt(std::span<const ChatMessage> messages) const {
    std::string prompt;
    bool first = true;
    for (const ChatMessage& message : messages) {
      if (message.role != Role::kSystem) continue;
      if (form_.last_system_only) prompt.clear();
      if (!first && !form_.last_system_only) prompt += "\n\n";
      prompt += message.content;
      first = false;
    }
    return prompt;
  }

  void user(const ChatMessage& message) {
    in_outputs_ = false;
    out_.marker(markers::kUser);
    out_.text(message.content);
    if (!form_.user_opens_assistant) return;
    out_.marker(markers::kAssistant);
    assistant_open_ = true;
    calls_open_ = false;
  }

  void open_thought() {
    out_.marker(markers::kThinkOpen);
    out_.text("\n");
  }

  std::string_view answer_of(const ChatMessage& message) const {
    return form_.strips_thoughts ? without_thought(message.content, /*first=*/false)
                                 : std::string_view(message.content);
  }

  // An answer's beginning: behind a tool's answers it needs no marker of its own.
  void begin_answer() {
    if (in_outputs_) {
      out_.marker(markers::kOutputsEnd);
    } else if (!form_.user_opens_assistant) {
      out_.marker(markers::kAssistant);
    }
    in_outputs_ = assistant_open_ = false;
  }

  Result<bool> go_on_with(const ChatMessage& message) {
    const bool behind_outputs = in_outputs_;
    begin_answer();
    const bool thinks =
        !message.reasoning.empty() || (form_.opens_thought && message.content.empty());
    if (thinks && form_.strips_thoughts && !behind_outputs) {
      open_thought();
      out_.text(message.reasoning);
      if (message.content.empty()) return true;
      out_.marker(markers::kThinkClose);
    }
    out_.text(message.content);
    return false;
  }

  void assistant(const ChatMessage& message) {
    if (!message.tool_calls.empty() && (!form_.calls_or_text || message.content.empty())) {
      return calls(message);
    }
    const bool behind_outputs = in_outputs_;
    begin_answer();
    // R1-0528 strips before it looks where the answer stands, the others only outside outputs.
    out_.text(behind_outputs && !form_.user_opens_assistant ? std::string_view(message.content)
                                                            : answer_of(message));
    out_.marker(markers::kEos);
  }

  void calls(const ChatMessage& message) {
    if (form_.user_opens_assistant) {
      if (in_outputs_) out_.marker(markers::kOutputsEnd);
      calls_open_ = false;
      outputs_open_ = false;
    }
    in_outputs_ = assistant_open_ = false;
    for (const ToolCall& call : message.tool_calls) {
      const bool later = calls_open_;
      if (later) {
        out_.text("\n");
      } else {
        if (!form_.user_opens_assistant) out_.marker(markers::kAssistant);
        out_.text(form_.user_opens_assistant ? answer_of(message)
                                             : std::string_view(message.content));
        out_.marker(markers::kCallsBegin);
        calls_open_ = true;
      }
      out_.marker(markers::kCallBegin);
      out_.text("function");
      out_.marker(markers::kSeparator);
      out_.text(call.name + "\n```json\n" + call.arguments + "\n```");
      out_.marker(markers::kCallEnd);
      if (form_.calls_or_text && later) end_calls();
    }
    if (!form_.calls_or_text) end_calls();
  }

  void end_calls() {
    out_.marker(markers::kCallsEnd);
    out_.marker(markers::kEos);
  }

  void output(const ChatMessage& message) {
    in_outputs_ = true;
    assistant_open_ = false;
    if (!outputs_open_) {
      out_.marker(markers::kOutputsBegin);
      outputs_open_ = true;
    } else if (form_.line_between_outputs) {
      out_.text("\n");
    }
    out_.marker(markers::kOutputBegin);
    out_.text(message.content);
    out_.marker(markers::kOutputEnd);
  }

  const V3Form& form_;
  const ChatOptions& options_;
  PromptSink& out_;
  bool in_outputs_ = false;      // the last message was a tool's
  bool outputs_open_ = false;    // <｜tool▁outputs▁begin｜> was written
  bool calls_open_ = false;      // <｜tool▁calls▁begin｜> was written
  bool assistant_open_ = false;  // <｜Assistant｜> was written with the user's message
};

}  // namespace

Result<bool> write_v3(std::span<const ChatMessage> messages, const ChatOptions& options,
                      PromptSink& out) {
  static constexpr V3Form kForm{.calls_or_text = true};
  return V3Writer(kForm, options, out).write(messages);
}

Result<bool> write_v3_0324(std::span<const ChatMessage> messages, const ChatOptions& options,
                           PromptSink& out) {
  static constexpr V3Form kForm{.user_opens_assistant = true};
  return V3Writer(kForm, options, out).write(messages);
}

Result<bool> write_r1_first(std::span<const ChatMessage> messages, const ChatOptions& options,
                            PromptSink& out) {
  static constexpr V3Form kForm{
      .last_system_only = true, .calls_or_text = true, .strips_thoughts = true};
  return V3Writer(kForm, options, out).write(messages);
}

Result<bool> write_r1_distill(std::span<const ChatMessage> messages, const ChatOptions& options,
                              PromptSink& out) {
  static constexpr V3Form kForm{.last_system_only = true,
                                .calls_or_text = true,
                                .strips_thoughts = true,
                                .opens_thought = true};
  return V3Writer(kForm, options, out).write(messages);
}

Result<bool> write_r1(std::span<const ChatMessage> messages, const ChatOptions& options,
                      PromptSink& out) {
  static constexpr V3Form kForm{
      .strips_thoughts = true, .line_between_outputs = false, .opens_thought = true};
  return V3Writer(kForm, options, out).write(messages);
}

Result<bool> write_r1_0528(std::span<const ChatMessage> messages, const ChatOptions& options,
                           PromptSink& out) {
  static constexpr V3Form kForm{.strips_thoughts = true, .user_opens_assistant = true};
  return V3Writer(kForm, options, out).write(messages);
}

}  // namespace dsm::text

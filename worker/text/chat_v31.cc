// DeepSeek-V3.1 and V3.1-Terminus: as V3, but the thought is a switch, calls are NAME<sep>ARGS, and
// an answer behind a tool's needs no marker. Terminus also opens an answer where there is only a
// system prompt, and behind an assistant's message that is not to be gone on with.
#include <string>

#include "worker/text/chat_family.h"
#include "worker/text/chat_markers.h"

namespace dsm::text {
namespace {

class V31Writer {
 public:
  V31Writer(bool terminus, const ChatOptions& options, PromptSink& out)
      : terminus_(terminus), options_(options), out_(out) {}

  Result<bool> write(std::span<const ChatMessage> messages) {
    out_.marker(markers::kBos);
    write_system(messages);
    if (!options_.tools.empty()) {
      Status status = write_tools(options_.tools, ToolFormat::kNamed, out_);
      if (!status) return std::unexpected(status.error());
    }
    for (const ChatMessage& message : messages) {
      switch (message.role) {
        case Role::kSystem:
          break;
        case Role::kUser:
          behind_user_ = true;
          behind_tool_ = false;
          out_.marker(markers::kUser);
          out_.text(message.content);
          break;
        case Role::kAssistant:
          if (options_.continue_final_message && &message == &messages.back()) {
            return go_on_with(message);
          }
          if (message.tool_calls.empty()) {
            answer(message);
          } else {
            calls(message);
          }
          break;
        case Role::kTool:
          behind_user_ = false;
          behind_tool_ = true;
          out_.marker(markers::kOutputBegin);
          out_.text(message.content);
          out_.marker(markers::kOutputEnd);
          break;
      }
      if (message.role != Role::kSystem) only_system_ = false;
    }
    if (!options_.add_generation_prompt || behind_tool_) return false;
    if (!behind_user_ && !terminus_) return false;
    out_.marker(markers::kAssistant);
    out_.marker(options_.thinking ? markers::kThinkOpen : markers::kThinkClose);
    return options_.thinking;
  }

 private:
  void write_system(std::span<const ChatMessage> messages) {
    for (const ChatMessage& message : messages) {
      if (message.role != Role::kSystem) continue;
      if (only_system_) out_.text("\n\n");
      out_.text(message.content);
      only_system_ = true;
    }
  }

  void answer(const ChatMessage& message) {
    if (behind_user_) {
      out_.marker(markers::kAssistant);
      out_.marker(markers::kThinkClose);
    }
    out_.text(behind_tool_ ? std::string_view(message.content)
                           : without_thought(message.content, /*first=*/true));
    out_.marker(markers::kEos);
    behind_user_ = behind_tool_ = false;
  }

  void calls(const ChatMessage& message) {
    if (behind_user_ || (terminus_ && only_system_)) {
      out_.marker(markers::kAssistant);
      out_.marker(markers::kThinkClose);
    }
    out_.text(message.content);
    out_.marker(markers::kCallsBegin);
    for (const ToolCall& call : message.tool_calls) {
      out_.marker(markers::kCallBegin);
      out_.text(call.name);
      out_.marker(markers::kSeparator);
      out_.text(call.arguments);
      out_.marker(markers::kCallEnd);
    }
    out_.marker(markers::kCallsEnd);
    out_.marker(markers::kEos);
    behind_user_ = behind_tool_ = false;
  }

  Result<bool> go_on_with(const ChatMessage& message) {
    if (behind_user_) {
      out_.marker(markers::kAssistant);
      if (!message.reasoning.empty()) {
        out_.marker(markers::kThinkOpen);
        out_.text(message.reasoning);
        if (message.content.empty()) return true;
      }
      out_.marker(markers::kThinkClose);
    }
    out_.text(message.content);
    return false;
  }

  bool terminus_;
  const ChatOptions& options_;
  PromptSink& out_;
  bool only_system_ = false;  // there is a system prompt, and no other message yet
  bool behind_user_ = false;
  bool behind_tool_ = false;
};

}  // namespace

Result<bool> write_v31(std::span<const ChatMessage> messages, const ChatOptions& options,
                       PromptSink& out) {
  return V31Writer(/*terminus=*/false, options, out).write(messages);
}

Result<bool> write_v31_terminus(std::span<const ChatMessage> messages, const ChatOptions& options,
                                PromptSink& out) {
  return V31Writer(/*terminus=*/true, options, out).write(messages);
}

}  // namespace dsm::text

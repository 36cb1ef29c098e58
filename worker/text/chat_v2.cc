// DeepSeek LLM chat and DeepSeek-V2: roles are words. Only BOS and EOS are tokens, so nothing keeps
// a message from spelling "Assistant:" as the template does; that is the format's own limit.
#include "worker/text/chat_family.h"
#include "worker/text/chat_markers.h"

namespace dsm::text {

Result<bool> write_v2(std::span<const ChatMessage> messages, const ChatOptions& options,
                      PromptSink& out) {
  out.marker(markers::kBos);
  for (const ChatMessage& message : messages) {
    if (message.role == Role::kUser) out.text("User: ");
    if (message.role == Role::kAssistant) out.text("Assistant: ");
    out.text(message.content);
    if (options.continue_final_message && &message == &messages.back()) return false;
    if (message.role == Role::kAssistant) {
      out.marker(markers::kEos);
    } else {
      out.text("\n\n");
    }
  }
  if (options.add_generation_prompt) out.text("Assistant:");
  return false;
}

}  // namespace dsm::text

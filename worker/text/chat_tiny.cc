// deepseek-tiny: BOS, then each message's marker and text in order; a system message has no marker;
// an earlier answer stands behind a closed (empty) thought and ends with EOS; the generation prompt
// opens the thought or closes it at once.
#include "worker/text/chat_family.h"
#include "worker/text/chat_markers.h"

namespace dsm::text {

Result<bool> write_tiny(std::span<const ChatMessage> messages, const ChatOptions& options,
                        PromptSink& out) {
  out.marker(markers::kBos);
  for (const ChatMessage& message : messages) {
    const bool go_on = options.continue_final_message && &message == &messages.back();
    if (message.role == Role::kUser) out.marker(markers::kUser);
    if (message.role == Role::kAssistant) {
      out.marker(markers::kAssistant);
      if (go_on && !message.reasoning.empty()) {
        out.marker(markers::kThinkOpen);
        out.text(message.reasoning);
        if (message.content.empty()) return true;
      }
      out.marker(markers::kThinkClose);
    }
    out.text(message.content);
    if (go_on) return false;
    if (message.role == Role::kAssistant) out.marker(markers::kEos);
  }
  if (!options.add_generation_prompt) return false;
  out.marker(markers::kAssistant);
  out.marker(options.thinking ? markers::kThinkOpen : markers::kThinkClose);
  return options.thinking;
}

}  // namespace dsm::text

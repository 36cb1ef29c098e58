// What a chat template can do with tools, as the API asks it.
#pragma once

#include <optional>
#include <vector>

#include "base/result.h"
#include "worker/grammar/grammar.h"
#include "worker/server/api_request.h"
#include "worker/text/chat_template.h"

namespace dsm::server {

// Whether the template can tell the model of tools, of calls and of their results.
bool has_tools(const text::ChatTemplate& chat_template);

// The grammar of an answer under this choice, or nothing where the answer is free. kInvalid: the
// template cannot hold the model to it.
Result<std::optional<grammar::GrammarSpec>> tool_grammar(
    const text::ChatTemplate& chat_template, const std::vector<text::ToolDefinition>& tools,
    const ToolChoice& choice, bool parallel);

}  // namespace dsm::server

// How the tokens of an answer are taken apart: the parser for each kind of prompt.
#pragma once

#include <memory>
#include <vector>

#include "worker/text/chat_template.h"
#include "worker/text/output_parser.h"
#include "worker/text/tokenizer.h"

namespace dsm::server {

// The tokenizer outlives what is made of it.

// A text completion: everything is the answer; special tokens give no text.
std::unique_ptr<text::OutputParser> plain_output(const text::Tokenizer& tokenizer);
// A chat, by the rules of its template. Tool calls are only looked for when there are tools.
std::unique_ptr<text::OutputParser> chat_output(const text::ChatTemplate& chat_template,
                                                const text::Tokenizer& tokenizer,
                                                bool starts_in_reasoning,
                                                const std::vector<text::ToolDefinition>& tools);

}  // namespace dsm::server

// The output of a text completion: everything is the answer; special tokens give no text.
#pragma once

#include <memory>

#include "worker/text/output_parser.h"
#include "worker/text/tokenizer.h"

namespace dsm::server {

// `tokenizer` outlives it.
std::unique_ptr<text::OutputParser> plain_output(const text::Tokenizer& tokenizer);

}  // namespace dsm::server

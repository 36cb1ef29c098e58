// What the API has to know of the model that it serves. Made once when the worker starts, constant
// afterwards.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "worker/engine/batch.h"
#include "worker/engine/token_constraint.h"
#include "worker/grammar/grammar.h"
#include "worker/server/adapters.h"
#include "worker/server/api_request.h"
#include "worker/text/chat_template.h"
#include "worker/text/tokenizer.h"

namespace dsm::server {

// GrammarFactory::compile of the model's factory. May be called from any thread.
using GrammarCompiler = std::function<Result<std::shared_ptr<engine::TokenConstraint>>(
    const grammar::GrammarSpec& grammar, std::optional<engine::TokenId> after)>;

struct ServedModel {
  std::string name;          // as clients call it
  std::int64_t created = 0;  // Unix time
  int max_model_len = 0;     // prompt and answer together, in tokens
  int vocab_size = 0;        // of the model: a prompt's token ids are below it
  text::Tokenizer tokenizer;
  text::ChatTemplate chat_template;
  std::vector<engine::TokenId> eos_tokens;
  SamplingDefaults defaults;
  GrammarCompiler compile_grammar = {};  // null: answers cannot be held to a format
  bool reasoning_alias = false;          // chats show the thought as `reasoning`, too
  // Under whose names it is served with their weights added; null: there are none. The one part
  // that changes; it is thread-safe.
  std::shared_ptr<Adapters> adapters = {};
};

}  // namespace dsm::server

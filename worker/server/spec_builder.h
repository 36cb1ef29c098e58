// From a parsed request to what a Generation runs: the prompt encoded, grammars compiled, what
// depends on the model checked. Pure but for the random numbers of seeds and ids; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "worker/server/api_error.h"
#include "worker/server/api_request.h"
#include "worker/server/generation.h"
#include "worker/server/served_model.h"

namespace dsm::server {

// Of a request, beside its body.
struct RequestMeta {
  std::string request_id;
  std::int64_t created = 0;          // Unix time in seconds
  TimePoint arrived;                 // on the engine's clock: deadlines count from here
  std::optional<Millis> time_limit;  // of its headers; the shorter one counts
};

// The adapter that a request's `model` stands for; null: it is the model itself. 404: it is
// neither.
Parsed<std::shared_ptr<const engine::Adapter>> adapter_named(const ServedModel& model,
                                                             const std::string& name);

// The request must name this model or an adapter of it. `model` outlives the result.
Parsed<GenerationSpec> chat_spec(const ServedModel& model, ChatRequest request,
                                 const RequestMeta& meta);
Parsed<GenerationSpec> completion_spec(const ServedModel& model, CompletionRequest request,
                                       const RequestMeta& meta);

// The seed of a prompt's choice: its own for each, so that choices differ, and the request's own
// for the first, so that one choice of several equals the answer of a request for one.
std::uint64_t choice_seed(std::uint64_t seed, int choice);

// A refusal of the chat template, under the field that it names.
std::unexpected<ApiError> template_error(const Error& error);

// 404: clients have to name the model that is served.
ApiError no_such_model(const std::string& name);

}  // namespace dsm::server

// The parts of which the bodies of requests are made, each read in a file of its own. Inside this
// folder; api_request.h is the face.
#pragma once

#include <string>
#include <vector>

#include "worker/server/api_request.h"
#include "worker/server/json_fields.h"

namespace dsm::server {

enum class BodyKind { kChat, kCompletion };

// request_options.cc: `model`, sampling, lengths, stops, streams, and what is refused by name.
void read_model(Fields& fields, std::string& model);
void read_options(Fields& fields, BodyKind kind, const SamplingDefaults& defaults,
                  GenerationOptions& options);
// request_format.cc: response_format, structured_outputs and the guided_* names.
void read_format(Fields& fields, GenerationOptions& options);
// request_messages.cc: `messages`. Whether the last one is gone on with (its `prefix`) goes into
// `options`.
void read_messages(Fields& fields, ChatRequest& request);
// request_tools.cc: tools, tool_choice, parallel_tool_calls.
void read_tools(Fields& fields, ChatRequest& request);

}  // namespace dsm::server

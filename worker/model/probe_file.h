// probe.json beside the weights: a prompt and what the model answers to it greedily, as token ids.
//   {"prompt": [0, 3, 294], "answer": [281, 239]}
// Whoever makes a checkpoint can say with it what a worker must find before it serves. Comes from
// outside: bounded, and checked against the vocabulary.
#pragma once

#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "worker/engine/ids.h"

namespace dsm::model {

struct ProbeFile {
  std::vector<engine::TokenId> prompt;
  std::vector<engine::TokenId> answer;
};

// kInvalid, with the field, when it is no such object, a token is not one of `vocab_size`, a list
// is empty, or both together have more than `max_tokens`.
Result<ProbeFile> parse_probe_file(std::string_view text, int vocab_size, int max_tokens);

// nullopt: the directory has none.
Result<std::optional<ProbeFile>> load_probe_file(const std::filesystem::path& dir, int vocab_size,
                                                 int max_tokens);

}  // namespace dsm::model

// A prompt fed in pieces, as chunked prefill does.
#pragma once

#include <cstddef>
#include <vector>

#include "tests/model/model_fixture.h"

namespace dsm::model {

// Logits of every position of the tokens, fed in chunks that end at `cuts`.
inline std::vector<float> chunked(RankModel& model, comm::Communicator& comm,
                                  const std::vector<engine::TokenId>& tokens,
                                  std::vector<std::size_t> cuts, engine::BlockId first_block = 0) {
  std::vector<float> logits;
  std::size_t begin = 0;
  cuts.push_back(tokens.size());
  const auto table = blocks_for(tokens.size(), first_block);
  for (const auto cut : cuts) {
    const auto span = model.forward_all({1, {make_row(tokens, begin, cut, table)}}, comm);
    logits.insert(logits.end(), span.begin(), span.end());
    begin = cut;
  }
  return logits;
}

}  // namespace dsm::model

// Drafts from DeepSeek-V3's multi-token-prediction layer: one more decoder layer that sees, at each
// position, the main model's state after its last norm and the embedding of the token that follows,
// and predicts the token after that one. Embedding and head are the main model's, as in V3's
// checkpoints. A second and later drafts come from the layer's own normed output in place of the
// main model's state.
//
// It has a KV cache of its own over the same blocks, and adapters do not reach it. Drafts are
// guesses: whoever takes them checks them with the main model, so nothing that is served depends on
// them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "worker/engine/ids.h"
#include "worker/model/attention.h"
#include "worker/model/draft_row.h"
#include "worker/model/mlp.h"
#include "worker/model/step.h"
#include "worker/model/weights.h"

namespace dsm::model {

class Mtp {
 public:
  Mtp(Step& step, const ModelWeights& weights, Attention& attention, Mlp& mlp);

  // As RankModel::draft; the step still holds what the main model left there, and is used up.
  std::span<const engine::TokenId> run(std::span<const DraftRow> rows, int vocab);

 private:
  struct Sequence {
    DraftRow row;
    TokenRun run;            // in the batch of forward()
    std::int32_t start = 0;  // position of its first token
    std::size_t first = 0;   // its place in drafts_
    int hidden = 0;          // row of hidden_ from which the next draft comes
  };

  void share_rows(std::span<const DraftRow> rows, int vocab);
  void take_main_states();
  void take_own_states(int draft);
  bool reaches(const Sequence& sequence, std::int32_t position) const;
  // The layer, on the step's tokens with states_ beside them.
  void run_layer();
  // Normed outputs of the `wanted_` tokens and from them draft number `draft`.
  void choose(int draft);

  Step& step_;
  const ModelWeights& weights_;
  const MtpWeights& mtp_;
  Attention& attention_;
  Mlp& mlp_;
  std::vector<std::int32_t> message_;  // the rows as they are sent to the other ranks
  int vocab_ = 0;                      // only ids below it are drafted
  std::vector<Sequence> sequences_;
  std::vector<Sequence*> asking_;         // those of wanted_
  std::vector<std::int32_t> wanted_;      // tokens of the step whose outputs are needed
  std::vector<std::int32_t> state_rows_;  // rows of x or hidden_ that become states_
  std::vector<float> best_;               // [asking: logit], [asking: id]
  std::vector<float> all_best_;           // [ranks, best_]
  std::vector<engine::TokenId> drafts_;   // row after row
  device::Results logits_;                // [asking, local vocab]
  float* states_;                         // [T, hidden]
  float* joined_;                         // [T, normed embedding | normed state]
  float* hidden_;                         // [T, hidden] normed outputs
};

}  // namespace dsm::model

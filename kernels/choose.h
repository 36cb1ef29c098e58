// The operator that chooses tokens from logits: its parameters, and its definition in memory of the
// host.
//
// Temperature 0 takes the highest logit, the lowest token on a tie. Otherwise top_k, then min_p,
// then top_p narrow the choice (each by probabilities at this temperature; ties go to the lowest
// token; at least one stays), and the token with the highest score is taken (draw.h): with
// Gumbel's noise that is a draw from the softmax. A logit that is not a number is never taken while
// another is one.
#pragma once

#include <cstdint>
#include <span>

namespace dsm::kernels {

struct Choice {
  std::uint64_t key = 0;  // of the row's noise
  float temperature = 0;
  std::int32_t top_k = 0;  // 0: off
  float top_p = 1;
  float min_p = 0;
  bool wanted = false;  // else nothing is chosen for the row
};

struct ChooseParams {
  const float* logits = nullptr;  // [rows, vocab], ld
  std::int64_t ld = 0;
  const Choice* choices = nullptr;  // [rows]
  int rows = 0;
  int vocab = 0;                   // tokens that may be chosen; at most kMaxVocab
  std::int32_t* tokens = nullptr;  // [rows]; as it was where none is wanted
};
inline constexpr int kMaxVocab = 1 << 21;

// top_k, min_p or top_p are in use.
inline bool narrows(const Choice& choice) {
  return choice.top_k > 0 || choice.min_p > 0 || choice.top_p < 1;
}

// `allowed`: bit t % 32 of word t / 32 is set when token t may be taken; empty: all may. A token
// that is not allowed is taken only when none is.
std::int32_t choose_token(std::span<const float> logits, const Choice& choice,
                          std::span<const std::uint32_t> allowed = {});

// Of one row, if its token is wanted.
void choose(const ChooseParams& params, int row);

}  // namespace dsm::kernels

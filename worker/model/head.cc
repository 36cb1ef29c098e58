#include "worker/model/head.h"

#include <algorithm>
#include <limits>

namespace dsm::model {

Head::Head(Step& step, const kernels::PackedMatrix& w, int sampled_vocab)
    : w_(w), sampled_vocab_(sampled_vocab) {
  const std::size_t tokens = std::min(static_cast<std::size_t>(step.max_tokens), kTokens);
  const auto floats = [&](int width) {
    return device::allocate<float>(step.backend, tokens * static_cast<std::size_t>(width));
  };
  hidden_ = floats(step.c.hidden_size);
  mine_ = floats(w.n);
  all_ = mine_;
  if (step.ranks > 1) {
    parts_ = floats(step.c.vocab_size);
    all_ = step.rank == 0 ? floats(step.c.vocab_size) : nullptr;
  }
  chosen_ = device::allocate_shared<std::int32_t>(step.backend,
                                                  static_cast<std::size_t>(step.max_tokens));
}

void Head::start(Step& step, std::size_t to_host) {
  handed_ = 0;
  if (step.rank != 0) return;
  on_host_.at_least(step.backend, to_host * static_cast<std::size_t>(step.c.vocab_size));
}

void Head::compute(Step& step, const Wanted& part, std::size_t at, const float* norm) {
  const ModelConfig& c = step.c;
  const auto n = static_cast<int>(part.tokens.size());
  const NextProducts next = step.next(w_);
  step.backend.rms_norm({step.x, c.hidden_size, part.tokens.data(), norm, hidden_, c.hidden_size, n,
                         c.hidden_size, static_cast<float>(c.rms_eps), next.products, next.taken});
  step.backend.linear(
      {.x = hidden_, .ldx = c.hidden_size, .w = &w_, .y = mine_, .ldy = w_.n, .rows = n});
  if (step.ranks > 1) {
    step.backend.gather_columns(*step.comm, {mine_, parts_, n, w_.n, all_});
  }
  if (step.rank != 0) return;
  step.backend.choose({.logits = all_,
                       .ld = c.vocab_size,
                       .choices = part.choices.data(),
                       .rows = n,
                       .vocab = sampled_vocab_,
                       .tokens = chosen_ + at});
}

void Head::hand_out(Step& step, const Wanted& part) {
  if (step.rank != 0) return;
  const auto vocab = static_cast<std::size_t>(step.c.vocab_size);
  const std::size_t count = part.choices.size();
  for (std::size_t begin = 0; begin < count;) {
    std::size_t end = begin;
    while (end < count && !part.choices[end].wanted) ++end;
    if (end > begin) {
      step.backend.copy(on_host_.data() + handed_ * vocab, all_ + begin * vocab,
                        (end - begin) * vocab);
    }
    handed_ += end - begin;
    begin = end + 1;
  }
}

std::span<const float> Head::logits(const Step& step) {
  if (step.rank != 0) return {};
  const auto vocab = static_cast<std::size_t>(step.c.vocab_size);
  for (std::size_t i = 0; i < handed_; ++i) {
    float* row = on_host_.data() + i * vocab;
    std::fill(row + sampled_vocab_, row + vocab, -std::numeric_limits<float>::infinity());
  }
  return {on_host_.data(), handed_ * vocab};
}

}  // namespace dsm::model

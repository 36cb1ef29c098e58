#include "worker/model/head.h"

#include <algorithm>
#include <limits>

namespace dsm::model {

Head::Head(Step& step)
    : hidden_(device::allocate<float>(step.backend,
                                      static_cast<std::size_t>(step.max_tokens) *
                                          static_cast<std::size_t>(step.c.hidden_size))) {}

void Head::reserve(Step& step, std::size_t wanted, const kernels::PackedMatrix& w) {
  const auto vocab = static_cast<std::size_t>(step.c.vocab_size);
  if (step.rank == 0) logits_.at_least(step.backend, wanted * vocab);
  if (step.ranks > 1) local_.at_least(step.backend, wanted * static_cast<std::size_t>(w.n));
}

void Head::compute(Step& step, std::span<const std::int32_t> wanted, const float* norm,
                   const kernels::PackedMatrix& w) {
  const ModelConfig& c = step.c;
  const auto n = static_cast<int>(wanted.size());
  step.backend.rms_norm({step.x, c.hidden_size, wanted.data(), norm, hidden_, c.hidden_size, n,
                         c.hidden_size, static_cast<float>(c.rms_eps)});
  step.backend.linear(
      {.x = hidden_, .ldx = c.hidden_size, .w = &w, .y = mine(step), .ldy = w.n, .rows = n});
}

std::span<const float> Head::gather(Step& step, std::size_t n, const kernels::PackedMatrix& w,
                                    int sampled_vocab) {
  const auto local = static_cast<std::size_t>(w.n);
  const auto vocab = static_cast<std::size_t>(step.c.vocab_size);
  const bool root = step.rank == 0;
  step.backend.wait();
  if (step.ranks > 1) {
    const auto all = n * vocab;
    if (root) gathered_.resize(std::max(gathered_.size(), all));
    step.comm->gather({mine(step), n * local},
                      root ? std::span(gathered_).first(all) : std::span<float>(), 0);
    if (!root) return {};
    for (std::size_t r = 0; r < static_cast<std::size_t>(step.ranks); ++r) {
      for (std::size_t i = 0; i < n; ++i) {
        std::copy_n(gathered_.data() + (r * n + i) * local, local,
                    logits_.data() + i * vocab + r * local);
      }
    }
  }
  for (std::size_t i = 0; i < n; ++i) {
    float* row = logits_.data() + i * vocab;
    std::fill(row + sampled_vocab, row + vocab, -std::numeric_limits<float>::infinity());
  }
  return {logits_.data(), n * vocab};
}

}  // namespace dsm::model

#include "worker/model/head.h"

#include <algorithm>
#include <limits>

namespace dsm::model {
namespace {

float* grow(std::vector<float>& to, std::size_t size) {
  to.resize(std::max(to.size(), size));
  return to.data();
}

}  // namespace

std::span<const float> Head::run(Step& step, std::span<const std::int32_t> wanted,
                                 const float* norm, const kernels::PackedMatrix& w,
                                 int sampled_vocab) {
  const ModelConfig& c = step.c;
  const auto n = wanted.size();
  const auto local = static_cast<std::size_t>(w.n);
  const auto vocab = static_cast<std::size_t>(c.vocab_size);
  const bool root = step.rank == 0;
  float* hidden = grow(hidden_, n * static_cast<std::size_t>(c.hidden_size));
  if (root) grow(logits_, n * vocab);
  float* mine = step.ranks > 1 ? grow(local_, n * local) : logits_.data();
  step.backend.rms_norm({step.x, c.hidden_size, wanted.data(), norm, hidden, c.hidden_size,
                         static_cast<int>(n), c.hidden_size, static_cast<float>(c.rms_eps)});
  step.backend.linear({.x = hidden,
                       .ldx = c.hidden_size,
                       .w = &w,
                       .y = mine,
                       .ldy = static_cast<std::int64_t>(local),
                       .rows = static_cast<int>(n)});
  if (step.ranks > 1) {
    const auto all = n * vocab;
    if (root) grow(gathered_, all);
    step.comm->gather({mine, n * local},
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
  return std::span<const float>(logits_).first(n * vocab);
}

}  // namespace dsm::model

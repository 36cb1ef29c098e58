// Which experts a token goes to, and with which weights, by the rules of the models (RouterParams).
// kernels.h says why nothing here may be shared between instruction sets.
#pragma once

#include "kernels/cpu/product.h"
#include "kernels/ops.h"

namespace dsm::kernels {
namespace {

template <class V>
struct Router {
  using F = typename V::F;

  // The index of the highest value, the lowest index on a tie.
  static int best_of(const float* value, int count) {
    int best = 0;
    for (int i = 1; i < count; ++i) {
      if (value[i] > value[best]) best = i;
    }
    return best;
  }

  // score[e] = softmax(logits); the tail up to a multiple of 16 is written as well.
  static void softmax(const float* logits, int count, float* score) {
    float top = logits[0];
    for (int e = 1; e < count; ++e) top = logits[e] > top ? logits[e] : top;
    F sum = V::set(0.0F);
    for (int e = 0; e < count; e += kLanes) {
      float lane[kLanes] = {};
      for (int i = 0; i < kLanes && e + i < count; ++i) lane[i] = logits[e + i];
      V::store(lane, exp16<V>(V::sub(V::load(lane), V::set(top))));
      for (int i = 0; i < kLanes; ++i) score[e + i] = e + i < count ? lane[i] : 0.0F;
      sum = V::add(sum, V::load(score + e));
    }
    const F total = V::set(sum16<V>(sum));
    for (int e = 0; e < count; e += kLanes) {
      V::store(score + e, V::div(V::load(score + e), total));
    }
  }

  static void route(const RouterParams& p, const float* logits, std::int32_t* chosen,
                    float* weights) {
    alignas(64) float score[kMaxExperts + kLanes];
    float choice[kMaxExperts];
    float group_score[kMaxExperts];
    bool group_taken[kMaxExperts];
    const float low = -__builtin_inff();
    const bool biased = p.rule == RouterRule::kSigmoidBias;
    if (biased) {
      for (int e = 0; e < p.experts; e += kLanes) {
        float lane[kLanes] = {};
        for (int i = 0; i < kLanes && e + i < p.experts; ++i) lane[i] = logits[e + i];
        V::store(score + e, sigmoid16<V>(V::load(lane)));
      }
    } else {
      softmax(logits, p.experts, score);
    }
    for (int e = 0; e < p.experts; ++e) choice[e] = biased ? score[e] + p.bias[e] : score[e];

    const int size = p.experts / p.groups;
    for (int g = 0; g < p.groups; ++g) {
      float first = low;
      float second = low;
      for (int e = g * size; e < (g + 1) * size; ++e) {
        if (choice[e] > first) {
          second = first;
          first = choice[e];
        } else if (choice[e] > second) {
          second = choice[e];
        }
      }
      group_score[g] = biased ? first + second : first;
      group_taken[g] = false;
    }
    for (int i = 0; i < p.topk_groups; ++i) {
      const int g = best_of(group_score, p.groups);
      group_taken[g] = true;
      group_score[g] = low;
    }
    for (int e = 0; e < p.experts; ++e) {
      if (!group_taken[e / size]) choice[e] = low;
    }
    for (int i = 0; i < p.top_k; ++i) {
      const int e = best_of(choice, p.experts);
      choice[e] = low;
      int at = i;  // into its place by id
      for (; at > 0 && chosen[at - 1] > e; --at) chosen[at] = chosen[at - 1];
      chosen[at] = e;
    }
    float sum = 0.0F;
    for (int i = 0; i < p.top_k; ++i) sum += score[chosen[i]];
    for (int i = 0; i < p.top_k; ++i) {
      const float s = score[chosen[i]];
      weights[i] = (p.normalise ? s / (sum + 1e-20F) : s) * p.scale;
    }
  }

  static void choose(const RouterParams& p, int begin, int end) {
    for (int t = begin; t < end; ++t) {
      route(p, p.logits + t * p.ld, p.chosen + static_cast<std::int64_t>(t) * p.top_k,
            p.weights + static_cast<std::int64_t>(t) * p.top_k);
    }
  }
};

}  // namespace
}  // namespace dsm::kernels

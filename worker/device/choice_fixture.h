// What tests of choosing share: the tokens of the device that is there against the definition.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "kernels/choose.h"
#include "kernels/draw.h"
#include "worker/device/backend_fixture.h"

namespace dsm::device {

using namespace kernels;

inline constexpr std::int32_t kUntouched = -7;

class ChoiceTest : public BackendTest {
 protected:
  // Tokens of rows [rows, ld], of which the first `vocab` columns may be chosen.
  static std::vector<std::int32_t> tokens(const Side& side, const std::vector<float>& logits,
                                          std::int64_t ld, int vocab,
                                          const std::vector<Choice>& choices) {
    auto* to = allocate_shared<std::int32_t>(*side.backend, choices.size());
    std::fill_n(to, choices.size(), kUntouched);
    side.backend->choose({.logits = side.put(logits),
                          .ld = ld,
                          .choices = choices.data(),
                          .rows = static_cast<int>(choices.size()),
                          .vocab = vocab,
                          .tokens = to});
    side.backend->wait();
    return {to, to + choices.size()};
  }

  // Of the device against the definition.
  void expect_equal(const std::vector<float>& logits, std::int64_t ld, int vocab,
                    const std::vector<Choice>& choices, const std::string& what) {
    for (const Side* side : {&cpu_, &device_}) {
      const auto got = tokens(*side, logits, ld, vocab, choices);
      for (std::size_t r = 0; r < choices.size(); ++r) {
        const auto* row = logits.data() + static_cast<std::ptrdiff_t>(r) * ld;
        const std::int32_t wanted =
            choices[r].wanted ? choose_token({row, size(vocab)}, choices[r]) : kUntouched;
        ASSERT_EQ(got[r], wanted) << what << ", row " << r;
      }
    }
  }
};

}  // namespace dsm::device

#include "worker/device/shared_steps.h"

#include <gtest/gtest.h>

#include <barrier>

#include "worker/device/ranks_fixture.h"

namespace dsm::device {
namespace {

constexpr int kSteps = 200;

// In a step with an odd number that is a multiple of 7 the last rank asks, in every 11th another
// one, and in every 13th several.
bool asks(int rank, int step) {
  return (step % 7 == 0 && step % 2 == 1 && rank == 2) || (step % 11 == 0 && rank == 1) ||
         (step % 13 == 0 && rank > 0);
}

// The barrier at the end of a step stands for its sums: a rank begins the next one before others
// have left it.
TEST(SharedSteps, DropsOnAllRanksInTheStepAfterOneHasAsked) {
  run(3, [](comm::Communicator& ranks) {
    SharedSteps steps(ranks);
    EXPECT_FALSE(steps.in_step());
    for (int number = 1; number <= kSteps; ++number) {
      {
        const SharedSteps::Step step(steps);
        EXPECT_TRUE(steps.in_step());
        const bool wanted = asks(1, number - 1) || asks(2, number - 1);
        EXPECT_EQ(step.drops(), number > 1 && wanted) << number;
        if (step.drops()) steps.meet();
        if (asks(ranks.rank(), number)) steps.ask_to_drop();
        ranks.barrier();
      }
      EXPECT_FALSE(steps.in_step());
    }
  });
}

TEST(SharedSteps, StaysPlainForOneStep) {
  run(2, [](comm::Communicator& ranks) {
    SharedSteps steps(ranks);
    {
      const SharedSteps::Step step(steps);
      EXPECT_FALSE(steps.is_plain());
      steps.stay_plain();
      EXPECT_TRUE(steps.is_plain());
    }
    const SharedSteps::Step step(steps);
    EXPECT_FALSE(steps.is_plain());
  });
}

TEST(SharedSteps, ThrowsInsteadOfMeetingARankThatIsLost) {
  std::barrier<> all(2);
  run(2, [&](comm::Communicator& ranks) {
    SharedSteps steps(ranks);
    all.arrive_and_wait();
    if (ranks.rank() == 1) return ranks.abort();
    EXPECT_THROW(steps.meet(), comm::CommError);
  });
}

}  // namespace
}  // namespace dsm::device

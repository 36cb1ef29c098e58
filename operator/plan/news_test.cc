#include "operator/plan/news.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dsm::plan {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> told(std::vector<EventNote> notes) {
  std::vector<std::string> texts;
  for (const EventNote& note : folded(std::move(notes))) {
    texts.push_back(note.reason + ": " + note.message);
  }
  return texts;
}

TEST(Folded, NotesOfOneKindBecomeOne) {
  EXPECT_THAT(told({{false, "GroupReady", "Watch", "group a answers"},
                    {false, "GroupCreated", "Create", "making group c"},
                    {false, "GroupReady", "Watch", "group b answers"},
                    {false, "Ready", "Watch", "2 of 2"}}),
              ElementsAre("GroupReady: group a answers; group b answers",
                          "GroupCreated: making group c", "Ready: 2 of 2"));
}

TEST(Folded, AWarningIsNotMixedWithANote) {
  EXPECT_THAT(
      told({{false, "CrashLoop", "Watch", "over"}, {true, "CrashLoop", "Watch", "group a"}}),
      ElementsAre("CrashLoop: over", "CrashLoop: group a"));
}

TEST(Folded, TheMessageEndsWhenItIsLongerThanAnEventTakes) {
  const std::vector<EventNote> notes(1000, {false, "GroupReady", "Watch", std::string(100, 'x')});
  const auto texts = told(notes);
  ASSERT_EQ(texts.size(), 1U);
  EXPECT_LT(texts[0].size(), 1300U);
}

TEST(Folded, NothingStaysNothing) {
  EXPECT_THAT(told({}), IsEmpty());
}

}  // namespace
}  // namespace dsm::plan

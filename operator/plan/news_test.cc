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

api::ModelStatus with_group(const char* phase, const char* reason) {
  api::ModelStatus status;
  api::GroupStatus& group = status.groups.emplace_back();
  group.name = "m-abcd1234-0";
  group.phase = phase;
  group.reason = reason;
  group.message = "words";
  return status;
}

api::ModelStatus degraded(api::ModelStatus status, const char* reason) {
  api::Condition& condition = status.conditions.emplace_back();
  condition.type = api::kDegraded;
  condition.status = api::Truth::kTrue;
  condition.reason = reason;
  condition.message = "of the model";
  return status;
}

TEST(News, ACauseOfAGroupThatMayWantAPersonsTimeIsTold) {
  const auto starting = with_group("Starting", "Starting");
  for (const char* reason : {"QuotaExceeded", "WaitingForGPU", "ImagePull", "OOMKilled"}) {
    const auto notes = news(starting, with_group("Pending", reason));
    ASSERT_EQ(notes.size(), 1U) << reason;
    EXPECT_TRUE(notes[0].warning);
    EXPECT_EQ(notes[0].reason, reason);
    EXPECT_EQ(notes[0].message, "group m-abcd1234-0: words");
  }
  EXPECT_THAT(told(news({}, with_group("Pending", "QuotaExceeded"))),
              ElementsAre("QuotaExceeded: group m-abcd1234-0: words"));
}

TEST(News, StationsAndWhatWasToldAreNot) {
  for (const char* reason : {"Creating", "Starting", "LoadingWeights", "Rendezvous", "Draining"}) {
    EXPECT_THAT(told(news({}, with_group("Starting", reason))), IsEmpty()) << reason;
  }
  const auto refused = with_group("Pending", "QuotaExceeded");
  EXPECT_THAT(told(news(refused, refused)), IsEmpty());
  EXPECT_THAT(told(news(refused, with_group("Failed", "CrashLoop"))),
              ElementsAre("GroupFailed: group m-abcd1234-0: words"));
}

TEST(News, WhatTheModelIsDegradedForIsToldOfItsGroupAlone) {
  const auto starting = with_group("Starting", "Starting");
  EXPECT_THAT(told(news(starting, degraded(with_group("Starting", "ImagePull"), "ImagePull"))),
              ElementsAre("ImagePull: group m-abcd1234-0: words"));
  EXPECT_THAT(told(news(starting, degraded(with_group("Starting", "ImagePull"), "NameConflict"))),
              ElementsAre("ImagePull: group m-abcd1234-0: words", "NameConflict: of the model"));
}

}  // namespace
}  // namespace dsm::plan

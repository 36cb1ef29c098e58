#include "ctl/revisions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ctl/testing/example.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using testing::Example;
using ::testing::HasSubstr;
using testing::kNow;
using testing::revision_object;

std::string name_of_revision(const json& spec) {
  return api::revision_of(api::parse_spec(spec).value());
}

// Revision a serves; the spec was changed to b, with fields that a does not have.
class Revisions : public ::testing::Test {
 protected:
  Revisions() {
    b.merge_patch({{"model", {{"revision", "b"}, {"servedName", "other"}}},
                   {"engine", {{"threads", 4}}},
                   {"image", "worker:2"},
                   {"replicas", 5},
                   {"rollout", {{"maxSurge", 3}}}});
    example.model["spec"] = b;
    example.revisions.push_back(revision_object(b, 2));
  }
  std::vector<KeptRevision> kept() const {
    return kept_revisions(example.model, example.revisions);
  }
  Result<Rollback> back(const std::string& to = "") const {
    return roll_back(example.model, kept(), to);
  }
  json after(const Rollback& rollback) const {
    json model = example.model;
    model.merge_patch(rollback.patch);
    return model["spec"];
  }

  json a = testing::example_spec();
  json b = testing::example_spec();
  Example example;
  const std::string revision_a = name_of_revision(a);
};

TEST_F(Revisions, the_newest_is_first_and_those_of_others_are_left_out) {
  json foreign = revision_object(b, 9);
  foreign["metadata"]["ownerReferences"][0]["uid"] = "another";
  example.revisions.push_back(foreign);
  example.revisions.push_back({{"kind", "ControllerRevision"}, {"data", 7}});
  ASSERT_EQ(kept().size(), 2U);
  EXPECT_EQ(kept()[0].revision.number, 2);
}

TEST_F(Revisions, a_rollback_brings_the_part_that_shapes_pods_back_and_nothing_else) {
  const auto rollback = back();
  ASSERT_TRUE(rollback) << rollback.error().message;
  EXPECT_EQ(rollback->to, revision_a);
  EXPECT_EQ(rollback->from, name_of_revision(b));
  EXPECT_EQ(rollback->patch["metadata"], json({{"uid", "uid-r1"}}));
  EXPECT_EQ(rollback->patch["spec"], json::parse(R"({"model": {"revision": "a", "servedName": null},
                                                     "engine": null, "image": null})"));
  const json spec = after(*rollback);
  EXPECT_EQ(name_of_revision(spec), revision_a);
  EXPECT_EQ(spec["replicas"], 5);
  EXPECT_EQ(spec["rollout"]["maxSurge"], 3);
  ASSERT_EQ(rollback->changes.size(), 4U);
  EXPECT_EQ(to_text(rollback->changes[0]), "spec.engine.threads: 4 -> (not set)");
  EXPECT_EQ(to_text(rollback->changes[2]), "spec.model.revision: \"b\" -> \"a\"");
}

TEST_F(Revisions, after_a_whole_rollout_it_goes_to_the_one_before) {
  example.model["status"]["currentRevision"] = name_of_revision(b);
  EXPECT_EQ(back().value().to, revision_a);
}

TEST_F(Revisions, it_goes_to_the_newest_that_has_served) {
  json bad = b;
  bad["model"]["revision"] = "bad";
  example.revisions.push_back(revision_object(bad, 3));
  json& first = example.revisions[0];
  first["metadata"]["annotations"][std::string(api::kServedAnnotation)] = "true";
  example.model["status"]["currentRevision"] = name_of_revision(b);
  EXPECT_EQ(back()->to, revision_a);
}

TEST_F(Revisions, in_the_middle_of_a_rollout_it_goes_to_the_one_that_served) {
  json c = b;
  c["model"]["revision"] = "c";
  example.revisions.push_back(revision_object(c, 3));
  EXPECT_EQ(back().value().to, revision_a);  // not to c, which is newer
}

TEST_F(Revisions, one_that_is_named_must_be_there_and_another_one) {
  EXPECT_EQ(back(revision_a).value().to, revision_a);
  const auto unknown = back("ffffffff");
  ASSERT_FALSE(unknown);
  EXPECT_THAT(unknown.error().message, AllOf(HasSubstr("ffffffff"), HasSubstr(revision_a)));
  const auto same = back(name_of_revision(b));
  ASSERT_FALSE(same);
  EXPECT_EQ(same.error().kind, ErrorKind::kConflict);
}

TEST_F(Revisions, alone_there_is_nothing_to_go_back_to) {
  example.model["spec"] = a;
  example.revisions.resize(1);
  ASSERT_FALSE(back());
  EXPECT_THAT(back().error().message, HasSubstr("no other revision"));
}

TEST_F(Revisions, a_spec_that_is_wrong_is_brought_back_too) {
  example.model["spec"]["parallelism"]["tensor"] = 3;
  example.model["spec"]["no-such-field"] = 1;
  const auto rollback = back();
  ASSERT_TRUE(rollback) << rollback.error().message;
  EXPECT_EQ(rollback->from, "");
  const json spec = after(*rollback);
  EXPECT_EQ(name_of_revision(spec), revision_a);
  EXPECT_EQ(spec["replicas"], 5);
  EXPECT_EQ(spec["rollout"]["maxSurge"], 3);
}

TEST_F(Revisions, a_restart_is_a_revision_and_can_be_rolled_back) {
  json model = example.model;
  model.merge_patch(restart_patch(model, kNow));
  EXPECT_EQ(model["spec"]["template"]["annotations"]["kubectl.kubernetes.io/restartedAt"],
            "2026-01-02T12:00:00Z");
  EXPECT_NE(name_of_revision(model["spec"]), name_of_revision(b));
  const auto rollback = roll_back(model, kept(), name_of_revision(b));
  ASSERT_TRUE(rollback) << rollback.error().message;
  EXPECT_EQ(rollback->patch["spec"], json::parse(R"({"template": null})"));
}

TEST_F(Revisions, a_pause_is_a_field_and_going_on_takes_it_away) {
  json model = example.model;
  model.merge_patch(pause_patch(model, true));
  EXPECT_TRUE(is_paused(model));
  EXPECT_EQ(model["spec"]["rollout"]["maxSurge"], 3);
  model.merge_patch(pause_patch(model, false));
  EXPECT_FALSE(model["spec"]["rollout"].contains("paused"));
}

TEST_F(Revisions, the_history_says_what_each_is_and_would_change) {
  const std::string text = history_text(example.model, kept(), kNow, {});
  EXPECT_THAT(text, HasSubstr("REVISION"));
  EXPECT_THAT(text, HasSubstr(name_of_revision(b) + "   2        24h   wanted    worker:1   -\n"));
  EXPECT_THAT(text, HasSubstr(revision_a + "   1        24h   serving   worker:1   "
                                           "spec.engine.threads: 4 -> (not set); "));
}

TEST(MergeDiff, makes_the_one_of_the_other) {
  const json from = json::parse(R"({"a": 1, "b": {"c": 2, "d": [1, 2]}, "e": {}, "f": "x"})");
  const json to = json::parse(R"({"b": {"d": [1], "n": {"m": 1}}, "e": {}, "f": {"g": 1}})");
  json made = from;
  made.merge_patch(merge_diff(from, to));
  EXPECT_EQ(made, to);
  EXPECT_EQ(merge_diff(to, to), json::object());
}

}  // namespace
}  // namespace dsm::ctl

// The adapters of a group: that every pod has one before a row names it, that a load which fails
// anywhere is undone everywhere, and what lost pods get when they come back.
#include "worker/group/adapters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "worker/group/adapter_roll.h"
#include "worker/group/group_fixture.h"

namespace dsm::group {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

AdapterPointer adapter(engine::AdapterId id, const std::string& name) {
  return std::make_shared<const engine::Adapter>(engine::Adapter{.id = id, .name = name});
}
SharedAdapter shared_adapter(engine::AdapterId id, const std::string& digest = "d") {
  return {.id = id, .name = "a" + std::to_string(id), .path = "/a", .digest = digest};
}

TEST(HeldAdapters, AreWhatIsWantedAndNothingElse) {
  std::vector<std::string> loads;
  HeldAdapters held([&](const SharedAdapter& wanted) -> Result<AdapterPointer> {
    loads.push_back(wanted.name + wanted.digest);
    if (wanted.digest == "bad") {
      return fail(ErrorKind::kInvalid, "is broken");
    }
    return adapter(wanted.id, wanted.name);
  });
  auto own = adapter(1, "a1");
  const std::weak_ptr<const engine::Adapter> alive = own;
  held.add(shared_adapter(1), std::move(own));
  EXPECT_THAT(held.keep({shared_adapter(1), shared_adapter(2)}), IsEmpty());
  EXPECT_THAT(loads, ElementsAre("a2d"));
  EXPECT_THAT(held.keep({shared_adapter(1), shared_adapter(2), shared_adapter(3, "bad")}),
              ElementsAre(AdapterFailure{.id = 3, .message = "is broken"}));
  EXPECT_FALSE(alive.expired());
  // Another leader may mean other weights by the same number.
  EXPECT_THAT(held.keep({shared_adapter(2, "e")}), IsEmpty());
  EXPECT_TRUE(alive.expired());
  EXPECT_THAT(loads, ElementsAre("a2d", "a3bad", "a2e"));
}

TEST(SharedAdapters, AreWantedAsLongAsSomebodyHoldsThem) {
  SharedAdapters shared;
  auto one = adapter(1, "one");
  const auto two = adapter(2, "two");
  shared.add(two, "/two", "d2");
  shared.add(one, "/one", "d1");
  EXPECT_THAT(shared.wanted(),
              ElementsAre(SharedAdapter{.id = 1, .name = "one", .path = "/one", .digest = "d1"},
                          SharedAdapter{.id = 2, .name = "two", .path = "/two", .digest = "d2"}));
  one.reset();
  ASSERT_EQ(shared.wanted().size(), 1U);
  EXPECT_EQ(shared.wanted()[0].id, 2);
  EXPECT_EQ(shared.share(two, "/two", "d2").error().kind, ErrorKind::kTransient)
      << "there is no group";
}

TEST(AdapterRoll, KnowsAnAdapterWhenEveryPodHasAnsweredForIt) {
  AdapterRoll roll(2);
  EXPECT_TRUE(roll.want({shared_adapter(1)}));
  EXPECT_FALSE(roll.want({shared_adapter(1)}));
  EXPECT_FALSE(roll.verdict(7)) << "nobody was told of it";
  EXPECT_EQ(roll.verdict(1)->error().kind, ErrorKind::kTransient);
  EXPECT_THAT(roll.complaint(), HasSubstr("0 of 2 other pods"));
  roll.joined(1);
  roll.joined(2);
  const std::uint64_t version = roll.message().version;
  roll.heard(1, {.version = version, .failures = {}});
  EXPECT_FALSE(roll.verdict(1));
  EXPECT_EQ(roll.complaint(), "pod 2 loads adapters");
  roll.heard(2, {.version = version, .failures = {}});
  EXPECT_TRUE(roll.verdict(1) && roll.verdict(1)->has_value());
  EXPECT_TRUE(roll.complete());
  // An answer of the connection before this one is none.
  roll.joined(2);
  roll.heard(1, {.version = roll.message().version, .failures = {}});
  roll.heard(2, {.version = version, .failures = {}});
  EXPECT_FALSE(roll.complete());
  roll.lost(2);
  EXPECT_EQ(roll.verdict(1)->error().kind, ErrorKind::kTransient);
}

TEST(AdapterRoll, NamesThePodThatCannotLoadIt) {
  AdapterRoll roll(2);
  roll.joined(1);
  roll.joined(2);
  roll.want({shared_adapter(1), shared_adapter(2)});
  roll.heard(
      2, {.version = roll.message().version, .failures = {{.id = 2, .message = "no such folder"}}});
  EXPECT_EQ(roll.verdict(2)->error().message, "pod 2 cannot load the adapter 'a2': no such folder");
  EXPECT_EQ(roll.verdict(2)->error().kind, ErrorKind::kInvalid);
  EXPECT_FALSE(roll.verdict(1)) << "pod 1 has not answered";
  roll.heard(1, {.version = roll.message().version, .failures = {}});
  EXPECT_TRUE(roll.verdict(1)->has_value());
  EXPECT_TRUE(roll.failed());
  EXPECT_FALSE(roll.complete());
  roll.again();
  EXPECT_FALSE(roll.failed()) << "that was said of the version before";
  EXPECT_FALSE(roll.verdict(2));
}

// A group of three pods in which clients load adapters.
class AdaptersOfAGroup : public ::testing::Test {
 protected:
  AdaptersOfAGroup() {
    group.with_adapters = true;
    group.start();
    EXPECT_TRUE(group.becomes_ready());
  }
  // As the leader does it for a client: here first, then everywhere.
  Result<AdapterPointer> load(engine::AdapterId id, const std::string& name,
                              const std::string& digest = "d") {
    auto made = adapter(id, name);
    group.controls[0]->enter(made);
    if (auto shared = group.shared->share(made, "/" + name, digest); !shared) {
      return std::unexpected(shared.error());
    }
    return made;
  }
  bool all_have(engine::AdapterId id) {
    return std::ranges::all_of(group.controls, [&](const auto& pod) { return pod->has(id); });
  }
  ::testing::AssertionResult nobody_has(engine::AdapterId id) {
    return eventually([&] {
      return std::ranges::none_of(group.controls, [&](const auto& pod) { return pod->has(id); });
    });
  }
  ::testing::AssertionResult answers_with(const AdapterPointer& chosen) {
    Request request(*group.engine, {1, 2, 3}, 20, chosen);
    if (auto done = eventually([&] { return request.finished().has_value(); }); !done) {
      return done;
    }
    if (request.tokens() != FakeModel::answer({1, 2, 3}, 20)) {
      return ::testing::AssertionFailure() << request.error();
    }
    return ::testing::AssertionSuccess();
  }

  TestGroup group{3, 1};
};

TEST_F(AdaptersOfAGroup, AreOnEveryPodBeforeTheyAreUsedAndAsLong) {
  auto law = load(1, "law");
  ASSERT_TRUE(law) << law.error().message;
  EXPECT_TRUE(all_have(1));
  EXPECT_TRUE(answers_with(*law));
  auto sql = load(2, "sql");
  ASSERT_TRUE(sql);
  law->reset();
  EXPECT_TRUE(nobody_has(1));
  EXPECT_TRUE(all_have(2));
  EXPECT_TRUE(answers_with(*sql));
  EXPECT_EQ(group.leader->state().epoch, 1U) << "steps went on meanwhile";
  EXPECT_EQ(group.controls[1]->adapter_loads, 2);
}

TEST_F(AdaptersOfAGroup, AreUndoneEverywhereWhenAPodRefuses) {
  group.controls[2]->refuse_adapters = true;
  const auto refused = load(1, "law");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kInvalid);
  EXPECT_EQ(refused.error().message, "pod 2 cannot load the adapter 'law': /law: no such folder");
  EXPECT_TRUE(nobody_has(1));
  group.controls[2]->refuse_adapters = false;
  const auto again = load(2, "law");
  ASSERT_TRUE(again);
  EXPECT_TRUE(answers_with(*again));
  EXPECT_EQ(group.leader->state().epoch, 1U);
}

TEST_F(AdaptersOfAGroup, AreNotLoadedWithoutAPodThatIsLostMeanwhile) {
  group.controls[1]->hold_adapters = true;
  auto loading = std::async(std::launch::async, [&] { return load(1, "law"); });
  ASSERT_TRUE(eventually([&] { return group.controls[1]->adapter_loads == 1; }));
  group.followers[2].reset();
  const auto lost = loading.get();
  ASSERT_FALSE(lost);
  EXPECT_EQ(lost.error().kind, ErrorKind::kTransient);
  EXPECT_THAT(lost.error().message, HasSubstr("1 of 2 other pods"));
  EXPECT_EQ(load(2, "sql").error().kind, ErrorKind::kTransient) << "nor while it is away";
  group.controls[1]->hold_adapters = false;
  group.start_follower(2);
  ASSERT_TRUE(group.becomes_ready());
  EXPECT_TRUE(nobody_has(1));
  const auto again = load(3, "law");
  ASSERT_TRUE(again);
  EXPECT_TRUE(answers_with(*again));
}

TEST_F(AdaptersOfAGroup, AreGivenToAPodThatCameBackBeforeTheNextEpoch) {
  const auto law = load(1, "law");
  ASSERT_TRUE(law);
  Request request(*group.engine, {5, 6}, 400, *law);
  ASSERT_TRUE(eventually([&] { return request.received() > 3; }));
  group.followers[1].reset();
  EXPECT_FALSE(group.controls[1]->has(1));
  group.controls[1]->hold_adapters = true;
  group.start_follower(1);
  ASSERT_TRUE(eventually([&] { return group.leader->state().reason == "LoadingAdapters"; }));
  EXPECT_EQ(group.leader->state().message, "pod 1 loads adapters");
  EXPECT_EQ(group.leader->state().epoch, 1U);
  group.controls[1]->hold_adapters = false;
  ASSERT_TRUE(eventually([&] { return request.finished().has_value(); }));
  EXPECT_EQ(request.tokens(), FakeModel::answer({5, 6}, 400)) << request.error();
  EXPECT_EQ(group.leader->state().epoch, 2U);
  EXPECT_EQ(group.controls[1]->adapter_loads, 2);
  EXPECT_EQ(group.controls[2]->adapter_loads, 1) << "survivors keep theirs";
}

TEST_F(AdaptersOfAGroup, AreTriedAgainByAPodThatCannotLoadThemAnyMore) {
  const auto law = load(1, "law");
  ASSERT_TRUE(law);
  group.followers[1].reset();
  group.controls[1]->refuse_adapters = true;
  group.start_follower(1);
  ASSERT_TRUE(eventually([&] {
    return group.leader->state().message ==
           "pod 1 cannot load the adapter 'law': /law: no such folder";
  })) << group.leader->state().message;
  group.controls[1]->refuse_adapters = false;
  ASSERT_TRUE(group.becomes_ready());
  EXPECT_TRUE(answers_with(*law));
}

TEST_F(AdaptersOfAGroup, AreThoseOfTheNewLeaderWhateverTheirNumbersMeantToTheOldOne) {
  const auto law = load(1, "law", "old");
  const auto sql = load(2, "sql", "same");
  ASSERT_TRUE(law && sql);
  group.stop_leader();
  group.start_leader();  // on the same port
  ASSERT_TRUE(group.becomes_ready());
  const auto tax = load(1, "tax", "new");
  ASSERT_TRUE(tax);
  EXPECT_TRUE(answers_with(*tax));
  EXPECT_FALSE(group.controls[1]->has(2));
  EXPECT_EQ(group.controls[1]->adapter_loads, 3) << "law, sql, tax";
}

}  // namespace
}  // namespace dsm::group

// Whole groups over loopback: how they form, serve, lose pods and meet again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>

#include "worker/group/group_fixture.h"
#include "worker/group/wire.h"

namespace dsm::group {
namespace {

// The next message; throws when another one comes, or none in time.
template <typename M>
M receive(Channel& channel) {
  const auto message = channel.receive(Millis(10'000)).value_or(std::nullopt);
  if (!message || !std::holds_alternative<M>(*message)) {
    throw std::runtime_error("the message that should come did not");
  }
  return std::get<M>(*message);
}

using ::testing::HasSubstr;

struct Shape {
  int tensor_parallel;
  int ranks_per_pod;
};
class GroupShapes : public ::testing::TestWithParam<Shape> {};

TEST_P(GroupShapes, FormAndServe) {
  TestGroup group(GetParam().tensor_parallel, GetParam().ranks_per_pod);
  group.start();
  ASSERT_TRUE(group.becomes_ready());
  EXPECT_TRUE(group.answers({1, 2, 3}, 40));
  const GroupState state = group.leader->state();
  EXPECT_EQ(state.reason, "Formed");
  EXPECT_EQ(state.epoch, 1U);
  EXPECT_TRUE(state.loaded);
  EXPECT_TRUE(state.live);
  ASSERT_EQ(static_cast<int>(state.ranks.size()), GetParam().tensor_parallel);
  for (int rank = 0; rank < GetParam().tensor_parallel; ++rank) {
    EXPECT_EQ(state.ranks[static_cast<std::size_t>(rank)].rank, rank);
    EXPECT_EQ(state.ranks[static_cast<std::size_t>(rank)].loaded_bytes, 100U);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, GroupShapes,
                         ::testing::Values(Shape{1, 1}, Shape{4, 4}, Shape{2, 1}, Shape{4, 1},
                                           Shape{4, 2}),
                         [](const auto& param_info) {
                           return "Tp" + std::to_string(param_info.param.tensor_parallel) + "Per" +
                                  std::to_string(param_info.param.ranks_per_pod);
                         });

TEST(Group, WaitsForPodsAndNamesThem) {
  TestGroup group(3, 1);
  group.start_leader();
  group.start_follower(1);
  ASSERT_TRUE(eventually([&] {
    const GroupState s = group.leader->state();
    return s.reason == "WaitingForPods" && s.message == "waiting for pod 2 of the group";
  }));
  EXPECT_FALSE(group.leader->recover(group.clock.now()));
  ASSERT_TRUE(eventually([&] { return group.followers[1]->state().reason == "WaitingForPods"; }));
  EXPECT_TRUE(group.followers[1]->state().live);
  EXPECT_FALSE(group.followers[1]->state().ready());
  group.start_follower(2);
  EXPECT_TRUE(group.becomes_ready());
  EXPECT_TRUE(eventually([&] { return group.followers[2]->state().ready(); }));
}

TEST(Group, ShowsTheLoadingOfAllRanks) {
  TestGroup group(2, 1);
  group.controls[1]->hold_load = true;
  group.start();
  ASSERT_TRUE(eventually([&] {
    const GroupState s = group.leader->state();
    return s.phase == Phase::kLoading && s.ranks[0].loaded_bytes == 100 &&
           s.ranks[1].loaded_bytes == 50 && s.ranks[1].total_bytes == 100;
  }));
  group.controls[1]->hold_load = false;
  EXPECT_TRUE(group.becomes_ready());
}

TEST(Group, ShowsWhyARankCannotLoad) {
  TestGroup group(2, 1);
  group.controls[1]->fail_load_of_rank = 1;
  group.start();
  ASSERT_TRUE(eventually([&] { return group.leader->state().phase == Phase::kFailed; }));
  EXPECT_EQ(group.leader->state().message, "rank 1: no such checkpoint");
  EXPECT_EQ(group.followers[1]->state().phase, Phase::kFailed);
  EXPECT_TRUE(group.followers[1]->state().ended);
  EXPECT_FALSE(group.leader->state().ended) << "it keeps its weights";
}

TEST(Group, ShowsThatARankHasNoMemoryForItsWeights) {
  TestGroup group(2, 1);
  group.controls[1]->no_memory = true;
  group.start();
  ASSERT_TRUE(eventually([&] { return group.leader->state().phase == Phase::kFailed; }));
  EXPECT_EQ(group.leader->state().reason, "DeviceError");
  EXPECT_TRUE(group.followers[1]->state().ended);
}

TEST(Group, ShowsThatADeviceFailedWhileWeightsWereLoaded) {
  TestGroup group(1, 1);
  group.controls[0]->no_device = true;
  group.start();
  ASSERT_TRUE(eventually([&] { return group.leader->state().ended; }));
  EXPECT_EQ(group.leader->state().reason, "DeviceError");
  EXPECT_EQ(group.leader->state().message,
            "rank 0: loading the weights: GPU: cannot copy to it: it is gone");
}

TEST(Group, MeetsAgainWhenARankCouldNotJoinWhatItComputesOn) {
  TestGroup group(2, 1);
  group.controls[1]->fail_join_of_rank = 1;
  group.start();
  ASSERT_TRUE(eventually([&] { return group.leader->state().epoch > 1; }));
  ASSERT_TRUE(group.becomes_ready());
  EXPECT_GE(group.controls[1]->joins, 2) << "in each epoch";
  EXPECT_TRUE(group.answers({5, 6}, 8));
}

// As ranks of many GPUs on a busy node may.
TEST(Group, MeetsAlsoWhenJoiningTakesLongerThanAnEpochFirstHas) {
  TestGroup group(2, 1, [](GroupOptions& o) { o.form_timeout = Millis(100); });
  group.controls[1]->join_takes = Millis(600);
  group.start();
  ASSERT_TRUE(group.becomes_ready());
  EXPECT_GE(group.leader->state().epoch, 4U) << "100, 200 and 400 ms are not enough";
  EXPECT_TRUE(group.answers({5, 6}, 8));
}

TEST(Group, GoesOnWithoutAnErrorWhenARankThatLostItsDeviceStartsAnew) {
  TestGroup group(2, 1);
  group.start();
  Request request(*group.engine, {5, 6}, 400);
  ASSERT_TRUE(eventually([&] { return request.received() > 3; }));
  group.controls[1]->fail_device_of_rank = 1;
  ASSERT_TRUE(eventually([&] { return group.followers[1]->state().ended; }));
  EXPECT_EQ(group.followers[1]->state().reason, "DeviceError");
  EXPECT_EQ(group.followers[1]->state().message, "rank 1: no memory for a step");
  EXPECT_TRUE(group.followers[1]->state().live) << "no thread hangs";
  ASSERT_TRUE(eventually([&] { return group.leader->state().reason == "DeviceError"; }));
  EXPECT_FALSE(group.leader->state().ended) << "it keeps its weights";
  EXPECT_THAT(group.leader->state().last_error, HasSubstr("device error: no memory for a step"));
  EXPECT_FALSE(request.finished());
  group.controls[1]->fail_device_of_rank = -1;
  group.followers[1].reset();
  group.start_follower(1);
  ASSERT_TRUE(eventually([&] { return request.finished().has_value(); }));
  EXPECT_EQ(request.tokens(), FakeModel::answer({5, 6}, 400));
  EXPECT_EQ(group.controls[0]->loads, 1);
}

TEST(Group, OfALeaderThatLostItsDeviceHasEnded) {
  TestGroup group(2, 2);
  group.start();
  ASSERT_TRUE(group.becomes_ready());
  group.controls[0]->fail_device_of_rank = 1;
  const Request request(*group.engine, {5, 6}, 4);
  ASSERT_TRUE(eventually([&] { return group.leader->state().ended; }));
  EXPECT_EQ(group.leader->state().reason, "DeviceError");
  EXPECT_FALSE(request.finished());
}

health::DeviceHealth gpu(health::Level level, const std::string& message) {
  health::DeviceHealth health;
  health.level = level;
  health.device = "GPU 3";
  health.message = message;
  health.temperature_celsius = 61;
  return health;
}

TEST(Group, TellsItsLeaderHowTheGpusOfAllPodsAre) {
  TestGroup group(2, 1);
  group.start();
  ASSERT_TRUE(group.becomes_ready());
  group.leader->device_is(0, gpu(health::Level::kHealthy, ""));
  group.followers[1]->device_is(1, gpu(health::Level::kDegraded, "GPU 3: hot"));
  ASSERT_TRUE(eventually(
      [&] { return group.leader->state().ranks.at(1).device.level == health::Level::kDegraded; }));
  const GroupState state = group.leader->state();
  EXPECT_EQ(state.ranks[0].device.level, health::Level::kHealthy);
  EXPECT_EQ(state.ranks[1].device, gpu(health::Level::kDegraded, "GPU 3: hot"));
  EXPECT_TRUE(state.ready()) << "it computes";
  EXPECT_TRUE(group.answers({5, 6}, 4));
}

// The rank's own thread hangs, as one that waits for a GPU which has fallen off the bus.
TEST(Group, OfARankWhoseGpuIsLostGoesOnWhenThatStartsAnew) {
  TestGroup group(2, 1);
  group.start();
  Request request(*group.engine, {5, 6}, 400);
  ASSERT_TRUE(eventually([&] { return request.received() > 3; }));
  group.controls[1]->hang_on_rank = 1;
  group.followers[1]->device_is(1, gpu(health::Level::kFatal, "GPU 3: Xid 79"));
  EXPECT_TRUE(group.followers[1]->state().ended);
  EXPECT_EQ(group.followers[1]->state().reason, "DeviceError");
  EXPECT_EQ(group.followers[1]->state().message, "rank 1: GPU 3: Xid 79");
  ASSERT_TRUE(eventually([&] { return group.leader->state().reason == "DeviceError"; }));
  EXPECT_FALSE(group.leader->state().ended);
  group.controls[1]->hang_on_rank = -1;
  group.followers[1].reset();
  group.start_follower(1);
  ASSERT_TRUE(eventually([&] { return request.finished().has_value(); }));
  EXPECT_EQ(request.tokens(), FakeModel::answer({5, 6}, 400));
}

TEST(Group, AgreesOnTheSmallestKvRoomAndKeepsTheNumber) {
  TestGroup group(2, 1);
  group.controls[0]->kv_room = 70;
  group.controls[1]->kv_room = 50;
  group.start();
  ASSERT_TRUE(group.becomes_ready());
  EXPECT_EQ(group.leader->state().kv_blocks, 50);
  EXPECT_EQ(group.controls[0]->kv_made, 50);
  EXPECT_EQ(group.controls[1]->kv_made, 50);
  // A rank that comes back may have more room, and makes no more of it.
  group.followers[1].reset();
  group.controls[1]->kv_room = 90;
  group.controls[1]->kv_made = 0;
  group.start_follower(1);
  ASSERT_TRUE(eventually([&] { return group.controls[1]->kv_made == 50; }));
  ASSERT_TRUE(group.becomes_ready());
  // One that has less says so, and the leader goes on waiting for a better one.
  group.followers[1].reset();
  group.controls[1]->kv_room = 40;
  group.start_follower(1);
  ASSERT_TRUE(eventually([&] { return group.followers[1]->state().ended; }));
  EXPECT_EQ(group.followers[1]->state().message, "rank 1: no room for the cache");
  EXPECT_FALSE(group.leader->state().ended);
  EXPECT_EQ(group.leader->state().kv_blocks, 50);
}

TEST(Group, AsksNoMoreOfARankThanTheCacheThatItHas) {
  TestGroup group(2, 1);
  group.controls[0]->kv_room = 50;
  group.controls[1]->kv_room = 70;
  group.start();
  ASSERT_TRUE(group.becomes_ready());
  group.stop_leader();
  group.controls[0]->kv_room = 60;
  group.start_leader();
  ASSERT_TRUE(group.becomes_ready());
  EXPECT_EQ(group.leader->state().kv_blocks, 50);
  EXPECT_EQ(group.controls[1]->loads, 1);
}

TEST(Group, OfWhichNoRankSaysItsKvRoomAgreesOnNone) {
  EXPECT_EQ(smallest_kv_room({}), 0);
  std::vector<RankState> ranks(3);
  EXPECT_EQ(smallest_kv_room(ranks), 0);
  ranks[1].kv_room = 9;
  ranks[2].kv_room = 7;
  EXPECT_EQ(smallest_kv_room(ranks), 7);
}

TEST(Group, TellsAllPodsThatItIsCondemnedAndDoesNotMeetAgain) {
  TestGroup group(3, 1);
  group.start();
  ASSERT_TRUE(group.becomes_ready());
  group.leader->condemn("token 1 of 3 is 7");
  const auto condemned = [](const GroupState& state) {
    return state.phase == Phase::kFailed && state.reason == "ProbeFailed" &&
           state.message == "token 1 of 3 is 7" && state.ended;
  };
  EXPECT_TRUE(condemned(group.leader->state()));
  for (const std::size_t pod : {1U, 2U}) {
    EXPECT_TRUE(eventually([&] { return condemned(group.followers[pod]->state()); }));
  }
  EXPECT_FALSE(group.leader->recover(group.clock.now()));
  for (const std::size_t pod : {1U, 2U}) {
    group.followers[pod].reset();
    group.start_follower(pod);
  }
  ASSERT_TRUE(eventually([&] {
    return group.followers[1]->state().reason == "WaitingForPods" &&
           group.followers[2]->state().reason == "WaitingForPods";
  }));
  EXPECT_EQ(group.leader->state().epoch, 1U) << "also with pods that have loaded anew";
  group.stop_leader();
  group.start_leader();
  EXPECT_TRUE(group.becomes_ready()) << "with a leader that has, too";
}

TEST(Group, GoesOnWithARequestAfterAFollowerWasLostAndCameBack) {
  TestGroup group(3, 1);
  group.start();
  Request request(*group.engine, {5, 6}, 400);
  ASSERT_TRUE(eventually([&] { return request.received() > 3; }));
  group.followers[1].reset();
  ASSERT_TRUE(eventually([&] { return !group.leader->state().ready(); }));
  ASSERT_TRUE(eventually([&] { return !group.followers[2]->state().ready(); }));
  EXPECT_THAT(group.leader->state().last_error, HasSubstr("pod 1 was lost"));
  const auto before = request.received();
  EXPECT_FALSE(request.finished());
  group.start_follower(1);
  ASSERT_TRUE(eventually([&] { return request.finished().has_value(); }));
  EXPECT_EQ(request.tokens(), FakeModel::answer({5, 6}, 400));
  EXPECT_LT(before, 400U);
  EXPECT_EQ(group.leader->state().epoch, 2U);
  EXPECT_EQ(group.controls[0]->loads, 1) << "survivors keep their weights";
  EXPECT_EQ(group.controls[1]->loads, 2);
  EXPECT_EQ(group.controls[2]->loads, 1);
}

TEST(Group, MeetsANewLeaderAtAHigherEpochWithoutLoadingAgain) {
  TestGroup group(2, 1);
  group.start();
  ASSERT_TRUE(group.becomes_ready());
  group.stop_leader();
  ASSERT_TRUE(eventually([&] { return !group.followers[1]->state().ready(); }));
  EXPECT_TRUE(group.followers[1]->state().live);
  group.start_leader();  // on the same port
  ASSERT_TRUE(group.becomes_ready());
  EXPECT_EQ(group.leader->state().epoch, 2U);
  EXPECT_TRUE(group.answers({9}, 30));
  EXPECT_EQ(group.controls[1]->loads, 1);
}

TEST(Group, IsNotDisturbedByGarbageOnTheControlPort) {
  TestGroup group(2, 1);
  group.start();
  for (const std::string& garbage :
       {std::string("GET / HTTP/1.1\r\n\r\n"), std::string(5000, '\xff'),
        std::string("\x02\0\0\0\x01\x05", 6), std::string("\0\0\0\0", 4), std::string()}) {
    auto socket = connect_to("127.0.0.1", group.port, Millis(1000));
    ASSERT_TRUE(socket);
    Channel channel(std::move(*socket));
    (void)channel.send_frame(std::as_bytes(std::span(garbage)));
    if (!garbage.empty()) {
      // The leader's challenge, then the end of the connection (which for a short text it waits
      // for).
      channel.shutdown();
    }
  }
  ASSERT_TRUE(group.becomes_ready());
  EXPECT_TRUE(group.answers({1}, 20));
  EXPECT_EQ(group.leader->state().epoch, 1U);
}

struct Mismatch {
  const char* name;
  std::function<void(GroupOptions&)> change;
  const char* message;
};
class Mismatches : public ::testing::TestWithParam<Mismatch> {};

TEST_P(Mismatches, AreRefusedWithTheReason) {
  TestGroup group(2, 1);
  group.start_leader();
  GroupOptions o = options(2, 1, 1, group.port);
  GetParam().change(o);
  const FollowerGroup stranger(o, loader(group.controls[1]), group.clock, Logger());
  ASSERT_TRUE(eventually([&] {
    return stranger.state().message.find(GetParam().message) != std::string::npos;
  })) << stranger.state().message;
  EXPECT_TRUE(stranger.state().live);
  EXPECT_FALSE(group.leader->state().ready());
  group.start_follower(1);
  EXPECT_TRUE(group.becomes_ready());
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, Mismatches,
    ::testing::Values(
        Mismatch{"Token", [](GroupOptions& o) { o.token = "guess"; }, "wrong token"},
        Mismatch{"Revision", [](GroupOptions& o) { o.revision = "r2"; }, "revision \"r2\""},
        Mismatch{"Model", [](GroupOptions& o) { o.model_digest = "x"; }, "its model"},
        Mismatch{"Ranks", [](GroupOptions& o) { o.tensor_parallel = 4; }, "does not fit"}),
    [](const auto& param_info) { return param_info.param.name; });

TEST(Group, RefusesALeaderThatDoesNotKnowTheToken) {
  auto listener = Listener::open("127.0.0.1", 0);
  ASSERT_TRUE(listener);
  const auto controls = std::make_shared<Controls>();
  SystemClock clock;
  const FollowerGroup follower(options(2, 1, 1, listener->port()), loader(controls), clock,
                               Logger());
  std::optional<Socket> socket;
  while (!socket) {
    socket = listener->accept(Millis(1000));
  }
  Channel channel(std::move(*socket));
  ASSERT_TRUE(channel.send(Challenge{.nonce = "n"}));
  receive<Hello>(channel);
  ASSERT_TRUE(channel.send(Welcome{.proof = std::string(32, 'x')}));
  EXPECT_TRUE(eventually(
      [&] { return follower.state().message.find("another token") != std::string::npos; }));
}

TEST(Group, TakesASilentPodForLost) {
  TestGroup group(2, 1, [](GroupOptions& o) { o.heartbeat_timeout = Millis(200); });
  group.start_leader();
  auto socket = connect_to("127.0.0.1", group.port, Millis(1000));
  ASSERT_TRUE(socket);
  Channel channel(std::move(*socket));
  const auto challenge = receive<Challenge>(channel);
  const GroupOptions o = options(2, 1, 1);
  Hello hello{.pod_index = 1,
              .tensor_parallel = 2,
              .ranks_per_pod = 1,
              .highest_epoch = 41,
              .revision = o.revision,
              .model_digest = o.model_digest,
              .nonce = "n",
              .proof = {}};
  hello.proof = hello_proof(o.token, challenge.nonce, hello);
  ASSERT_TRUE(channel.send(hello));
  ASSERT_TRUE(channel.send(Progress{.ranks = {{.rank = 1,
                                               .phase = Phase::kRendezvous,
                                               .loaded_bytes = 1,
                                               .total_bytes = 1,
                                               .error = ""}}}));
  ASSERT_TRUE(eventually([&] {
    return group.leader->state().last_error.find("silent") != std::string::npos;
  })) << group.leader->state().last_error;
  EXPECT_EQ(group.leader->state().epoch, 42U) << "one more than the highest that was reported";
}

TEST(Group, GivesUpAStepInWhichARankHangsAndGoesOnWhenItIsBack) {
  TestGroup group(2, 1, [](GroupOptions& o) { o.step_timeout = Millis(150); });
  group.start();
  ASSERT_TRUE(group.becomes_ready());
  group.controls[1]->hang_on_rank = 1;
  Request request(*group.engine, {3, 4}, 30);
  ASSERT_TRUE(eventually(
      [&] { return group.leader->state().last_error.find("a rank hangs") != std::string::npos; }));
  group.controls[1]->hang_on_rank = -1;
  ASSERT_TRUE(eventually([&] { return request.finished().has_value(); }));
  EXPECT_EQ(request.tokens(), FakeModel::answer({3, 4}, 30));
}

TEST(Group, EndsTheRequestsOfAStepThatFailsAndServesTheNext) {
  for (const int rank : {0, 1}) {
    TestGroup group(2, 1);
    group.start();
    ASSERT_TRUE(group.becomes_ready());
    group.controls[static_cast<std::size_t>(rank)]->throw_on_rank = rank;
    const Request poison(*group.engine, {3, 4}, 30);
    ASSERT_TRUE(eventually([&] { return poison.finished().has_value(); }));
    EXPECT_EQ(poison.finished(), FinishReason::kError);
    EXPECT_THAT(poison.error(), HasSubstr("this batch is poison"));
    EXPECT_TRUE(group.answers({7, 8}, 20));
  }
}

TEST(Group, OfOnePodFormsAgainAfterAFailedStep) {
  TestGroup group(2, 2);
  group.start();
  ASSERT_TRUE(group.becomes_ready());
  group.controls[0]->throw_on_rank = 1;
  const Request poison(*group.engine, {3, 4}, 30);
  ASSERT_TRUE(eventually([&] { return poison.finished().has_value(); }));
  EXPECT_EQ(poison.finished(), FinishReason::kError);
  EXPECT_TRUE(group.answers({7, 8}, 20));
  EXPECT_EQ(group.leader->state().epoch, 2U);
}

TEST(GroupOptions, SayWhatIsWrong) {
  EXPECT_TRUE(validate(options(4, 2, 1)));
  EXPECT_THAT(validate(options(4, 3)).error().message, HasSubstr("multiple"));
  EXPECT_THAT(validate(options(4, 2, 2)).error().message, HasSubstr("pod-index"));
  GroupOptions o = options(4, 2, 1);
  o.leader_host.clear();
  EXPECT_THAT(validate(o).error().message, HasSubstr("leader-host"));
}

}  // namespace
}  // namespace dsm::group

#include "kube/watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kube/testing/scripted_transport.h"

namespace dsm::kube {
namespace {

using namespace watch_input;
using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::json_answer;
using testing::status_answer;
using Do = WatchAction::Kind;
using Phase = WatchState::Phase;

// The machine with its time, and its events as short words.
class Watching : public ::testing::Test {
 protected:
  WatchAction put(const WatchInput& input) {
    WatchStep result = step(std::move(state_), input, now_, random_);
    state_ = std::move(result.state);
    for (const WatchEvent& event : result.events) words_.push_back(word(event));
    return std::move(result.action);
  }
  WatchAction listed(const std::vector<std::string>& names, const std::string& version,
                     const std::string& token = "") {
    json items = json::array();
    for (const std::string& name : names) items.push_back({{"metadata", {{"name", name}}}});
    json metadata = {{"resourceVersion", version}};
    if (!token.empty()) metadata["continue"] = token;
    return put(Listed{json_answer(
        200,
        {{"kind", "PodList"}, {"apiVersion", "v1"}, {"metadata", metadata}, {"items", items}})});
  }
  // A machine that has listed "a" at version 10 and watches.
  void watching() {
    put(Begin{});
    const WatchAction action = listed({"a"}, "10");
    ASSERT_EQ(action.kind, Do::kWatch);
    words_.clear();
  }
  WatchAction bytes(const std::string& text) { return put(Bytes{text}); }
  static std::string event(const std::string& type, const std::string& name,
                           const std::string& version) {
    return json{{"type", type},
                {"object", {{"metadata", {{"name", name}, {"resourceVersion", version}}}}}}
               .dump() +
           "\n";
  }
  static std::string error_event(int code, const std::string& reason) {
    return json{{"type", "ERROR"},
                {"object", {{"kind", "Status"}, {"code", code}, {"reason", reason}}}}
               .dump() +
           "\n";
  }
  std::vector<std::string> words() { return std::exchange(words_, {}); }

  WatchState state_;
  TimePoint now_ = TimePoint(std::chrono::hours(5));
  double random_ = 0;

 private:
  static std::string word(const WatchEvent& event) {
    const std::string name =
        event.object.is_object() ? event.object["metadata"].value("name", std::string()) : "";
    switch (event.kind) {
      case WatchEvent::Kind::kInit:
        return "init";
      case WatchEvent::Kind::kInitApply:
        return "init " + name;
      case WatchEvent::Kind::kInitDone:
        return "done";
      case WatchEvent::Kind::kApply:
        return "apply " + name;
      case WatchEvent::Kind::kDelete:
        return "delete " + name;
    }
    return "?";
  }
  std::vector<std::string> words_;
};

TEST_F(Watching, ListsThenWatchesFromTheListsVersion) {
  const WatchAction list = put(Begin{});
  EXPECT_EQ(list.kind, Do::kList);
  EXPECT_EQ(list.list.limit, 100);
  EXPECT_EQ(list.list.resource_version, "");
  const WatchAction watch = listed({"a", "b"}, "10");
  EXPECT_THAT(words(), ElementsAre("init", "init a", "init b", "done"));
  EXPECT_EQ(watch.kind, Do::kWatch);
  EXPECT_EQ(watch.watch.resource_version, "10");
}

TEST_F(Watching, TheTimeLimitIsDrawnFromFiveToTenMinutes) {
  put(Begin{});
  EXPECT_EQ(listed({}, "1").watch.timeout_s, 300);
  random_ = 0.999;
  put(Bytes{event("BOOKMARK", "", "2")});
  EXPECT_EQ(put(Ended{HttpResponse{200, {}, ""}}).watch.timeout_s, 599);
}

TEST_F(Watching, PagesArriveAsOneList) {
  put(Begin{});
  const WatchAction second = listed({"a"}, "10", "tok");
  EXPECT_EQ(second.kind, Do::kList);
  EXPECT_EQ(second.list.continue_token, "tok");
  EXPECT_THAT(words(), ElementsAre("init", "init a"));
  listed({"b"}, "10");
  EXPECT_THAT(words(), ElementsAre("init b", "done"));
}

TEST_F(Watching, AListThatBreaksBetweenPagesStartsOver) {
  put(Begin{});
  listed({"a"}, "10", "tok");
  const WatchAction wait = put(Listed{fail(ErrorKind::kTransient, "gone")});
  EXPECT_EQ(wait.kind, Do::kWait);
  EXPECT_EQ(wait.delay, kWatchFirstDelay);
  const WatchAction again = put(Begin{});
  EXPECT_EQ(again.kind, Do::kList);
  EXPECT_EQ(again.list.continue_token, "");
  listed({"b"}, "11");
  EXPECT_THAT(words(), ElementsAre("init", "init a", "init", "init b", "done"));
}

TEST_F(Watching, AnExpiredPageTokenListsEverythingInOnePage) {
  put(Begin{});
  listed({"a"}, "10", "tok");
  const WatchAction wait = put(Listed{status_answer(410, "Expired")});
  EXPECT_EQ(wait.kind, Do::kWait);
  EXPECT_EQ(wait.delay, Millis(0));
  EXPECT_EQ(put(Begin{}).list.limit, 0);
  listed({"a"}, "12");
  EXPECT_EQ(state_.page_size, kWatchPageSize);
}

TEST_F(Watching, ARefusedListWaitsAsLongAsTheServerSays) {
  put(Begin{});
  HttpResponse busy = status_answer(429, "TooManyRequests");
  busy.headers["retry-after"] = "7";
  const WatchAction wait = put(Listed{busy});
  EXPECT_EQ(wait.kind, Do::kWait);
  EXPECT_EQ(wait.delay, Seconds(7));
  EXPECT_THAT(wait.error, HasSubstr("TooManyRequests"));
}

TEST_F(Watching, AListThatCannotBeReadIsTriedAgain) {
  put(Begin{});
  EXPECT_EQ(put(Listed{HttpResponse{200, {}, "{"}}).kind, Do::kWait);
  put(Begin{});
  EXPECT_EQ(put(Listed{HttpResponse{200, {}, R"({"items":{}})"}}).kind, Do::kWait);
  EXPECT_TRUE(words().empty());
}

TEST_F(Watching, EventsComeInOrderHoweverTheBytesAreCut) {
  watching();
  const std::string text =
      event("ADDED", "b", "11") + event("MODIFIED", "a", "12") + event("DELETED", "b", "13");
  for (std::size_t cut = 1; cut < text.size(); cut += 7) {
    state_.resource_version = "10";
    EXPECT_EQ(bytes(text.substr(0, cut)).kind, Do::kRead);
    EXPECT_EQ(bytes(text.substr(cut)).kind, Do::kRead);
    EXPECT_THAT(words(), ElementsAre("apply b", "apply a", "delete b"));
    EXPECT_EQ(state_.resource_version, "13");
  }
}

TEST_F(Watching, ABookmarkMovesTheVersionAndNothingElse) {
  watching();
  bytes(event("BOOKMARK", "", "99"));
  EXPECT_TRUE(words().empty());
  EXPECT_EQ(put(Ended{HttpResponse{200, {}, ""}}).watch.resource_version, "99");
}

TEST_F(Watching, ALineCutByTheEndOfTheStreamIsForgotten) {
  watching();
  bytes(event("ADDED", "b", "11") + R"({"type":"ADDED","obj)");
  const WatchAction again = put(Ended{HttpResponse{200, {}, ""}});
  EXPECT_EQ(again.kind, Do::kWatch);
  EXPECT_EQ(again.watch.resource_version, "11");
  bytes(event("ADDED", "c", "12"));
  EXPECT_THAT(words(), ElementsAre("apply b", "apply c"));
}

TEST_F(Watching, AWatchThatTheServerEndsGoesOnAtOnce) {
  watching();
  now_ += Seconds(300);
  const WatchAction again = put(Ended{HttpResponse{200, {}, ""}});
  EXPECT_EQ(again.kind, Do::kWatch);
  EXPECT_EQ(again.watch.resource_version, "10");
}

TEST_F(Watching, AWatchThatEndsAtOnceWaits) {
  watching();
  const WatchAction wait = put(Ended{HttpResponse{200, {}, ""}});
  EXPECT_EQ(wait.kind, Do::kWait);
  EXPECT_EQ(put(Begin{}).kind, Do::kWatch);
}

TEST_F(Watching, ABrokenConnectionWatchesAgainFromTheSameVersion) {
  watching();
  bytes(event("ADDED", "b", "11"));
  const WatchAction wait = put(Ended{fail(ErrorKind::kTransient, "connection reset")});
  EXPECT_EQ(wait.kind, Do::kWait);
  EXPECT_EQ(wait.error, "connection reset");
  const WatchAction again = put(Begin{});
  EXPECT_EQ(again.kind, Do::kWatch);
  EXPECT_EQ(again.watch.resource_version, "11");
}

struct Trouble {
  const char* name;
  Result<HttpResponse> ended;
  std::string line;  // instead of `ended`
  Phase then;
  Millis delay;
};

class WatchTrouble : public Watching, public ::testing::WithParamInterface<Trouble> {};

TEST_P(WatchTrouble, LeadsToTheRightNextStep) {
  watching();
  now_ += Seconds(60);
  const Trouble& trouble = GetParam();
  const WatchAction action = trouble.line.empty() ? put(Ended{trouble.ended}) : bytes(trouble.line);
  EXPECT_EQ(action.kind, Do::kWait);
  EXPECT_EQ(action.delay, trouble.delay);
  EXPECT_EQ(state_.phase, trouble.then);
  EXPECT_TRUE(words().empty());
}

HttpResponse busy_watch() {
  HttpResponse answer = status_answer(429, "TooManyRequests");
  answer.headers["retry-after"] = "2";
  return answer;
}
const std::string kErrorHead = R"({"type":"ERROR","object":{"kind":"Status","code":)";

INSTANTIATE_TEST_SUITE_P(
    All, WatchTrouble,
    ::testing::Values(
        Trouble{"GoneAnswer", status_answer(410, "Expired"), "", Phase::kList, Millis(0)},
        Trouble{"TooLargeVersion",
                status_answer(504, "Timeout", "Too large resource version: 9, current: 5"), "",
                Phase::kList, Millis(0)},
        Trouble{"BusyAnswer", busy_watch(), "", Phase::kWatch, Seconds(2)},
        Trouble{"ServerError", status_answer(500, "InternalError"), "", Phase::kWatch,
                kWatchFirstDelay},
        Trouble{"Forbidden", status_answer(403, "Forbidden"), "", Phase::kList, kWatchFirstDelay},
        Trouble{"NoSuchKind", status_answer(404, "NotFound"), "", Phase::kList, kWatchFirstDelay},
        Trouble{"GoneInStream",
                {},
                kErrorHead + "410,\"reason\":\"Expired\"}}\n",
                Phase::kList,
                Millis(0)},
        Trouble{"BusyInStream",
                {},
                kErrorHead + "429,\"details\":{\"retryAfterSeconds\":3}}}\n",
                Phase::kWatch,
                Seconds(3)},
        Trouble{"ErrorInStream", {}, kErrorHead + "500}}\n", Phase::kList, kWatchFirstDelay},
        Trouble{"NotJson", {}, "<html>\n", Phase::kList, kWatchFirstDelay},
        Trouble{"NoObject", {}, "{\"type\":\"ADDED\"}\n", Phase::kList, kWatchFirstDelay},
        Trouble{"NoVersion",
                {},
                "{\"type\":\"ADDED\",\"object\":{\"metadata\":{}}}\n",
                Phase::kList,
                kWatchFirstDelay},
        Trouble{"UnknownType",
                {},
                "{\"type\":\"X\",\"object\":{\"metadata\":{\"resourceVersion\":\"1\"}}}\n",
                Phase::kList,
                kWatchFirstDelay}),
    [](const auto& kase) { return kase.param.name; });

TEST_F(Watching, AfterAnErrorTheRestOfTheStreamIsIgnored) {
  watching();
  bytes(event("ADDED", "b", "11") + error_event(410, "Expired") + event("ADDED", "c", "12"));
  EXPECT_THAT(words(), ElementsAre("apply b"));
  bytes(event("ADDED", "d", "13"));
  EXPECT_TRUE(words().empty());
  EXPECT_EQ(put(Begin{}).kind, Do::kList);
}

TEST_F(Watching, ExpiryTwiceInARowWaits) {
  watching();
  bytes(error_event(410, "Expired"));
  put(Begin{});
  listed({"a"}, "20");
  EXPECT_EQ(bytes(error_event(410, "Expired")).delay, kWatchFirstDelay);
}

TEST_F(Watching, DelaysDoubleUpToThirtySecondsAndStartAnewAfterTwoHealthyMinutes) {
  put(Begin{});
  std::vector<long> delays;
  for (int i = 0; i < 8; ++i) {
    const WatchAction wait = put(Listed{fail(ErrorKind::kTransient, "no")});
    delays.push_back(wait.delay.count());
    now_ += wait.delay;
    put(Begin{});
  }
  EXPECT_THAT(delays, ElementsAre(800, 1600, 3200, 6400, 12800, 25600, 30000, 30000));
  listed({}, "1");
  now_ += Seconds(200);
  EXPECT_EQ(put(Ended{fail(ErrorKind::kTransient, "no")}).delay, kWatchFirstDelay);
}

TEST_F(Watching, JitterStretchesADelayByUpToItsOwnLength) {
  put(Begin{});
  random_ = 0.5;
  EXPECT_EQ(put(Listed{fail(ErrorKind::kTransient, "no")}).delay, Millis(1200));
}

TEST_F(Watching, AnEndlessLineIsGivenUp) {
  watching();
  EXPECT_EQ(bytes(std::string(17 << 20, 'x')).kind, Do::kWait);
  EXPECT_EQ(state_.phase, Phase::kList);
}

}  // namespace
}  // namespace dsm::kube

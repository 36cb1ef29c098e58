// Adapters over the wire: chosen by name, listed, loaded and unloaded while requests run.
#include "tests/model/checkpoint_writer.h"
#include "worker/server/server_fixture.h"

namespace dsm::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class AdaptersTest : public WorkerServerTest {
 protected:
  // Folders below `dir` are adapters when they hold a file "weights"; "first" is one of the command
  // line's.
  void start_with_adapters(bool may_load = true) {
    make_folder("first");
    make_folder("second");
    std::filesystem::create_directory(dir.path() / "empty");
    adapters = std::make_shared<Adapters>(
        Adapters::Options{.base = "tiny",
                          .dir = may_load ? dir.path() : std::filesystem::path(),
                          .limit = 2,
                          .load = [this](const std::string& name, const std::filesystem::path& path)
                              -> Result<std::shared_ptr<const engine::Adapter>> {
                            if (!std::filesystem::exists(path))
                              return fail(ErrorKind::kNotFound, "not there");
                            if (!std::filesystem::exists(path / "weights"))
                              return fail(ErrorKind::kInvalid, "bad");
                            if (last_id == 5) return fail(ErrorKind::kExhausted, "too many");
                            return std::make_shared<const engine::Adapter>(
                                engine::Adapter{.id = ++last_id, .name = name});
                          },
                          .share = [this](const std::shared_ptr<const engine::Adapter>&,
                                          const std::filesystem::path&) { return sharing; }});
    ASSERT_TRUE(adapters->add("one", (dir.path() / "first").string(), 5));
    Setup setup;
    setup.adapters = adapters;
    start(setup);
  }
  void make_folder(const std::string& name) const {
    std::filesystem::create_directory(dir.path() / name);
    dir.write(name + "/weights", "w");
  }
  Answer load(const std::string& name, const std::string& path) const {
    return post("/v1/load_lora_adapter", json({{"lora_name", name}, {"lora_path", path}}).dump());
  }
  Answer unload(const std::string& name) const {
    return post("/v1/unload_lora_adapter", json({{"lora_name", name}}).dump());
  }
  Answer ask(const std::string& name) const {
    return post("/v1/chat/completions",
                R"({"messages": [{"role": "user", "content": "hi"}], "model": ")" + name + "\"}");
  }
  static std::string refusal(const Answer& answer) {
    const json error = answer.parsed()["error"];
    return std::to_string(answer.status) + " " + error["param"].dump() + " " + error["code"].dump();
  }

  model::TestDir dir;
  std::shared_ptr<Adapters> adapters;
  engine::AdapterId last_id = 0;
  Status sharing;  // what the other processes of the group say
};

TEST_F(AdaptersTest, a_name_chooses_one_and_the_answer_repeats_it) {
  start_with_adapters();
  EXPECT_EQ(ask("one").parsed()["model"], "one");
  EXPECT_EQ(ask("tiny").parsed()["model"], "tiny");
  EXPECT_THAT(runner.adapters(), ElementsAre(1, engine::kNoAdapter));
  EXPECT_EQ(refusal(ask("two")), R"(404 "model" "model_not_found")");
  EXPECT_EQ(post("/tokenize", R"({"model": "one", "prompt": "a"})").status, 200);
  EXPECT_EQ(post("/tokenize", R"({"model": "two", "prompt": "a"})").status, 404);
}

TEST_F(AdaptersTest, they_are_listed_with_their_parent_and_root) {
  start_with_adapters();
  const json list = get("/v1/models").parsed()["data"];
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0]["id"], "tiny");
  EXPECT_EQ(list[0]["root"], "tiny");
  EXPECT_EQ(list[0]["parent"], nullptr);
  EXPECT_EQ(list[1]["id"], "one");
  EXPECT_EQ(list[1]["root"], (dir.path() / "first").string());
  EXPECT_EQ(list[1]["parent"], "tiny");
  EXPECT_EQ(list[1]["created"], 5);
  EXPECT_EQ(get("/v1/models/one").parsed(), list[1]);
}

TEST_F(AdaptersTest, one_is_loaded_used_and_unloaded) {
  start_with_adapters();
  const Answer loaded = load("two", "second");
  ASSERT_EQ(loaded.status, 200) << loaded.body;
  EXPECT_EQ(loaded.parsed(), get("/v1/models/two").parsed());
  EXPECT_EQ(ask("two").status, 200);
  EXPECT_THAT(runner.adapters(), ElementsAre(2));
  EXPECT_EQ(unload("two").parsed(), json({{"id", "two"}, {"object", "model"}, {"deleted", true}}));
  EXPECT_EQ(ask("two").status, 404);
  EXPECT_EQ(refusal(unload("two")), R"(404 "lora_name" "lora_adapter_not_found")");
  EXPECT_EQ(load("two", (dir.path() / "second").string()).status, 200);  // from the root, too
  EXPECT_EQ(unload("one").status, 200);
}

TEST_F(AdaptersTest, a_request_that_has_begun_ends_with_the_adapter_that_is_unloaded) {
  start_with_adapters();
  const std::weak_ptr<const engine::Adapter> held = adapters->find("one");
  runner.permit(1);
  TestSocket running = send("POST", "/v1/chat/completions",
                            R"({"model": "one", "messages": [{"role": "user", "content": "hi"}]})");
  wait_until([&] { return the_engine->stats().running == 1; });
  EXPECT_THAT(get("/metrics").body,
              HasSubstr("vllm:lora_requests_info{engine=\"0\",max_lora=\"2\",model_name=\"tiny\","
                        "running_lora_adapters=\"one\",waiting_lora_adapters=\"\"}"));
  EXPECT_EQ(unload("one").status, 200);
  EXPECT_EQ(ask("one").status, 404);
  EXPECT_FALSE(held.expired());
  runner.permit(-1);
  const Answer answer = parse_answer(running.read_to_end());
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.parsed()["choices"][0]["message"]["content"], "hello");
  wait_until([&] { return held.expired() && engine_idle(); });
  const std::string metrics_now = get("/metrics").body;
  EXPECT_THAT(metrics_now, HasSubstr("running_lora_adapters=\"\""));
  EXPECT_EQ(metrics_now.find("running_lora_adapters=\"one\""), std::string::npos);
}

TEST_F(AdaptersTest, what_cannot_be_loaded_is_refused_with_its_field) {
  start_with_adapters();
  EXPECT_EQ(refusal(load("one", "second")), R"(400 "lora_name" null)");
  EXPECT_EQ(refusal(load("tiny", "second")), R"(400 "lora_name" null)");
  EXPECT_EQ(refusal(load("", "second")), R"(400 "lora_name" null)");
  EXPECT_EQ(refusal(load("a\nb", "second")), R"(400 "lora_name" null)");
  EXPECT_EQ(refusal(load("two", "nowhere")), R"(404 "lora_path" "lora_adapter_not_found")");
  EXPECT_EQ(refusal(load("two", "empty")), R"(400 "lora_path" "bad_lora_adapter")");
  EXPECT_EQ(refusal(post("/v1/load_lora_adapter", R"({"lora_name": "two"})")),
            R"(400 "lora_path" null)");
  EXPECT_EQ(refusal(post("/v1/load_lora_adapter", R"({"lora_path": "second"})")),
            R"(400 "lora_name" null)");
  EXPECT_EQ(refusal(post("/v1/load_lora_adapter",
                         R"({"lora_name": "one", "lora_path": "first", "load_inplace": true})")),
            R"(400 "load_inplace" null)");
  last_id = 5;
  EXPECT_EQ(refusal(load("two", "second")), R"(400 null "too_many_lora_adapters")");
  EXPECT_EQ(adapters->list().size(), 1u);
}

TEST_F(AdaptersTest, one_that_the_rest_of_the_group_does_not_get_is_not_served) {
  start_with_adapters();
  sharing = fail(ErrorKind::kTransient, "the group is not whole");
  const Answer later = load("two", "second");
  EXPECT_EQ(refusal(later), R"(503 null "unavailable")");
  EXPECT_THAT(later.head, HasSubstr("Retry-After: 5"));
  sharing = fail(ErrorKind::kInvalid, "pod 1 cannot load the adapter");
  const Answer never = load("two", "second");
  EXPECT_EQ(refusal(never), R"(400 "lora_path" "bad_lora_adapter")");
  EXPECT_EQ(never.parsed()["error"]["message"], "pod 1 cannot load the adapter");
  EXPECT_EQ(ask("two").status, 404);
  sharing = {};
  EXPECT_EQ(load("two", "second").status, 200);
  EXPECT_EQ(ask("two").status, 200);
}

TEST_F(AdaptersTest, a_path_does_not_lead_out_of_the_folder) {
  start_with_adapters();
  const model::TestDir outside;
  outside.write("weights", "w");
  std::filesystem::create_directory_symlink(outside.path(), dir.path() / "link");
  for (const std::string& path :
       {outside.path().string(), std::string("../") + outside.path().filename().string(),
        std::string("first/../../") + outside.path().filename().string(), std::string("link"),
        std::string("/"), std::string(".."), std::string(), std::string("..\0x", 4)}) {
    EXPECT_EQ(refusal(load("two", path)), R"(400 "lora_path" null)") << path;
  }
  EXPECT_EQ(load("two", "first/../second").status, 200);
}

TEST_F(AdaptersTest, without_a_folder_they_stay_as_they_are) {
  start_with_adapters(/*may_load=*/false);
  EXPECT_EQ(refusal(load("two", (dir.path() / "second").string())),
            R"(403 null "lora_loading_disabled")");
  EXPECT_EQ(refusal(unload("one")), R"(403 null "lora_loading_disabled")");
  EXPECT_EQ(ask("one").status, 200);
}

}  // namespace
}  // namespace dsm::server

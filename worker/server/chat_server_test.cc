// OpenAI's chat and text completions over the wire.
#include "worker/server/server_fixture.h"

namespace dsm::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST_F(WorkerServerTest, answers_a_chat) {
  start();
  const Answer answer = chat();
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json body = answer.parsed();
  EXPECT_EQ(body["object"], "chat.completion");
  EXPECT_EQ(body["model"], "tiny");
  EXPECT_EQ(body["choices"][0]["message"],
            json::parse(R"({"role": "assistant", "content": "hello"})"));
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(body["usage"]["completion_tokens"], ids("hello").size());
  EXPECT_EQ(body["usage"]["prompt_tokens"], runner.prompts().at(0).size());
  EXPECT_THAT(answer.head, HasSubstr("X-Request-Id: req-"));
  // The prompt is the template's, and ends with a closed thought.
  EXPECT_EQ(runner.prompts().at(0),
            ids("<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜></think>"));
}

TEST_F(WorkerServerTest, streams_a_chat_in_the_order_that_clients_expect) {
  start();
  const Answer answer = chat(R"("stream": true, "stream_options": {"include_usage": true})");
  ASSERT_EQ(answer.status, 200);
  EXPECT_THAT(answer.head, HasSubstr("Content-Type: text/event-stream"));
  const auto all = events(answer.body);
  ASSERT_GE(all.size(), 5u);
  EXPECT_EQ(all[0]["choices"][0]["delta"], json::parse(R"({"role": "assistant", "content": ""})"));
  std::string text;
  for (std::size_t i = 1; i + 3 < all.size(); ++i) {
    const json& choice = all[i]["choices"][0];
    EXPECT_TRUE(choice["finish_reason"].is_null());
    EXPECT_FALSE(choice["delta"].contains("role"));
    text += choice["delta"]["content"].get<std::string>();
    EXPECT_TRUE(all[i]["usage"].is_null());
  }
  EXPECT_EQ(text, "hello");
  const json& end = all[all.size() - 3];
  EXPECT_EQ(end["choices"][0]["delta"], json::object());
  EXPECT_EQ(end["choices"][0]["finish_reason"], "stop");
  const json& usage = all[all.size() - 2];
  EXPECT_EQ(usage["choices"], json::array());
  EXPECT_EQ(usage["usage"]["completion_tokens"], ids("hello").size());
  EXPECT_EQ(all.back(), "data: [DONE]");
  for (std::size_t i = 0; i + 1 < all.size(); ++i) {
    EXPECT_EQ(all[i]["id"], all[0]["id"]);
    EXPECT_EQ(all[i]["created"], all[0]["created"]);
  }
}

TEST_F(WorkerServerTest, keeps_the_thought_apart_from_the_answer) {
  start();
  say("let me see</think>42");
  const json whole = chat(R"("thinking": {"type": "enabled"})").parsed();
  EXPECT_EQ(whole["choices"][0]["message"]["reasoning_content"], "let me see");
  EXPECT_EQ(whole["choices"][0]["message"]["content"], "42");
  EXPECT_EQ(whole["usage"]["completion_tokens_details"]["reasoning_tokens"],
            ids("let me see</think>").size());
  EXPECT_EQ(runner.prompts().at(0).back(), ids("<think>").at(0));
  std::string reasoning;
  std::string content;
  for (const json& event :
       events(chat(R"("stream": true, "chat_template_kwargs": {"thinking": true})").body)) {
    if (!event.is_object()) continue;
    const json& delta = event["choices"][0]["delta"];
    reasoning += delta.value("reasoning_content", "");
    content += delta.value("content", "");
    EXPECT_THAT(event.dump(), Not(HasSubstr("think>")));
  }
  EXPECT_EQ(reasoning, "let me see");
  EXPECT_EQ(content, "42");
}

TEST_F(WorkerServerTest, cuts_at_a_stop_string_and_never_shows_its_beginning) {
  start();
  say("one two three four");
  const json whole = chat(R"("stop": ["thr", "xyz"])").parsed();
  EXPECT_EQ(whole["choices"][0]["message"]["content"], "one two ");
  EXPECT_EQ(whole["choices"][0]["finish_reason"], "stop");
  std::string content;
  for (const json& event : events(chat(R"("stream": true, "stop": "three f")").body)) {
    if (event.is_object()) content += event["choices"][0]["delta"].value("content", "");
    EXPECT_THAT(event.dump(), Not(HasSubstr("thr")));
  }
  EXPECT_EQ(content, "one two ");
  wait_until([&] { return engine_idle(); });
}

TEST_F(WorkerServerTest, never_cuts_a_character) {
  start();
  const std::string text = "你好，世界 🎉 é";
  say(text);
  ASSERT_GT(ids(text).size(), 8u) << "some characters are several tokens";
  std::string content;
  for (const json& event : events(chat(R"("stream": true)").body)) {
    if (event.is_object()) content += event["choices"][0]["delta"].value("content", "");
  }
  EXPECT_EQ(content, text);
}

TEST_F(WorkerServerTest, ends_with_length_at_max_tokens) {
  start();
  say("one two three four five six");
  const json body = chat(R"("max_tokens": 2)").parsed();
  EXPECT_EQ(body["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(body["usage"]["completion_tokens"], 2);
}

TEST_F(WorkerServerTest, passes_sampling_on_and_takes_a_random_seed_when_there_is_none) {
  start();
  chat(R"("temperature": 0.5, "top_p": 0.9, "top_k": 3, "seed": 5)");
  chat();
  chat();
  const auto sampling = runner.sampling();
  ASSERT_EQ(sampling.size(), 3u);
  EXPECT_FLOAT_EQ(sampling[0].temperature, 0.5F);
  EXPECT_EQ(sampling[0].top_k, 3);
  EXPECT_EQ(sampling[0].seed, 5u);
  EXPECT_EQ(sampling[1].temperature, 0.0F);
  EXPECT_NE(sampling[1].seed, sampling[2].seed);
}

TEST_F(WorkerServerTest, completes_text_texts_and_token_ids) {
  start();
  const json one = complete(R"({"model": "tiny", "prompt": "say"})").parsed();
  EXPECT_EQ(one["object"], "text_completion");
  EXPECT_EQ(one["choices"][0]["text"], "hello");
  EXPECT_EQ(runner.prompts().at(0), model->tokenizer.encode_prompt("say"));
  const json two = complete(R"({"model": "tiny", "prompt": ["a", "b"]})").parsed();
  ASSERT_EQ(two["choices"].size(), 2u);
  EXPECT_EQ(two["choices"][1]["index"], 1);
  EXPECT_EQ(two["choices"][1]["text"], "hello");
  complete(R"({"model": "tiny", "prompt": [5, 6, 7]})");
  EXPECT_THAT(runner.prompts().back(), ElementsAre(5, 6, 7));
  const auto all = events(complete(R"({"model": "tiny", "prompt": "say", "stream": true})").body);
  EXPECT_EQ(all[0]["choices"][0]["text"].get<std::string>().front(), 'h');
  EXPECT_EQ(all.back(), "data: [DONE]");
}

TEST_F(WorkerServerTest, gives_as_many_choices_as_are_asked_for_and_counts_the_prompt_once) {
  start();
  const json body = chat(R"("n": 3, "seed": 5)").parsed();
  ASSERT_EQ(body["choices"].size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(body["choices"][i]["index"], i);
    EXPECT_EQ(body["choices"][i]["message"]["content"], "hello");
  }
  EXPECT_EQ(body["usage"]["prompt_tokens"], runner.prompts().at(0).size());
  EXPECT_EQ(body["usage"]["completion_tokens"], 3 * ids("hello").size());
  const auto sampling = runner.sampling();
  ASSERT_EQ(sampling.size(), 3u);
  EXPECT_EQ(sampling[0].seed, 5u);
  EXPECT_NE(sampling[1].seed, sampling[2].seed);
}

TEST_F(WorkerServerTest, gives_the_prompt_back_where_it_is_asked_for) {
  start();
  const json body = complete(R"({"model": "tiny", "prompt": "say ", "echo": true})").parsed();
  EXPECT_EQ(body["choices"][0]["text"], "say hello");
  EXPECT_EQ(body["usage"]["completion_tokens"], ids("hello").size());
  std::string text;
  for (const json& event : events(
           complete(R"({"model": "tiny", "prompt": "say ", "echo": true, "stream": true})").body)) {
    if (event.is_object()) text += event["choices"][0]["text"].get<std::string>();
  }
  EXPECT_EQ(text, "say hello");
}

TEST_F(WorkerServerTest, refuses_in_openais_shape) {
  start();
  const auto refusal = [](const Answer& answer) {
    const json error = answer.parsed()["error"];
    return std::to_string(answer.status) + " " + error["param"].dump() + " " + error["code"].dump();
  };
  EXPECT_EQ(refusal(chat(R"("temperature": 9)")), R"(400 "temperature" null)");
  EXPECT_EQ(refusal(chat(R"("n": 17)")), R"(400 "n" null)");
  EXPECT_EQ(refusal(parse_answer(
                send("POST", "/v1/chat/completions", chat_body(), "X-Request-Timeout-Ms: soon\r\n")
                    .read_to_end())),
            R"(400 "X-Request-Timeout-Ms" null)");
  EXPECT_EQ(refusal(complete(R"({"model": "other", "prompt": "a"})")),
            R"(404 "model" "model_not_found")");
  EXPECT_EQ(
      refusal(complete(R"({"model": "tiny", "prompt": ")" + std::string(100'000, 'a') + "\"}")),
      R"(400 "prompt" "context_length_exceeded")");
  std::string long_ids = "[5";
  for (int i = 1; i < kContext; ++i) long_ids += ",5";
  EXPECT_EQ(refusal(complete(R"({"model": "tiny", "prompt": )" + long_ids + "]}")),
            R"(400 "prompt" "context_length_exceeded")");
  EXPECT_EQ(refusal(get("/v1/nothing")), "404 null null");
  EXPECT_EQ(refusal(get("/v1/chat/completions")), "405 null null");
  EXPECT_EQ(refusal(parse_answer(
                send("POST", "/v1/completions", "x", "Content-Length: 99\r\n").read_to_end())),
            "400 null null");
}

TEST_F(WorkerServerTest, lists_its_model) {
  start();
  const json list = get("/v1/models").parsed();
  EXPECT_EQ(list["data"][0]["id"], "tiny");
  EXPECT_EQ(list["data"][0]["max_model_len"], kContext);
  EXPECT_EQ(get("/v1/models/tiny").parsed()["id"], "tiny");
  EXPECT_EQ(get("/v1/models/other").status, 404);
  EXPECT_EQ(get("/version").parsed()["version"], "1.2.3");
}

TEST_F(WorkerServerTest, takes_the_clients_request_id_when_it_is_harmless) {
  start();
  const auto id_header = [&](const std::string& given) {
    const std::string head = parse_answer(send("POST", "/v1/chat/completions", chat_body(),
                                               "X-Request-Id: " + given + "\r\n")
                                              .read_to_end())
                                 .head;
    return head.substr(head.find("X-Request-Id: "));
  };
  EXPECT_THAT(id_header("abc-1"), HasSubstr("X-Request-Id: abc-1"));
  EXPECT_THAT(id_header("a b"), HasSubstr("X-Request-Id: req-"));
}

}  // namespace
}  // namespace dsm::server

// What the server tells of itself: metrics and the internal port.
#include "worker/server/server_fixture.h"

namespace dsm::server {
namespace {

using ::testing::HasSubstr;

TEST_F(WorkerServerTest, serves_metrics_under_our_names_and_vllms) {
  start();
  chat();
  chat(R"("n": 0)");
  // A client has its answer before the request is counted.
  wait_until([&] { return drain->in_flight() == 0 && engine_idle(); });
  const Answer answer = get("/metrics");
  EXPECT_THAT(answer.head, HasSubstr("text/plain; version=0.0.4"));
  for (const char* line :
       {"vllm:num_requests_waiting{engine=\"0\",model_name=\"tiny\"} 0",
        "vllm:num_requests_running{engine=\"0\",model_name=\"tiny\"} 0",
        "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"tiny\"} 0",
        "vllm:cache_config_info{block_size=\"64\",engine=\"0\",model_name=\"tiny\",num_gpu_blocks="
        "\"64\"} 1",
        "vllm:time_to_first_token_seconds_count{engine=\"0\",model_name=\"tiny\"} 1",
        "vllm:inter_token_latency_seconds_bucket{engine=\"0\",model_name=\"tiny\",le=\"0.01\"}",
        "vllm:e2e_request_latency_seconds_count{engine=\"0\",model_name=\"tiny\"} 1",
        "vllm:request_success_total{engine=\"0\",finished_reason=\"stop\",model_name=\"tiny\"} 1",
        "vllm:request_success_total{engine=\"0\",finished_reason=\"abort\",model_name=\"tiny\"} 0",
        "vllm:gpu_cache_usage_perc{engine=\"0\",model_name=\"tiny\"} 0",
        "vllm:time_per_output_token_seconds_count{engine=\"0\",model_name=\"tiny\"}",
        "vllm:request_decode_time_seconds_count{engine=\"0\",model_name=\"tiny\"} 1",
        "vllm:request_queue_time_seconds_count{engine=\"0\",model_name=\"tiny\"} 1",
        "vllm:request_prefill_time_seconds_count{engine=\"0\",model_name=\"tiny\"} 1",
        "vllm:request_inference_time_seconds_count{engine=\"0\",model_name=\"tiny\"} 1",
        "dsm_request_queue_seconds_bucket{model=\"tiny\",le=\"+Inf\"} 1",
        "vllm:iteration_tokens_total_bucket{engine=\"0\",model_name=\"tiny\",le=\"16384\"}",
        "vllm:kv_block_lifetime_seconds_count{engine=\"0\",model_name=\"tiny\"} 0",
        "vllm:kv_block_idle_before_evict_seconds_count{engine=\"0\",model_name=\"tiny\"} 0",
        "dsm_kv_block_reuse_gap_seconds_count{model=\"tiny\"} 0",
        "vllm:request_time_per_output_token_seconds_count{engine=\"0\",model_name=\"tiny\"} 1",
        "vllm:request_max_num_generation_tokens_count{engine=\"0\",model_name=\"tiny\"} 1",
        "vllm:request_params_n_bucket{engine=\"0\",model_name=\"tiny\",le=\"1\"} 1",
        "vllm:request_params_max_tokens_count{engine=\"0\",model_name=\"tiny\"} 1",
        "vllm:admission_rejections_total{engine=\"0\",model_name=\"tiny\",reason=\"max_num_"
        "queued_reqs\"} 0",
        "vllm:lora_requests_info{engine=\"0\",max_lora=\"0\",model_name=\"tiny\"",
        "http_requests_total{handler=\"/v1/chat/completions\",method=\"POST\",status=\"2xx\"} 1",
        "http_requests_total{handler=\"/v1/chat/completions\",method=\"POST\",status=\"4xx\"} 1",
        "http_requests_total{handler=\"/v1/messages\",method=\"POST\",status=\"5xx\"} 0",
        "http_requests_total{handler=\"none\",method=\"any\",status=\"4xx\"} 0",
        "http_request_duration_seconds_count{handler=\"/v1/chat/completions\",method=\"POST\"} 2",
        "dsm_requests_finished_total{model=\"tiny\",reason=\"stop\"} 1",
        "dsm_requests_rejected_total{model=\"tiny\",reason=\"invalid\"} 1",
        "dsm_kv_cache_capacity_tokens{model=\"tiny\"} 4096",
        "dsm_kv_cache_fragmentation_ratio{model=\"tiny\"} 0",
        "process_open_fds"}) {
    EXPECT_THAT(answer.body, HasSubstr(line));
  }
  EXPECT_THAT(answer.body,
              HasSubstr("vllm:iteration_tokens_total_count{engine=\"0\",model_name=\"tiny\"} " +
                        std::to_string(the_engine->stats().steps)));
  EXPECT_THAT(answer.body, HasSubstr("vllm:prompt_tokens_total{engine=\"0\",model_name=\"tiny\"} " +
                                     std::to_string(runner.prompts().at(0).size())));
}

TEST_F(WorkerServerTest, what_the_http_server_refuses_itself_and_who_left_is_counted_too) {
  start();
  get("/v1/nothing");
  runner.permit(0);
  auto client = send_chat();
  wait_until([&] { return drain->in_flight() == 1; });
  EXPECT_EQ(get("/load").parsed()["server_load"], 1);
  client.close();
  wait_until([&] {
    const std::string text = get("/metrics").body;
    return text.find(
               "http_requests_total{handler=\"/v1/chat/completions\",method=\"POST\","
               "status=\"4xx\"} 1") != std::string::npos;
  });
  EXPECT_THAT(get("/metrics").body,
              HasSubstr(R"(http_requests_total{handler="none",method="any",status="4xx"} 1)"));
  EXPECT_EQ(get("/load").parsed()["server_load"], 0);
}

TEST_F(WorkerServerTest, the_internal_port_needs_the_token) {
  start();
  const auto status = [&](const std::string& method, const std::string& path,
                          const std::string& headers) {
    TestSocket socket(server->internal_port());
    socket.send(request(method, path, "", headers));
    return parse_answer(socket.read_until("\r\n\r\n")).status;
  };
  EXPECT_EQ(status("GET", "/internal/status", ""), 401);
  EXPECT_EQ(status("GET", "/internal/status", "Authorization: Bearer wrong!\r\n"), 401);
  EXPECT_EQ(status("POST", "/internal/drain", "Authorization: secret\r\n"), 401);
  EXPECT_EQ(get("/internal/status").status, 404) << "not on the public port";
  EXPECT_FALSE(drain->begun());
  EXPECT_EQ(status("GET", "/internal/status", "Authorization: Bearer secret\r\n"), 200);
  EXPECT_EQ(status("POST", "/internal/drain", "Authorization: Bearer secret\r\n"), 202);
  EXPECT_TRUE(drain->begun());
  std::ofstream(token_file) << "rotated";
  EXPECT_EQ(status("GET", "/internal/status", "Authorization: Bearer secret\r\n"), 401);
  EXPECT_EQ(status("GET", "/internal/status", "Authorization: Bearer rotated\r\n"), 200);
}

TEST_F(WorkerServerTest, the_status_stream_tells_changes_line_by_line) {
  start({.max_num_seqs = 1});
  say("one two three four");
  TestSocket socket(server->internal_port());
  socket.send(request("GET", "/internal/status", "", "Authorization: Bearer secret\r\n"));
  socket.read_until("\r\n\r\n");
  const auto next_line = [&] {
    socket.read_until("\r\n");  // the chunk's size
    return json::parse(socket.read_until("\n"));
  };
  json line = next_line();
  EXPECT_EQ(line["phase"], "Ready");
  EXPECT_EQ(line["revision"], "r");
  EXPECT_EQ(line["running"], 0);
  const auto running = send_and_begin();
  const auto queued = send_chat();
  while (line["running"] != 1 || line["queueDepth"] != 1) {
    socket.read_until("\r\n");
    line = next_line();
  }
  drain->begin();
  while (line["phase"] != "Draining") {
    socket.read_until("\r\n");
    line = next_line();
  }
}

}  // namespace
}  // namespace dsm::server

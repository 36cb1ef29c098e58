// The command line, and what the cgroup grants.
#include "worker/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "worker/cores.h"
#include "worker/memory_limit.h"

namespace dsm::worker {
namespace {

Result<Options> parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "deepseek-worker");
  return parse_options(static_cast<int>(arguments.size()), arguments.data());
}
std::string error_of(std::vector<const char*> arguments) {
  const auto options = parse(std::move(arguments));
  return options ? "" : options.error().message;
}

TEST(WorkerOptions, kernels_are_measured_unless_one_says_which) {
  const auto plain = parse({"--model", "m"});
  ASSERT_TRUE(plain.has_value());
  EXPECT_TRUE(plain->measures_kernels());
  EXPECT_EQ(plain->megakernel, std::nullopt);
  const auto said = parse({"--model", "m", "--kernels", "proven", "--megakernel"});
  ASSERT_TRUE(said.has_value());
  EXPECT_FALSE(said->measures_kernels());
  EXPECT_EQ(said->megakernel, true);
  EXPECT_EQ(parse({"--model", "m", "--megakernel=false"})->megakernel, false);
}

TEST(WorkerOptions, a_model_alone_is_enough_and_gives_the_name) {
  const auto options = parse({"--model", "models/deepseek-tiny/"});
  ASSERT_TRUE(options.has_value());
  EXPECT_EQ(options->served_name, "deepseek-tiny");
  EXPECT_EQ(options->port, 8000);
  EXPECT_EQ(options->ranks_per_pod, 1);
  EXPECT_FALSE(options->is_distributed());
}

TEST(WorkerOptions, without_a_leader_host_all_ranks_are_in_one_process) {
  const auto options = parse({"--model", "m", "--tensor-parallel", "4"});
  ASSERT_TRUE(options.has_value());
  EXPECT_EQ(options->local_ranks(), 4);
}

TEST(WorkerOptions, a_mistake_is_said_in_one_sentence_with_the_flag) {
  EXPECT_EQ(error_of({}), "--model is missing: the directory of the model");
  EXPECT_EQ(error_of({"--model", "m", "--port", "70000"}), "--port is 70000, expected 0 to 65535");
  EXPECT_EQ(error_of({"--model", "m", "--grpc-port", "-1"}),
            "--grpc-port is -1, expected 0 to 65535");
  EXPECT_EQ(error_of({"--model", "m", "--leader-host", "l", "--tensor-parallel", "4",
                      "--ranks-per-pod", "3"}),
            "--ranks-per-pod is 3, which does not divide --tensor-parallel 4");
  EXPECT_EQ(error_of({"--model", "m", "--tensor-parallel", "2", "--pod-index", "1"}),
            "--pod-index is 1, expected 0 to 0");
  EXPECT_EQ(error_of({"--model", "m", "--tensor-parallel", "2", "--ranks-per-pod", "1"}),
            "--leader-host is missing: the group has 2 processes");
  EXPECT_EQ(error_of({"--model", "m", "--tensor-parallel", "2", "--leader-host", "l"}),
            "--internal-token-file is missing: the processes of a group know each other by it");
  EXPECT_EQ(error_of({"--model", "m", "--await-keys"}),
            "--await-keys is true without --internal-token-file: nobody could tell the keys");
  EXPECT_EQ(error_of({"--model", "m", "--max-waiting", "0"}),
            "--max-waiting is 0, expected 1 to 1048576");
  EXPECT_EQ(error_of({"--model", "m", "--unread-bytes", "0"}),
            "--unread-bytes is 0, expected 1 to 1073741824");
  EXPECT_EQ(error_of({"--model", "m", "--speculative-tokens", "3"}),
            "--speculative-tokens is 3, expected 0 without a --speculative-method");
  EXPECT_EQ(error_of({"--model", "m", "--speculative-method", "ngram"}),
            "--speculative-tokens is 0, expected 1 to 16");
  EXPECT_EQ(error_of({"--model", "m", "--speculative-method", "guess"}),
            "--speculative-method is 'guess', expected none, ngram or mtp");
  EXPECT_EQ(error_of({"--model", "m", "--device", "gpu"}),
            "--device is 'gpu', expected auto, cpu or cuda");
  EXPECT_EQ(error_of({"--model", "m", "--kv-cache-dtype", "FP8"}),
            "--kv-cache-dtype is 'FP8', expected fp32, bf16 or fp8");
  EXPECT_EQ(error_of({"--model", "m", "--device-check", "thorough"}),
            "--device-check is 'thorough', expected off, quick or full");
  EXPECT_EQ(error_of({"--model", "m", "--kernels", "all"}),
            "--kernels is 'all', expected measured or proven");
  EXPECT_EQ(error_of({"--model", "m", "--kv-cache-fraction", "0.99"}),
            "--kv-cache-fraction is 0.990000, expected more than 0 and at most 0.98");
  EXPECT_EQ(error_of({"--model", "m", "--all-reduce", "own"}),
            "--all-reduce is 'own', expected auto, nccl or peer");
  EXPECT_EQ(error_of({"--model", "m", "--kv-cache-fraction", "nan"}),
            "--kv-cache-fraction is nan, expected more than 0 and at most 0.98");
  EXPECT_EQ(error_of({"--model", "m", "--activation-quantization", "int8"}),
            "--activation-quantization is 'int8', expected none or fp8");
  EXPECT_THAT(error_of({"--model", "m", "--activation-quantization", "fp8", "--lora-dir", "d"}),
              ::testing::StartsWith("--activation-quantization is fp8, which has no meaning"));
  EXPECT_EQ(error_of({"--model", "m", "--weight-quantization", "int3"}),
            "--weight-quantization is 'int3', expected auto, none, fp8, int8 or int4");
  EXPECT_THAT(
      error_of(
          {"--model", "m", "--weight-quantization", "int4", "--activation-quantization", "fp8"}),
      ::testing::StartsWith("--weight-quantization is int4, but --activation-quantization"));
  EXPECT_EQ(error_of({"--model", "m", "--lora-modules", "a=x,b"}),
            "--lora-modules has 'b', expected name=folder");
  EXPECT_EQ(error_of({"--model", "m", "--lora-modules", "a=x,b=y", "--max-loras", "1"}),
            "--lora-modules names 2 adapters, more than --max-loras 1");
  EXPECT_EQ(error_of({"--model", "m", "--max-lora-rank", "0"}),
            "--max-lora-rank is 0, expected 1 to 512");
  EXPECT_EQ(error_of({"--model", "m", "--log-level", "loud"}),
            "--log-level is 'loud', expected info or debug");
}

TEST(WorkerOptions, adapters_are_names_and_folders) {
  const auto options = parse({"--model", "m", "--lora-modules", "sql=/a/b=c,chat=d"});
  ASSERT_TRUE(options.has_value());
  EXPECT_THAT(options->adapters, ::testing::ElementsAre(::testing::Pair("sql", "/a/b=c"),
                                                        ::testing::Pair("chat", "d")));
  EXPECT_TRUE(options->has_adapters());
  EXPECT_FALSE(parse({"--model", "m"})->has_adapters());
}

// A file tree that stands for /proc and /sys.
class Cgroup : public ::testing::Test {
 protected:
  Cgroup() {
    std::string name = (std::filesystem::temp_directory_path() / "dsm-cgroup-XXXXXX").string();
    root = mkdtemp(name.data());
    all = available_cores(root);  // no cgroup: the affinity alone
  }
  ~Cgroup() override { std::filesystem::remove_all(root); }
  void write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root / path).parent_path());
    std::ofstream(root / path) << text;
  }
  std::filesystem::path root;
  int all = 0;
};

TEST_F(Cgroup, the_quota_of_cgroup_v2_counts_and_is_rounded_down) {
  write("proc/self/cgroup", "0::/\n");
  write("sys/fs/cgroup/cpu.max", "199999 100000\n");
  EXPECT_EQ(available_cores(root), 1);
  write("sys/fs/cgroup/cpu.max", "50000 100000\n");
  EXPECT_EQ(available_cores(root), 1);
  write("sys/fs/cgroup/cpu.max", "max 100000\n");
  EXPECT_EQ(available_cores(root), all);
}

TEST_F(Cgroup, a_parent_that_grants_less_counts) {
  write("proc/self/cgroup", "0::/a/b\n");
  write("sys/fs/cgroup/a/cpu.max", "100000 100000\n");
  write("sys/fs/cgroup/a/b/cpu.max", "800000 100000\n");
  EXPECT_EQ(available_cores(root), 1);
}

TEST_F(Cgroup, the_quota_of_cgroup_v1_counts) {
  write("proc/self/cgroup", "5:memory:/x\n4:cpu,cpuacct:/x\n");
  write("sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "150000\n");
  write("sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(available_cores(root), 1);
  write("sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(available_cores(root), all);
}

TEST_F(Cgroup, the_tightest_memory_limit_of_v2_counts) {
  EXPECT_EQ(memory_limit(root), std::nullopt);
  write("proc/self/cgroup", "0::/a/b\n");
  write("sys/fs/cgroup/a/memory.max", "1073741824\n");
  write("sys/fs/cgroup/a/b/memory.max", "max\n");
  EXPECT_EQ(memory_limit(root), 1 << 30);
  write("sys/fs/cgroup/a/b/memory.max", "1048576\n");
  EXPECT_EQ(memory_limit(root), 1 << 20);
  write("sys/fs/cgroup/a/b/memory.max", "nonsense\n");
  EXPECT_EQ(memory_limit(root), 1 << 30);
}

TEST_F(Cgroup, the_memory_limit_of_v1_counts_and_a_huge_one_is_none) {
  write("proc/self/cgroup", "5:memory:/x\n4:cpu,cpuacct:/x\n");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(memory_limit(root), std::nullopt);
  write("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "536870912\n");
  EXPECT_EQ(memory_limit(root), 512 << 20);
}

}  // namespace
}  // namespace dsm::worker

// What the parts of one rank's graph (attention, MLP, head) share: the device, the batch in work
// and the residual stream. One thread, the rank's, uses it. Scratch memory is sized once for the
// largest batch. T = tokens of the batch.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "worker/comm/communicator.h"
#include "worker/device/backend.h"
#include "worker/model/adapted.h"
#include "worker/model/config.h"
#include "worker/model/rank_cut.h"
#include "worker/model/rope.h"

namespace dsm::model {

// Consecutive tokens of the batch that belong to one sequence.
struct TokenRun {
  int begin = 0;
  int size = 0;
  const std::int32_t* block_table = nullptr;
  int blocks = 0;  // in the table
  int rank = 0;    // that has its cache, where each attends to sequences of its own
};

// So many next products alone read what an operator gives, and how (RmsNormParams).
struct NextProducts {
  int products = 0;
  kernels::RowsTaken taken = kernels::RowsTaken::kAsTheyAre;
};

struct Step {
  // What a Step is made for.
  struct Size {
    int rank = 0;
    int ranks = 1;
    int threads = 1;               // among which the backend's attention is divided
    int tokens = 0;                // of the largest batch
    int adapter_rank = 0;          // of the adapters that a batch may have; 0: none
    bool expert_parallel = false;  // as WeightSlice's
    bool data_parallel_attention = false;
    bool quantises = false;  // what goes into a product with a weight that is FP8 in the checkpoint
                             // is rounded to FP8 first
    // From so many tokens on products by integers are those that rows are made for; 0: never.
    int integer_rows_from = 1;
  };
  Step(const ModelConfig& config, const Size& size, device::Backend& device);

  // A batch is built by clear(), then for each run add_run() and its tokens in order. A run's
  // adapter is told to `adapted` by who builds the batch; clear() forgets all of them.
  void clear();
  void add_run(const std::int32_t* block_table, int blocks, int of_rank = 0);
  void add_token(std::int32_t id, std::int32_t position);
  // Sends the batch's lists to the device, before its operators are called: tokens, places, block
  // tables, attention's items, the tokens whose outputs are wanted and what is chosen from them.
  // What is in them stays as it is until the next call.
  void stage(std::span<const kernels::AttentionItem> items, std::span<const std::int32_t> wanted,
             std::span<const kernels::Choice> choices = {});

  // So many products by weights like w, after input() or round_rows() where these round, if nothing
  // else reads these rows then; else none.
  NextProducts next(const kernels::PackedMatrix& w, int products = 1) const;
  // normed = rms_norm(x) * weight, all tokens, which `next` reads.
  void norm(const float* weight, const NextProducts& next = {});
  struct Input {
    const float* x = nullptr;  // [T, width]
    kernels::Fp8Rows fp8 = {};
  };
  // What a product with w takes for rows of `width` values: they themselves, or rounded to FP8,
  // valid until the next call.
  // `alone`: a product with w is all that reads them.
  Input input(const kernels::PackedMatrix& w, const float* from, int width, bool alone = false);
  // A product of all tokens whose input may be rounded so.
  void linear(kernels::LinearParams params);
  // Rounds the tokens' rows of what goes into a row-parallel product, in place; in FP8 they are
  // `fp8`. `next`: what alone reads them. Nothing where the model is not run so.
  void round_rows(float* h, std::int64_t ld, int width, const kernels::Fp8Rows& fp8,
                  const NextProducts& next = {});
  // The same of experts' slots, times the router's weights. Groups are data.
  void round_slots(float* h, std::int64_t ld, int width, const kernels::GroupExpertsParams& routing,
                   const kernels::Fp8Rows& fp8);
  // For rows of up to `width` values; none unless they are rounded and the backend takes them.
  kernels::Fp8Rows fp8_rows(std::size_t rows, std::size_t width) const;
  // x += the product over all ranks' segments. Collective. Sets params' tokens, y, ldy and
  // residual, and token where it is null: the slots are the batch's tokens.
  void add_row_parallel(kernels::RowParallelParams params);
  // The same of a product of which this rank has all segments.
  void add_product(kernels::RowParallelParams params);

  // Ranks attend to sequences of their own (own_rows.h).
  bool attends_alone() const { return attention.ranks < ranks; }
  // Every rank has computed x of its own runs, and gets the others' where ranks attend alone.
  // Collective.
  void gather_x();

  const ModelConfig& c;
  const int rank;
  const int ranks;
  const RankCut attention;  // of its heads
  const int threads;
  const int max_tokens;
  const bool expert_parallel;
  const bool quantises;
  device::Backend& backend;
  kernels::RopeTable rope;

  // Of the batch in work.
  comm::Communicator* comm = nullptr;
  int tokens = 0;
  std::vector<TokenRun> runs;
  std::int32_t* token_ids;      // [T]
  kernels::TokenPlace* places;  // [T]
  float* x;                     // [T, hidden] the residual stream
  float* normed;                // [T, hidden]
  // Slots that are the batch's tokens.
  std::int32_t* slot_token;        // [T] 0, 1, 2, ...
  float* slot_weight;              // [T] ones
  Adapted adapted;                 // of the batch's rows
  std::vector<TokenRun> own_runs;  // OwnRows keeps them here

 private:
  std::vector<device::List> lists_;
  const int integer_rows_from_;
  float* rounded_;  // [T, widest input]
  kernels::Fp8Rows rounded_fp8_;
  float* partial_;           // [T, hidden] this rank's part of a row-parallel sum
  float* parts_;             // [ranks, T, hidden]
  std::vector<int> begins_;  // [ranks + 1] the batch's tokens before each rank's
};

}  // namespace dsm::model

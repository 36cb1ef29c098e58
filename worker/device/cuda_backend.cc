#include "worker/device/cuda_backend.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/product_plan.h"
#include "kernels/cuda/sampling.h"
#include "worker/device/cuda_arena.h"
#include "worker/device/cuda_attention.h"
#include "worker/device/cuda_experts.h"
#include "worker/device/cuda_graphs.h"
#include "worker/device/cuda_memory.h"
#include "worker/device/cuda_products.h"
#include "worker/device/cuda_progress.h"
#include "worker/device/cuda_ranks.h"
#include "worker/device/table_lists.h"
#include "worker/device/thread_pool.h"

namespace dsm::device {
namespace {

using namespace kernels;  // parameter structs

void require(bool ok, const char* what) {
  if (!ok) throw std::logic_error(std::string("CUDA backend: ") + what);
}

// The columns [begin, end) of pieces that stand side by side.
std::vector<WeightPiece> columns_of(std::span<const WeightPiece> pieces, int begin, int end) {
  std::vector<WeightPiece> cut;
  int at = 0;
  for (const WeightPiece& piece : pieces) {
    const int from = std::max(begin, at);
    const int to = std::min(end, at + piece.n);
    if (from < to) {
      cut.push_back(piece);
      cut.back().n = to - from;
      cut.back().origin += std::int64_t{from - at} * piece.n_stride;
    }
    at += piece.n;
  }
  return cut;
}

// A GPU that is current for this thread from now on.
class CurrentGpu {
 public:
  explicit CurrentGpu(int number) : number_(number) { use(); }
  // For another thread.
  void use() const { check(cudaSetDevice(number_), "use it"); }
  int number() const { return number_; }

 private:
  int number_;
};

cudaDeviceProp properties_of(int gpu) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, gpu), "ask for its properties");
  return properties;
}

class CudaBackend final : public Backend {
 public:
  CudaBackend(int threads, bool exact, int gpu, const FoundCublasLt* library, AllReduce all_reduce,
              bool sleeps, ManyRows many_rows)
      : gpu_(gpu),
        properties_(properties_of(gpu)),
        exact_(exact),
        all_reduce_(all_reduce),
        sleeps_(sleeps),
        pool_(threads),
        products_(properties_, exact, many_rows, lists_, stream_, operands_) {
    if (library != nullptr) name_ += ", " + products_.use_library(*library);
  }
  CudaBackend(const CudaBackend&) = delete;
  CudaBackend& operator=(const CudaBackend&) = delete;
  // Nothing may be freed that kernels still use.
  ~CudaBackend() override {
    leave_ranks();
    cudaStreamSynchronize(stream_.get());
  }

  std::string_view name() const override { return name_; }
  std::uint64_t moves() const override { return progress_.moves(); }
  cudaStream_t stream() const { return stream_.get(); }

  void* allocate(std::size_t bytes) override { return arena_.allocate(bytes, stream_); }
  void* allocate_cache(std::size_t bytes) override {
    return (sleeps_ ? caches_ : arena_).allocate(bytes, stream_);
  }

  void* allocate_shared(std::size_t bytes) override {
    bytes = std::max<std::size_t>(bytes, 1);
    shared_.push_back(host_memory(bytes));
    std::fill_n(static_cast<std::byte*>(shared_.back().get()), bytes, std::byte{});
    return shared_.back().get();
  }

  SharedMemory share(std::size_t bytes) override {
    return {static_cast<std::byte*>(host_memory(std::max<std::size_t>(bytes, 1)).release()),
            [](std::byte* memory) { FreeHost{}(memory); }};
  }

  PackedMatrix reserve(std::span<const WeightPiece> pieces) override {
    const PackedMatrix shape = packed_matrix(pieces, nullptr);
    products_.expect(shape.dtype);
    const std::size_t bytes = packed_bytes(shape.dtype, shape.n, shape.k);
    return packed_matrix(pieces, matrices_.allocate(bytes, stream_));
  }

  // Packs into memory of the host first, as a matrix of these panels alone.
  bool pack_panels(std::span<const WeightPiece> pieces, const PackedMatrix& into, int begin,
                   int end) override {
    const auto cut = columns_of(pieces, begin * kPanel, std::min(into.n, end * kPanel));
    const int panels = end - begin;
    const auto value_bytes = static_cast<std::size_t>(std::int64_t{kPanel} * column_bytes(into));
    const auto scale_count = static_cast<std::size_t>(scale_blocks(into)) * kPanel;
    std::vector<std::byte> values(value_bytes * static_cast<std::size_t>(panels));
    const bool scaled = has_scales(into);
    std::vector<float> scales(scaled ? scale_count * static_cast<std::size_t>(panels) : 0);
    PackedMatrix part = into;
    part.data = values.data();
    part.scales = scaled ? scales.data() : nullptr;
    part.n = std::min(into.n, end * kPanel) - begin * kPanel;
    const bool numbers = kernels::pack_panels(cut, part, 0, panels);
    const auto at = static_cast<std::size_t>(begin);
    write(static_cast<std::byte*>(const_cast<void*>(into.data)) + at * value_bytes, values.data(),
          values.size());
    if (scaled) {
      write(const_cast<float*>(into.scales) + at * scale_count, scales.data(),
            scales.size() * sizeof(float));
    }
    return numbers;
  }

  void write(void* to, const void* from, std::size_t bytes) override {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_.get()), "copy to it");
    stream_.wait();
  }

  // Work may fail here, since it copies to the GPU: the first failure is thrown by this thread.
  void parallel(int items, const std::function<void(int)>& work) override {
    std::exception_ptr failure;
    std::mutex mutex;
    pool_.run(items, [&](int i) {
      try {
        gpu_.use();
        work(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!failure) failure = std::current_exception();
      }
    });
    if (failure) std::rethrow_exception(failure);
  }

  void wait() override {
    stream_.wait();
    sent_.unstage();
  }
  void wait_within_step() override { stream_.wait(); }

  void sleep() override {
    if (!sleeps_) throw DeviceError("GPU: its memory cannot be given back without --sleep-mode");
    leave_ranks();
    wait();
    matrices_.save(stream_);
    try {
      arena_.save(stream_);
    } catch (...) {
      matrices_.forget_saved();
      throw;
    }
    graphs_.forget();
    operands_.give_back_scratch();
    products_.give_back_scratch();
    experts_.give_back_scratch();
    slot_sums_.give_back();
    choice_scratch_.give_back();
    attention_.give_back_scratch();
    for (DeviceArena* arena : {&matrices_, &arena_, &caches_}) arena->give_back();
  }
  void wake() override {
    for (DeviceArena* arena : {&matrices_, &arena_, &caches_}) arena->take_again(stream_);
    stream_.synchronise();
    matrices_.forget_saved();
    arena_.forget_saved();
  }

  void keep(List list) override { sent_.keep(list, arena_); }
  void stage(std::span<const List> lists, std::span<const AttentionItem> items) override {
    sent_.stage(lists, items);
  }
  bool records() const override { return true; }
  // What goes to a library is not recorded: it has launches of its own.
  void repeat(const RepeatKey& key, const std::function<void()>& operators) override {
    if (products_.may_use_library(key.tokens)) return operators();
    graphs_.repeat(key, operators);
  }

  bool takes_fp8() const override { return products_.takes_fp8(); }

  void copy(float* to, const float* from, std::size_t count) override {
    check(cudaMemcpyAsync(to, from, count * sizeof(float), cudaMemcpyDefault, stream_.get()),
          "copy");
  }

  void clear(float* to, std::size_t count) override {
    check(cudaMemsetAsync(to, 0, count * sizeof(float), stream_.get()), "clear memory");
  }

  void embedding(const EmbeddingParams& params) override {
    if (params.rows == 0) return;
    EmbeddingParams p = params;
    p.tokens = list(p.tokens, p.rows);
    launch([&] { cuda::embedding(p, stream_.get()); });
  }

  void rms_norm(const RmsNormParams& params) override {
    if (params.rows == 0) return;
    RmsNormParams p = params;
    if (p.row_index != nullptr) p.row_index = list(p.row_index, p.rows);
    launch([&] { cuda::rms_norm(p, stream_.get()); });
    progress_.norm();
  }

  void quantise(const QuantiseParams& params) override {
    if (params.rows == 0) return;
    QuantiseParams p = params;
    if (p.factor != nullptr) p.factor = list(p.factor, p.rows);
    launch([&] { cuda::quantise(p, stream_.get()); });
  }

  void quantise_slots(const QuantiseParams& p, const GroupExpertsParams& routing) override {
    if (routing.tokens == 0 || routing.experts == 0) return;
    launch([&] { cuda::quantise_slots(p, routing, stream_.get()); });
  }

  void linear(const LinearParams& p) override {
    tasks_.clear();
    for (int b = 0; b < p.batch; ++b) {
      tasks_.push_back({p.w[b], p.x + b * p.x_step, p.y + b * p.y_step, b * p.rows, p.rows});
    }
    tasks_.front().x_fp8 = p.x_fp8;
    products({.ldx = p.ldx,
              .ldy = p.ldy,
              .accumulate = p.accumulate,
              .bias = p.bias,
              .rows = std::int64_t{p.batch} * p.rows});
  }

  void gate_up(const GateUpParams& p) override {
    if (p.routing != nullptr) return routed_gate_up(p);
    const int slots = group_tasks(p.groups, p.group_count, nullptr, 0, p.h, p.ldh);
    for (int g = 0; g < p.group_count; ++g) {
      tasks_[at(g)].w = p.w[g];
      tasks_[at(g)].x = p.x;
      tasks_[at(g)].x_fp8 = p.x_fp8;
    }
    tasks_.front().start = p.start;
    products({.token = list(p.token, slots),
              .ldx = p.ldx,
              .ldy = p.ldh,
              .swiglu = true,
              .lds = p.lds,
              .weight = list(p.weight, slots),
              .rows = slots});
  }

  void row_parallel(const RowParallelParams& p) override {
    if (p.routing != nullptr) return routed_row_parallel(p);
    const PackedMatrix& first = p.w[0].part[0];
    const bool alone = p.group_count == 1 && p.adapter_count == 0;  // its slots are the tokens
    const int slots = p.groups[p.group_count - 1].end;
    const int adapter_slots = p.adapter_count > 0 ? p.adapter_groups[p.adapter_count - 1].end : 0;
    float* sums = p.y;
    if (!alone) {
      sums = static_cast<float*>(
          slot_sums_.at_least(at(slots + adapter_slots) * at(first.n) * sizeof(float), stream_));
    }
    const std::int64_t ld = alone ? p.ldy : first.n;
    group_tasks(p.groups, p.group_count, p.h, p.ldh, sums, ld);
    row_parallel_weights(p.w, p.h_fp8);
    products({.ldx = p.ldh, .ldy = ld, .residual = alone ? p.residual : nullptr, .rows = slots});
    if (alone) return;
    if (adapter_slots > 0) {
      group_tasks(p.adapter_groups, p.adapter_count, p.adapter_h, p.adapter_ldh, sums + slots * ld,
                  ld);
      row_parallel_weights(p.adapter_w, {});
      products({.ldx = p.adapter_ldh, .ldy = ld, .rows = adapter_slots});
    }
    const cuda::SlotList lists[] = {
        {{p.groups, at(p.group_count)}, p.token, 0},
        {{p.adapter_groups, at(p.adapter_count)}, p.adapter_token, slots}};
    cuda::slots_of_tokens(lists, p.tokens, token_slots_);
    const cuda::CombineParams combine{.x = sums,
                                      .first = lists_.put(token_slots_.first),
                                      .slots = lists_.put(token_slots_.slots),
                                      .residual = p.residual,
                                      .y = p.y,
                                      .ldy = p.ldy,
                                      .tokens = p.tokens,
                                      .n = first.n};
    launch([&] { cuda::combine(combine, stream_.get()); });
  }

  void tree_sum(const TreeSumParams& p) override {
    if (p.count == 0) return;
    launch([&] { cuda::tree_sum(p, stream_.get()); });
  }

  std::string join(comm::Communicator& ranks) override {
    leave_ranks();
    if (ranks.size() == 1) return {};
    stream_.synchronise();  // what a lost epoch left there
    ranks_ = join_ranks(ranks, {.gpu = gpu_.number(), .exact = exact_, .all_reduce = all_reduce_},
                        stream_);
    stream_.waits_by([this] { ranks_->wait(); });
    return ranks_->name();
  }

  void add_over_ranks(comm::Communicator& ranks, const RankSumParams& p) override {
    if (p.count == 0) return;
    if (ranks.size() == 1) {
      tree_sum({p.mine, 1, p.count, p.y, p.y});
      return;
    }
    require(ranks_ != nullptr, "the ranks have not been joined");
    ranks_->add(p);
  }

  void gather_over_ranks(comm::Communicator& ranks, const RankGatherParams& p) override {
    if (p.count == 0) return;
    if (ranks.size() == 1) {
      copy(p.parts, p.mine, static_cast<std::size_t>(p.count));
      return;
    }
    require(ranks_ != nullptr, "the ranks have not been joined");
    ranks_->all_gather(p.mine, p.parts, static_cast<std::size_t>(p.count));
  }

  void gather_columns(comm::Communicator& ranks, const RankColumnsParams& p) override {
    if (p.rows == 0 || ranks.size() == 1) return;
    require(ranks_ != nullptr, "the ranks have not been joined");
    ranks_->all_gather(p.mine, p.parts, at(p.rows) * at(p.width));
    if (ranks.rank() != 0) return;
    launch(
        [&] { cuda::join_columns({p.parts, p.y, ranks.size(), p.rows, p.width}, stream_.get()); });
  }

  void kv_write(const KvWriteParams& params) override {
    if (params.tokens == 0) return;
    KvWriteParams p = params;
    p.places = list(p.places, p.tokens);
    launch([&] { cuda::kv_write(p, stream_.get()); });
  }

  void kv_write_heads(const KvWriteHeadsParams& params) override {
    if (params.tokens == 0) return;
    KvWriteHeadsParams p = params;
    p.places = list(p.places, p.tokens);
    launch([&] { cuda::kv_write_heads(p, stream_.get()); });
  }

  void latent_read(const LatentReadParams& p) override {
    launch([&] { cuda::latent_read(p, stream_.get()); });
  }

  void key_expand(const KeyExpandParams& p) override {
    launch([&] { cuda::key_expand(p, stream_.get()); });
  }

  void rope_query(const RopeQueryParams& params) override {
    if (params.tokens == 0) return;
    RopeQueryParams p = params;
    p.places = list(p.places, p.tokens);
    launch([&] { cuda::rope_query(p, stream_.get()); });
  }

  void index_write(const IndexWriteParams& params) override {
    if (params.tokens == 0) return;
    IndexWriteParams p = params;
    p.places = list(p.places, p.tokens);
    launch([&] { cuda::index_write(p, stream_.get()); });
  }

  void index_select(const IndexSelectParams& params) override;

  void attention(const AttentionParams& p) override {
    if (p.item_count == 0) return;
    require(p.kv.dtype == DType::kF32 || (p.kv.key_dim % 16 == 0 && p.kv.plain_dim % 16 == 0),
            "keys that are rounded come in steps of 16 dimensions");
    require(p.kv.value_dim % 8 == 0, "values come in steps of 8 columns");
    attention_.run(p);
  }

  void router(const RouterParams& p) override {
    if (p.tokens == 0) return;
    launch([&] { cuda::router(p, stream_.get()); });
  }

  void group_experts(const GroupExpertsParams& p) override {
    if (p.tokens == 0) return;
    launch([&] { cuda::group_experts(p, stream_.get()); });
  }

  void choose(const ChooseParams& params) override {
    if (params.rows == 0) return;
    ChooseParams p = params;
    p.choices = list(p.choices, p.rows);
    void* scratch = choice_scratch_.at_least(cuda::choice_scratch_bytes(p.rows, p.vocab), stream_);
    launch([&] { cuda::choose(p, scratch, stream_.get()); });
  }

 private:
  static std::size_t at(int i) { return static_cast<std::size_t>(i); }

  template <class T>
  const T* list(const T* from, int count) {
    return lists_.put(from, at(count));
  }

  // Puts what it needs of lists on the stream, then a kernel.
  template <class Launch>
  void launch(const Launch& kernel) {
    lists_.send();
    kernel();
    check(cudaGetLastError(), "start a kernel");
  }

  void routed_gate_up(const GateUpParams& p);
  void routed_row_parallel(const RowParallelParams& p);

  // One task for each group, on its slots of x (null: set by the caller) and y. The number of
  // slots.
  int group_tasks(const Group* groups, int count, const float* x, std::int64_t ldx, float* y,
                  std::int64_t ldy) {
    tasks_.clear();
    for (int g = 0; g < count; ++g) {
      const auto [begin, end] = groups[g];
      tasks_.push_back({.x = x != nullptr ? x + begin * ldx : nullptr,
                        .y = y + begin * ldy,
                        .first_row = begin,
                        .rows = end - begin});
    }
    return groups[count - 1].end;
  }

  // What the tasks of a row-parallel product multiply by, one matrix each.
  void row_parallel_weights(const SegmentedMatrix* w, const Fp8Rows& rows) {
    for (cuda::ProductTask& task : tasks_) {
      require(w->count == 1 && w->offset[0] == 0, "a row-parallel weight is cut into segments");
      task.w = w->part[0];
      task.x_fp8 = rows.from(task.first_row);
      ++w;
    }
  }

  // The products of tasks_.
  void products(const cuda::Products& launch) { products_.run(tasks_, launch); }

  void leave_ranks() {
    stream_.waits_by({});
    ranks_.reset();
  }

  const CurrentGpu gpu_;  // before everything that is made on it
  const cudaDeviceProp properties_;
  bool exact_;
  AllReduce all_reduce_;
  const bool sleeps_;  // its memory is mapped, so that it can be given back
  std::string name_ = std::string("cuda/") + properties_.name;
  ThreadPool pool_;
  Stream stream_;
  CudaProgress progress_{stream_};
  DeviceArena matrices_{gpu_.number(), sleeps_};
  // Everything else, which a rank on trial (kv_room.h) takes alike.
  DeviceArena arena_{gpu_.number(), sleeps_};
  DeviceArena caches_{gpu_.number(), sleeps_};  // of one that sleeps: they need not outlive it
  std::vector<HostMemory> shared_;
  SentLists sent_{stream_};
  Lists lists_{stream_, sent_};
  CudaGraphs graphs_{stream_, lists_, sent_};
  CudaOperands operands_{stream_};
  CudaProducts products_;
  std::unique_ptr<CudaRanks> ranks_;  // of the epoch; null: none has been joined
  // Scratch memory of operators.
  Scratch slot_sums_;
  Scratch choice_scratch_;
  CudaAttention attention_{properties_, exact_, stream_, lists_, sent_, graphs_};
  CudaExperts experts_{stream_, lists_, operands_, properties_.multiProcessorCount, exact_};
  std::vector<cuda::ProductTask> tasks_;
  cuda::TokenSlots token_slots_;
  std::vector<const std::int32_t*> tables_;
};

// The first group's slots are the tokens: an ordinary product.
void CudaBackend::routed_gate_up(const GateUpParams& p) {
  require(p.start == nullptr, "adapters want groups of the host's");
  tasks_.assign(1, {.w = p.w[0],
                    .x = p.x,
                    .y = p.h,
                    .first_row = 0,
                    .rows = p.routing->tokens,
                    .x_fp8 = p.x_fp8});
  products(
      {.ldx = p.ldx, .ldy = p.ldh, .swiglu = true, .weight = p.weight, .rows = p.routing->tokens});
  experts_.gate_up(p);
}

void CudaBackend::routed_row_parallel(const RowParallelParams& p) {
  require(p.adapter_count == 0, "adapters want groups of the host's");
  const int n = p.w[0].part[0].n;
  const int each = 1 + p.routing->top_k;
  for (int g = 0; g < p.group_count; ++g) {
    require(p.w[g].count == 1, "a row-parallel weight is cut into segments");
    require(p.h_fp8.values == nullptr || p.w[g].offset[0] == 0, "rows in FP8 begin at their first");
  }
  auto* sums = static_cast<float*>(
      slot_sums_.at_least(at(p.tokens) * at(each) * at(n) * sizeof(float), stream_));
  tasks_.assign(1, {.w = p.w[0].part[0],
                    .x = p.h + p.w[0].offset[0],
                    .y = sums,
                    .first_row = 0,
                    .rows = p.tokens,
                    .x_fp8 = p.h_fp8});
  products({.ldx = p.ldh, .ldy = n, .rows = p.tokens});
  experts_.row_parallel(p, sums);
  const cuda::CombineParams combine{.x = sums,
                                    .each = each,
                                    .slots = p.routing->slot,
                                    .residual = p.residual,
                                    .y = p.y,
                                    .ldy = p.ldy,
                                    .tokens = p.tokens,
                                    .n = n};
  launch([&] { cuda::combine(combine, stream_.get()); });
}

void CudaBackend::index_select(const IndexSelectParams& params) {
  if (params.tokens == 0) return;
  IndexSelectParams p = params;
  TableLists tables(lists_);
  tables_.resize(at(p.tokens));
  int most = 0;
  for (std::size_t t = tables_.size(); t-- > 0;) {
    const int position = p.places[t].position;
    tables_[t] = tables.put(p.block_tables[t], position / kKvBlock + 1);
    most = std::max(most, position + 1);
  }
  p.places = list(p.places, p.tokens);
  p.block_tables = lists_.put(tables_);
  launch([&] { cuda::index_select(p, most, stream_.get()); });
}

}  // namespace

std::string cuda_problem() {
  int count = 0;
  const cudaError_t found = cudaGetDeviceCount(&count);
  if (found == cudaErrorInsufficientDriver) {
    cudaGetLastError();
    return "there is no driver for CUDA 13 (NVIDIA's, release 580 or later; into a container its "
           "libcuda.so.1 is mounted by NVIDIA's container runtime)";
  }
  if (found != cudaSuccess) {
    cudaGetLastError();
    return std::string("no GPU can be used: ") + cudaGetErrorString(found);
  }
  if (count == 0) return "no GPU is there";
  // That those of other ranks are like the first is asked by check_ranks().
  const std::string capability = cuda_capabilities().front();
  if (capability.empty()) return "the GPU does not say what it can compute";
  // What there is machine code for (cmake/cuda.cmake): sm_80's runs on all of 8.x, the others on
  // one GPU each.
  if (capability.starts_with("8.") || capability == "9.0" || capability == "10.0") return "";
  return "the GPU's compute capability is " + capability +
         ", this program is for 8.x, 9.0 and 10.0";
}

std::vector<std::string> cuda_capabilities() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return {};
  }
  std::vector<std::string> all(static_cast<std::size_t>(count));
  for (int gpu = 0; gpu < count; ++gpu) {
    int major = 0;
    int minor = 0;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, gpu) != cudaSuccess ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, gpu) != cudaSuccess) {
      cudaGetLastError();
      continue;
    }
    all[static_cast<std::size_t>(gpu)] = std::to_string(major) + "." + std::to_string(minor);
  }
  return all;
}

std::unique_ptr<Backend> make_cuda_backend(int threads, bool exact, int gpu,
                                           const FoundCublasLt* library, AllReduce all_reduce,
                                           bool sleeps, ManyRows many_rows) {
  return std::make_unique<CudaBackend>(threads, exact, gpu, library, all_reduce, sleeps, many_rows);
}

CUstream_st* stream_of(const Backend& backend) {
  return dynamic_cast<const CudaBackend&>(backend).stream();
}

}  // namespace dsm::device

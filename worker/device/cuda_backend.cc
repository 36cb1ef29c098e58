#include "worker/device/cuda_backend.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "kernels/cuda/experts.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/sampling.h"
#include "worker/device/cuda_attention.h"
#include "worker/device/cuda_graphs.h"
#include "worker/device/cuda_joined.h"
#include "worker/device/cuda_launch.h"
#include "worker/device/cuda_linear.h"
#include "worker/device/cuda_megakernel.h"
#include "worker/device/cuda_memory.h"
#include "worker/device/cuda_packing.h"
#include "worker/device/cuda_progress.h"
#include "worker/device/cuda_sent_lists.h"
#include "worker/device/cuda_store.h"
#include "worker/device/table_lists.h"
#include "worker/device/thread_pool.h"

namespace dsm::device {
namespace {

using namespace kernels;  // parameter structs

void require(bool ok, const char* what) {
  if (!ok) throw std::logic_error(std::string("CUDA backend: ") + what);
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
              bool sleeps, const KernelChoice& kernels)
      : gpu_(gpu),
        properties_(properties_of(gpu)),
        exact_(exact),
        all_reduce_(all_reduce),
        sleeps_(sleeps),
        pool_(threads),
        megakernel_(properties_, exact, kernels.megakernel_tokens, stream_, lists_),
        linear_(properties_, exact, kernels, lists_, stream_, megakernel_),
        attention_(properties_, exact, kernels.many_rows, stream_, lists_, sent_, graphs_,
                   linear_.products(), megakernel_) {
    if (library != nullptr) name_ += ", " + linear_.products().use_library(*library);
  }
  CudaBackend(const CudaBackend&) = delete;
  CudaBackend& operator=(const CudaBackend&) = delete;
  // Nothing may be freed that kernels still use.
  ~CudaBackend() override {
    joined_.leave();
    cudaStreamSynchronize(stream_.get());
  }

  std::string_view name() const override { return name_; }
  std::uint64_t moves() const override { return progress_.moves(); }
  cudaStream_t stream() const { return stream_.get(); }

  void* allocate(std::size_t bytes) override { return store_.allocate(bytes); }
  void* allocate_cache(std::size_t bytes) override { return store_.allocate_cache(bytes); }
  void* allocate_shared(std::size_t bytes) override { return store_.allocate_shared(bytes); }
  SharedMemory share(std::size_t bytes) override { return store_.share(bytes); }

  PackedMatrix reserve(std::span<const WeightPiece> pieces) override {
    const PackedMatrix shape = packed_matrix(pieces, nullptr);
    linear_.products().expect(shape.dtype);
    const std::size_t bytes = packed_bytes(shape.dtype, shape.n, shape.k);
    return packed_matrix(pieces, store_.allocate_matrix(bytes));
  }

  bool pack_panels(std::span<const WeightPiece> pieces, const PackedMatrix& into, int begin,
                   int end) override {
    const HostPanels panels = pack_on_host(pieces, into, begin, end);
    write(panels.to_values, panels.values.data(), panels.values.size());
    if (!panels.scales.empty()) {
      write(panels.to_scales, panels.scales.data(), panels.scales.size() * sizeof(float));
    }
    return panels.numbers;
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
    joined_.leave();
    wait();
    store_.save();
    graphs_.forget();
    megakernel_.give_back_scratch();
    linear_.give_back_scratch();
    choice_scratch_.give_back();
    attention_.give_back_scratch();
    store_.give_back();
  }
  void wake() override { store_.take_again(); }

  void keep(List list) override { sent_.keep(list, store_.arena()); }
  void stage(std::span<const List> lists, std::span<const AttentionItem> items) override {
    linear_.products().forget_held();
    sent_.stage(lists, items);
  }
  bool records() const override { return joined_.records(); }
  // What goes to a library is not recorded: it has launches of its own.
  void repeat(const RepeatKey& key, const std::function<void()>& operators) override {
    if (linear_.products().may_use_library(key.tokens)) return operators();
    graphs_.repeat(key, [&] {
      progress_.begin();
      CudaMegakernel::Opened opened(megakernel_, key.tokens);
      operators();
      opened.start();
    });
  }

  bool takes_fp8() const override { return linear_.products().takes_fp8(); }

  void copy(float* to, const float* from, std::size_t count) override {
    stream_.put_first();
    check(cudaMemcpyAsync(to, from, count * sizeof(float), cudaMemcpyDefault, stream_.get()),
          "copy");
  }

  void clear(float* to, std::size_t count) override {
    stream_.put_first();
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
    CudaProducts& products = linear_.products();
    const NextProducts next = {p.for_products, p.taken};
    if (p.row_index != nullptr || !products.may_hold(p.rows, p.width, next)) {
      if (!megakernel_.norm(p)) launch([&] { cuda::rms_norm(p, stream_.get()); });
    } else if (next.rounds()) {
      const cuda::WideFp8Rows rows = products.hold_hidden_fp8(p.y, p.rows, p.width, next);
      launch([&] { cuda::rms_norm_fp8_rows(p, rows, stream_.get()); });
    } else {
      const cuda::WideRows rows = products.hold_hidden(p.y, p.rows, p.width, next);
      launch([&] { cuda::rms_norm_rows(p, rows, stream_.get()); });
    }
    progress_.norm();
  }

  void quantise(const QuantiseParams& params) override {
    if (params.rows == 0) return;
    QuantiseParams p = params;
    if (p.for_products > 0) {
      if (linear_.products().are_rounded(p)) return;
      const cuda::WideFp8Rows rows = linear_.products().hold_rounded(p);
      if (rows.data != nullptr) {
        return launch([&] { cuda::quantise_fp8_rows(p, rows, stream_.get()); });
      }
    }
    if (p.factor != nullptr) p.factor = list(p.factor, p.rows);
    launch([&] { cuda::quantise(p, stream_.get()); });
  }

  void quantise_slots(const QuantiseParams& p, const GroupExpertsParams& routing) override {
    if (routing.tokens == 0 || routing.experts == 0) return;
    launch([&] { cuda::quantise_slots(p, routing, stream_.get()); });
  }

  void linear(const LinearParams& p) override { linear_.linear(p); }
  void gate_up(const GateUpParams& p) override { linear_.gate_up(p); }
  void row_parallel(const RowParallelParams& p) override { linear_.row_parallel(p); }

  void tree_sum(const TreeSumParams& p) override {
    if (p.count == 0) return;
    launch([&] { cuda::tree_sum(p, stream_.get()); });
  }

  std::string join(comm::Communicator& ranks) override {
    joined_.leave();
    stream_.synchronise();
    graphs_.forget();  // they hold what was of another epoch, or of a rank without others
    const JoinOptions options{.gpu = gpu_.number(), .exact = exact_, .all_reduce = all_reduce_};
    const std::string how = joined_.join(ranks, options);
    graphs_.record_with(joined_.shared());
    return how;
  }
  void add_over_ranks(comm::Communicator& ranks, const RankSumParams& p) override {
    joined_.add(ranks, p);
  }
  void gather_over_ranks(comm::Communicator& ranks, const RankGatherParams& p) override {
    joined_.gather(ranks, p);
  }
  void gather_columns(comm::Communicator& ranks, const RankColumnsParams& p) override {
    joined_.gather_columns(ranks, p);
  }

  void norm_heads(const NormHeadsParams& p) override {
    if (p.tokens == 0) return;
    launch([&] { cuda::norm_heads(p, stream_.get()); });
  }

  void kv_write(const KvWriteParams& params) override {
    if (params.tokens == 0) return;
    KvWriteParams p = params;
    p.places = list(p.places, p.tokens);
    if (megakernel_.kv_write(p)) return;
    launch([&] { cuda::kv_write(p, stream_.get()); });
  }

  void kv_write_heads(const KvWriteHeadsParams& params) override {
    if (params.tokens == 0) return;
    KvWriteHeadsParams p = params;
    p.places = list(p.places, p.tokens);
    if (megakernel_.kv_write_heads(p)) return;
    launch([&] { cuda::kv_write_heads(p, stream_.get()); });
  }

  void latent_read(const LatentReadParams& params) override {
    if (params.rows == 0) return;
    LatentReadParams p = params;
    p.blocks = list(p.blocks, (p.rows + kKvBlock - 1) / kKvBlock);
    launch([&] { cuda::latent_read(p, stream_.get()); });
  }

  void heads_expand(const HeadsExpandParams& p) override {
    if (p.rows == 0) return;
    launch([&] { cuda::heads_expand(p, stream_.get()); });
  }

  void rope_query(const RopeQueryParams& params) override {
    if (params.tokens == 0) return;
    RopeQueryParams p = params;
    p.places = list(p.places, p.tokens);
    if (megakernel_.rope_query(p)) return;
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
    if (p.tokens == 0 || megakernel_.router(p)) return;
    launch([&] { cuda::router(p, stream_.get()); });
  }

  void group_experts(const GroupExpertsParams& p) override {
    if (p.tokens == 0 || megakernel_.group_experts(p)) return;
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

  template <class Launch>
  void launch(const Launch& kernel) {
    device::launch(lists_, kernel);
  }

  const CurrentGpu gpu_;  // before everything that is made on it
  const cudaDeviceProp properties_;
  bool exact_;
  AllReduce all_reduce_;
  const bool sleeps_;  // its memory is mapped, so that it can be given back
  std::string name_ = std::string("cuda/") + properties_.name;
  ThreadPool pool_;
  Stream stream_;
  CudaStore store_{gpu_.number(), sleeps_, stream_};
  SentLists sent_{stream_};
  Lists lists_{stream_, sent_};
  CudaMegakernel megakernel_;
  CudaProgress progress_{stream_, megakernel_};
  CudaGraphs graphs_{stream_, lists_, sent_};
  CudaLinear linear_;
  CudaJoined joined_{stream_, lists_};
  Scratch choice_scratch_;
  CudaAttention attention_;
  std::vector<const std::int32_t*> tables_;
};

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

std::unique_ptr<Backend> make_cuda_backend(int threads, bool exact, int gpu,
                                           const FoundCublasLt* library, AllReduce all_reduce,
                                           bool sleeps, const KernelChoice& kernels) {
  return std::make_unique<CudaBackend>(threads, exact, gpu, library, all_reduce, sleeps, kernels);
}

CUstream_st* stream_of(const Backend& backend) {
  return dynamic_cast<const CudaBackend&>(backend).stream();
}

}  // namespace dsm::device

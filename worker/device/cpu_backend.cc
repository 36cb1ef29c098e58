#include "worker/device/cpu_backend.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "kernels/group_experts.h"
#include "worker/device/cpu_bf16_products.h"
#include "worker/device/cpu_integer_products.h"
#include "worker/device/thread_pool.h"

namespace dsm::device {
namespace {

using namespace kernels;  // parameter structs

// Anonymous mappings, cut from the front; huge pages where the system has them.
class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() {
    for (const auto& chunk : chunks_) ::munmap(chunk.data(), chunk.size());
  }

  void* allocate(std::size_t bytes) {
    bytes = (std::max<std::size_t>(bytes, 1) + 63) / 64 * 64;
    if (bytes > left_.size()) {
      const std::size_t size = std::max(bytes, kChunk);
      void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (memory == MAP_FAILED) throw std::bad_alloc();
      ::madvise(memory, size, MADV_HUGEPAGE);
      chunks_.emplace_back(static_cast<std::byte*>(memory), size);
      left_ = chunks_.back();
    }
    std::byte* taken = left_.data();
    left_ = left_.subspan(bytes);
    return taken;
  }

  // Its pages go back to the system; they are zeros when they are touched again.
  void forget() {
    for (const auto& chunk : chunks_) ::madvise(chunk.data(), chunk.size(), MADV_DONTNEED);
  }

 private:
  static constexpr std::size_t kChunk = 4 << 20;
  std::vector<std::span<std::byte>> chunks_;
  std::span<std::byte> left_;
};

// Multiply-adds below which an operator is done by the caller alone: a fork and its join cost about
// as much.
constexpr std::int64_t kForkWork = 1 << 17;
// Rows of a cheap operator (norms, rope) per work item.
constexpr int kLightRows = 16;
// KV blocks whose index scores are one work item.
constexpr int kIndexBlocks = 16;

class CpuBackend final : public Backend {
 public:
  CpuBackend(int threads, const Ops& ops, const Bf16Ops* bf16)
      : ops_(ops),
        name_(std::string("cpu/") + ops.name),
        pool_(threads),
        integers_(integer_ops(ops), pool_) {
    if (bf16 == nullptr) return;
    name_ += std::string("+") + bf16->name;
    bf16_.emplace(*bf16, pool_);
  }

  std::string_view name() const override { return name_; }
  std::uint64_t moves() const override { return pool_.moves(); }
  void* allocate(std::size_t bytes) override { return arena_.allocate(bytes); }
  void* allocate_cache(std::size_t bytes) override { return caches_.allocate(bytes); }
  void* allocate_shared(std::size_t bytes) override { return arena_.allocate(bytes); }

  SharedMemory share(std::size_t bytes) override {
    constexpr std::align_val_t kAlignment{64};
    return {static_cast<std::byte*>(::operator new[](bytes, kAlignment)),
            [](std::byte* memory) { ::operator delete[](memory, kAlignment); }};
  }

  PackedMatrix reserve(std::span<const WeightPiece> pieces) override {
    const PackedMatrix shape = packed_matrix(pieces, nullptr);
    return packed_matrix(pieces, arena_.allocate(packed_bytes(shape.dtype, shape.n, shape.k)));
  }

  bool pack_panels(std::span<const WeightPiece> pieces, const PackedMatrix& into, int begin,
                   int end) override {
    return kernels::pack_panels(pieces, into, begin, end);
  }

  bool reaches_host() const override { return true; }

  void write(void* to, const void* from, std::size_t bytes) override {
    std::memcpy(to, from, bytes);
  }

  void parallel(int items, const std::function<void(int)>& work) override {
    pool_.run(items, work);
  }

  void wait() override {}
  // The host's memory is the device's: weights stay where they are.
  void sleep() override { caches_.forget(); }
  void wake() override {}
  void keep(List) override {}
  void stage(std::span<const List>, std::span<const AttentionItem>) override {}
  bool records() const override { return false; }
  void repeat(const RepeatKey&, const std::function<void()>& operators) override { operators(); }

  void copy(float* to, const float* from, std::size_t count) override {
    std::copy_n(from, count, to);
  }

  void clear(float* to, std::size_t count) override { std::fill_n(to, count, 0.0F); }

  // A row of a table in integers is a cache line for each word.
  void embedding(const EmbeddingParams& p) override {
    light(p.rows, is_integer(p.dtype) ? p.width * 2 : p.width / 2,
          [&](int begin, int end) { ops_.embedding(p, begin, end); });
  }

  void rms_norm(const RmsNormParams& p) override {
    light(p.rows, p.width, [&](int begin, int end) { ops_.rms_norm(p, begin, end); });
  }

  void quantise(const QuantiseParams& p) override {
    light(p.rows, p.width * 2, [&](int begin, int end) { ops_.quantise(p, begin, end); });
  }

  void quantise_slots(const QuantiseParams& params, const GroupExpertsParams& routing) override {
    QuantiseParams p = params;
    p.rows = routing.groups[routing.experts].end - routing.tokens;
    p.factor = routing.weight + routing.tokens;
    quantise(p);
  }

  void linear(const LinearParams& p) override {
    if (bf16_ && bf16_->linear(p)) return;
    if (integers_.linear(p)) return;
    const int blocks = blocks_of(p.rows);
    const int panels = panels_of(p.w[0]);
    const std::int64_t work = std::int64_t{p.rows} * p.batch * p.w[0].n * p.w[0].k;
    run(work, blocks * panels * p.batch, [&](int item) {
      // Neighbouring items share weights, not rows: the panel is the larger of the two.
      const int block = item % blocks;
      const int panel = apart(item / blocks % panels, panels);
      ops_.linear(p, item / blocks / panels, block * kRowBlock,
                  std::min(p.rows, (block + 1) * kRowBlock), panel);
    });
  }

  void gate_up(const GateUpParams& p) override {
    if (bf16_ && bf16_->gate_up(p)) return;
    if (integers_.gate_up(p)) return;
    int items = 0;
    std::int64_t work = 0;
    for (int g = 0; g < p.group_count; ++g) {
      const int slots = p.groups[g].end - p.groups[g].begin;
      items += slots > 0 ? panels_of(p.w[g]) : 0;
      work += std::int64_t{slots} * p.w[g].n * p.w[g].k;
    }
    run(work, items, [&](int item) {
      for (int g = 0; g < p.group_count; ++g) {
        if (p.groups[g].begin == p.groups[g].end) continue;
        const int panels = panels_of(p.w[g]);
        if (item < panels) {
          return ops_.gate_up(p, g, p.groups[g].begin, p.groups[g].end, apart(item, panels));
        }
        item -= panels;
      }
    });
  }

  void row_parallel(const RowParallelParams& p) override {
    if (bf16_ && bf16_->row_parallel(p)) return;
    if (integers_.row_parallel(p)) return;
    const int blocks = blocks_of(p.tokens);
    const int panels = panels_of(p.w[0].part[0]);
    std::int64_t work = 0;
    for (int g = 0; g < p.group_count; ++g) {
      for (int s = 0; s < p.w[g].count; ++s) {
        work +=
            std::int64_t{p.groups[g].end - p.groups[g].begin} * p.w[g].part[s].n * p.w[g].part[s].k;
      }
    }
    run(work, blocks * panels, [&](int item) {
      const int begin = item % blocks * kRowBlock;
      const int end = std::min(p.tokens, begin + kRowBlock);
      ops_.row_parallel(p, begin, end, apart(item / blocks, panels));
    });
  }

  void tree_sum(const TreeSumParams& p) override { ops_.tree_sum(p, 0, p.count); }

  void add_over_ranks(comm::Communicator& ranks, const RankSumParams& p) override {
    const auto count = static_cast<std::size_t>(p.count);
    ranks.all_gather({p.mine, count}, {p.parts, count * static_cast<std::size_t>(ranks.size())});
    tree_sum({p.parts, ranks.size(), p.count, p.y, p.y});
  }

  void gather_over_ranks(comm::Communicator& ranks, const RankGatherParams& p) override {
    const auto count = static_cast<std::size_t>(p.count);
    ranks.all_gather({p.mine, count}, {p.parts, count * static_cast<std::size_t>(ranks.size())});
  }

  void gather_columns(comm::Communicator& ranks, const RankColumnsParams& p) override {
    if (ranks.size() == 1) return;
    const auto count = static_cast<std::size_t>(p.rows) * static_cast<std::size_t>(p.width);
    const bool first = ranks.rank() == 0;
    const auto all = first ? count * static_cast<std::size_t>(ranks.size()) : 0;
    ranks.gather({p.mine, count}, {p.parts, all}, 0);
    if (!first) return;
    const float* from = p.parts;
    for (int part = 0; part < ranks.size(); ++part) {
      for (std::int64_t row = 0; row < p.rows; ++row, from += p.width) {
        std::copy_n(from, p.width, p.y + (row * ranks.size() + part) * p.width);
      }
    }
  }

  void kv_write(const KvWriteParams& p) override {
    light(p.tokens, p.kv.key_dim, [&](int begin, int end) { ops_.kv_write(p, begin, end); });
  }

  void kv_write_heads(const KvWriteHeadsParams& p) override {
    light(p.tokens, p.kv.heads * p.kv.key_dim,
          [&](int begin, int end) { ops_.kv_write_heads(p, begin, end); });
  }

  void latent_read(const LatentReadParams& p) override {
    light(p.rows, p.kv.key_dim, [&](int begin, int end) { ops_.latent_read(p, begin, end); });
  }

  void heads_expand(const HeadsExpandParams& p) override {
    light(p.rows, p.heads * (p.nope + p.value),
          [&](int begin, int end) { ops_.heads_expand(p, begin, end); });
  }

  void norm_heads(const NormHeadsParams& p) override {
    light(p.tokens, (p.queries + p.keys) * p.dim,
          [&](int begin, int end) { ops_.norm_heads(p, begin, end); });
  }

  void rope_query(const RopeQueryParams& p) override {
    light(p.tokens, p.heads * p.rope.pairs,
          [&](int begin, int end) { ops_.rope_query(p, begin, end); });
  }

  void index_write(const IndexWriteParams& p) override {
    light(p.tokens, p.keys.dim * 2, [&](int begin, int end) { ops_.index_write(p, begin, end); });
  }

  void index_select(const IndexSelectParams& p) override {
    // As many tokens at a time as there is scratch memory for.
    for (int begin = 0; begin < p.tokens; begin += kIndexRows) {
      const int end = std::min(p.tokens, begin + kIndexRows);
      int most = 0;
      for (int t = begin; t < end; ++t) most = std::max(most, scored_blocks(p, t));
      const int parts = (most + kIndexBlocks - 1) / kIndexBlocks;
      const std::int64_t work = std::int64_t{end - begin} * most * kKvBlock * p.heads * p.keys.dim;
      run(work, (end - begin) * parts, [&](int item) {
        const int token = begin + item / parts;
        const int from = item % parts * kIndexBlocks;
        const int to = std::min(from + kIndexBlocks, scored_blocks(p, token));
        if (from < to) ops_.index_scores(p, token, from, to);
      });
      run(std::int64_t{end - begin} * most * kKvBlock * 8, end - begin,
          [&](int item) { ops_.index_select(p, begin + item); });
    }
  }

  void attention(const AttentionParams& p) override {
    std::int64_t work = 0;
    for (int i = 0; i < p.item_count; ++i) {
      const AttentionItem& item = p.items[i];
      work += std::int64_t{item.row_end - item.row_begin} *
              (p.places[(item.row_end - 1) / p.heads].position + kKvBlock) *
              (p.kv.key_dim + p.kv.value_dim);
    }
    // From the end: later items of a long prompt see more positions, and the long ones shall not
    // come last.
    if (!bf16_) {
      run(work, p.item_count, [&](int item) { ops_.attention(p, p.item_count - 1 - item); });
      return;
    }
    const auto parts = bf16_->attended(p);
    run(work, static_cast<int>(parts.size()), [&](int item) {
      const auto& part = parts[parts.size() - 1 - static_cast<std::size_t>(item)];
      if (part.in_bf16) return bf16_->attend(p, part);
      ops_.attention(p, part.first);
    });
  }

  void router(const RouterParams& p) override {
    light(p.tokens, p.experts * 8, [&](int begin, int end) { ops_.router(p, begin, end); });
  }

  void group_experts(const GroupExpertsParams& p) override { kernels::group_experts(p); }

  void choose(const ChooseParams& p) override {
    run(std::int64_t{p.rows} * p.vocab, p.rows, [&](int row) { kernels::choose(p, row); });
  }

 private:
  // Blocks of a token's past that have scores: none where all of it is attended to.
  static int scored_blocks(const IndexSelectParams& p, int token) {
    const int seen = p.places[token].position + 1;
    return seen > p.top_k ? (seen + kKvBlock - 1) / kKvBlock : 0;
  }
  // The panel that is the number-th to be claimed. Threads that claim in turn read memory that is
  // far apart, each in its order, which is quicker than neighbouring panels at a time.
  int apart(int number, int panels) const {
    const int each = panels / pool_.threads();
    if (number >= each * pool_.threads()) return number;
    return number % pool_.threads() * each + number / pool_.threads();
  }
  static int blocks_of(int rows) { return (rows + kRowBlock - 1) / kRowBlock; }

  template <class Work>
  void run(std::int64_t multiply_adds, int items, const Work& work) {
    if (multiply_adds >= kForkWork) {
      pool_.run(items, work);
    } else {
      for (int i = 0; i < items; ++i) work(i);
    }
  }

  template <class Work>
  void light(int rows, int row_work, const Work& work) {
    const int items = (rows + kLightRows - 1) / kLightRows;
    run(std::int64_t{rows} * row_work * 4, items,
        [&](int item) { work(item * kLightRows, std::min(rows, (item + 1) * kLightRows)); });
  }

  const Ops& ops_;
  std::string name_;
  Arena arena_;
  Arena caches_;
  ThreadPool pool_;
  CpuIntegerProducts integers_;
  std::optional<CpuBf16Products> bf16_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(int threads, const Ops& ops, const Bf16Ops* bf16) {
  return std::make_unique<CpuBackend>(threads, ops, bf16);
}

}  // namespace dsm::device

#include "worker/device/cuda_products.h"

#include <algorithm>
#include <stdexcept>

#include "kernels/cuda/exact_stage.h"

namespace dsm::device {

using namespace kernels;  // parameter structs

std::string CudaProducts::use_library(const FoundCublasLt& library) {
  if (!library) return "long prompts by its own products: " + library.error();
  try {
    library_ = std::make_unique<LibraryProduct>(*library, capability_, stream_);
  } catch (const CudaError& error) {
    return std::string("long prompts by its own products: ") + error.what();
  }
  return "long prompts by cuBLASLt";
}

bool CudaProducts::may_use_library(int rows) const {
  if (library_ == nullptr) return false;
  const auto pays = [&](DType dtype) { return rows >= cuda::library_rows(capability_, dtype); };
  return (fp8_ && pays(DType::kF8E4M3)) ||
         (pays(DType::kBF16) && rows >= wide_rows(DType::kBF16).below);
}

void CudaProducts::run(std::vector<cuda::ProductTask>& tasks, cuda::Products launch,
                       const NextProducts& next) {
  launch.exact = exact_;
  const cuda::ProductTask& first = tasks.front();
  const CudaHeldRows::Taken held = held_.take(first.x, first.rows, first.w.k);
  launch.x_operands = held.data;
  if (!held.fp8) {
    for (const DType dtype : cuda::kProductTypes) by_wide_kernel(tasks, dtype, launch, next);
  }
  if (held.data == nullptr || held.fp8) by_wide_fp8_kernel(tasks, launch, next);
  if (held.data != nullptr && (tasks.size() > 1 || tasks.front().rows > 0)) {
    throw std::logic_error("CUDA backend: rows are held for a product that cannot take them");
  }
  if (library_ != nullptr) by_library(tasks, launch);
  // One launch for each pair of types.
  for (const DType dtype : cuda::kProductTypes) {
    for (const bool fp8_rows : {false, true}) {
      chosen_.clear();
      for (const cuda::ProductTask& task : tasks) {
        if (task.rows > 0 && task.w.dtype == dtype && cuda::fp8_rows(task) == fp8_rows) {
          chosen_.push_back(task);
        }
      }
      launch.fp8_rows = fp8_rows;
      if (!chosen_.empty()) by_kernel(launch, dtype);
    }
  }
}

bool CudaProducts::may_hold(int rows, int width, const NextProducts& next) const {
  // Who calls it says so of integers only where the same kernels take them (Step::next()).
  const cuda::RowRange range = next.rounds() ? wide_fp8_rows() : wide_rows(DType::kBF16);
  return !exact_ && next.products > 0 && kernels_.may_pair() && rows >= cuda::kPairedFrom &&
         rows >= range.from && rows < range.below &&
         CudaHeldRows::may_hold(rows, width, next.taken);
}

cuda::WideFp8Rows CudaProducts::hold_rounded(const QuantiseParams& p) {
  const NextProducts next = {
      p.for_products, p.power_of_two ? RowsTaken::kRoundedByPowersOfTwo : RowsTaken::kRounded};
  if (p.factor != nullptr || !may_hold(p.rows, p.width, next)) return {};
  const auto rows = hold_fp8(CudaHeldRows::Of::kRounded, p.x, p.rows, p.width, next);
  held_.rounded(p.x, p.y, p.rows);
  return rows;
}

cuda::RowRange CudaProducts::wide_rows(DType dtype) const {
  return cuda::wide_kernel_rows(capability_, dtype, kernels_.wide_from(dtype, exact_));
}

cuda::RowRange CudaProducts::wide_fp8_rows() const {
  if (exact_ || kernels_.many_rows == ManyRows::kLibrary) return {};
  return cuda::wide_fp8_rows(capability_);
}

// Takes what it does out of tasks.
void CudaProducts::by_wide_kernel(std::vector<cuda::ProductTask>& tasks, DType dtype,
                                  cuda::Products launch, const NextProducts& next) {
  const cuda::RowRange range = wide_rows(dtype);
  chosen_.clear();
  int stages = 0;
  for (cuda::ProductTask& task : tasks) {
    if (task.w.dtype != dtype || task.rows < range.from || task.rows >= range.below) continue;
    if (!(exact_ ? cuda::takes_exact(task.w) : cuda::takes_wide(task.w))) continue;
    if (cuda::fp8_rows(task)) continue;
    chosen_.push_back(task);
    stages = std::max(stages, cuda::wide_stages(task.w));
    task.rows = 0;
  }
  if (chosen_.empty()) return;
  if (exact_) {
    cuda::plan_exact_products(chosen_, processors_, plan_);
  } else {
    cuda::plan_wide_products(chosen_, processors_, kernels_.may_pair(), plan_);
  }
  take_plan(launch);
  if (launch.spans_each < launch.spans) span_sums_.give(launch);
  cuda::WideProducts wide = {
      .params = launch, .stages = stages, .processors = processors_, .dtype = dtype};
  const cuda::ProductTask& first = chosen_.front();
  const int width = first.w.n / 2;
  if (launch.swiglu && chosen_.size() == 1 && first.start == nullptr &&
      launch.tile_rows == cuda::kPairedRows && !next.rounds() &&
      may_hold(first.rows, width, next)) {
    wide.to = held_.hold(CudaHeldRows::Of::kMlp, first.y, first.rows, width, next.products);
  }
  lists_.send();
  operands_.multiply(wide);
  check(cudaGetLastError(), "start a kernel");
}

// The same with both sides in FP8, where the library's product would unpack the weights.
void CudaProducts::by_wide_fp8_kernel(std::vector<cuda::ProductTask>& tasks, cuda::Products launch,
                                      const NextProducts& next) {
  const cuda::RowRange range = wide_fp8_rows();
  chosen_.clear();
  int stages = 0;
  for (cuda::ProductTask& task : tasks) {
    if (!cuda::fp8_rows(task) || task.rows < range.from || task.rows >= range.below) continue;
    chosen_.push_back(task);
    stages = std::max(stages, cuda::splits_of(task.w));
    task.rows = 0;
  }
  if (chosen_.empty()) return;
  const bool may_pair = kernels_.may_pair() && kernels_.paired_fp8;
  const bool pairs = cuda::plan_wide_fp8_products(chosen_, processors_, may_pair, plan_);
  take_plan(launch);
  if (launch.spans > 1) span_sums_.give(launch);
  cuda::WideFp8Products wide = {launch, stages, processors_, pairs, {}};
  const cuda::ProductTask& first = chosen_.front();
  const int width = first.w.n / 2;
  if (launch.swiglu && chosen_.size() == 1 && first.start == nullptr && pairs && next.rounds() &&
      may_hold(first.rows, width, next)) {
    wide.to = hold_fp8(CudaHeldRows::Of::kMlp, first.y, first.rows, width, next);
  }
  lists_.send();
  operands_.multiply(wide);
  check(cudaGetLastError(), "start a kernel");
}

// Takes what it does out of tasks. The library's sums are finished as ours are, as one span.
void CudaProducts::by_library(std::vector<cuda::ProductTask>& tasks, const cuda::Products& launch) {
  for (cuda::ProductTask& task : tasks) {
    const auto parts = library_->parts_of(task);
    for (const cuda::ProductPart& part : parts) {
      cuda::Products p = launch;
      chosen_.assign(1, task);
      cuda::take_part(part, p, chosen_.front());
      plan(p, DType::kBF16);
      p.spans = 1;
      span_sums_.give(p);
      lists_.send();
      library_->multiply(p, chosen_.front(), p.partial, p.ld_partial);
      cuda::finish_products(p, stream_.get());
      check(cudaGetLastError(), "start a kernel");
    }
    if (!parts.empty()) task.rows = 0;
  }
}

void CudaProducts::by_kernel(cuda::Products launch, DType dtype) {
  plan(launch, dtype);
  if (megakernel_.products(launch, chosen_)) return;
  if (launch.spans_each < launch.spans) span_sums_.give(launch);
  lists_.send();
  operands_.multiply(launch, dtype);
  check(cudaGetLastError(), "start a kernel");
}

void CudaProducts::plan(cuda::Products& launch, DType dtype) {
  cuda::plan_products(chosen_, dtype, processors_, plan_);
  take_plan(launch);
}

void CudaProducts::take_plan(cuda::Products& launch) {
  launch.tasks = lists_.put(chosen_);
  launch.tiles = lists_.put(plan_.tiles);
  launch.tile_count = static_cast<int>(plan_.tiles.size());
  launch.tile_rows = plan_.tile_rows;
  launch.panels = plan_.panels;
  launch.spans = plan_.spans;
  launch.spans_each = plan_.spans_each;
  launch.wide_x = cuda::wide_rows(chosen_, launch.ldx);
  launch.early = true;
}

}  // namespace dsm::device

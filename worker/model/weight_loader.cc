#include "worker/model/weight_loader.h"

#include <algorithm>
#include <atomic>
#include <set>

#include "kernels/cpu/stored_integers.h"

namespace dsm::model {
namespace {

using kernels::BlockScales;
using kernels::DType;
using kernels::PackedMatrix;
using kernels::WeightPiece;

// Bytes of a checkpoint that one job reads, about: many jobs per thread in what is packed at a
// time, and many pages per job.
constexpr std::int64_t kJobBytes = 2 << 20;
// Values that are converted at a time.
constexpr std::size_t kConverted = 16 << 10;
// Jobs that are done before progress is told.
constexpr std::size_t kRound = 64;
// Between the rows of a slice: with more than this to leave out, each row is asked for alone.
constexpr std::int64_t kGap = 32 << 10;

std::int64_t size_of(DType dtype) {
  return static_cast<std::int64_t>(kernels::bytes_of(dtype));
}

// Of one column of a piece.
std::int64_t column_size(const WeightPiece& piece) {
  if (!kernels::is_integer(piece.dtype)) return piece.k * size_of(piece.dtype);
  return (std::int64_t{piece.k} * kernels::stored_bits(piece) + 7) / 8;
}

// Asks for `runs` of `width` bytes, `stride` from one to the next.
void read_runs_ahead(const std::byte* first, std::int64_t runs, std::int64_t width,
                     std::int64_t stride) {
  const auto bytes = [](const std::byte* at, std::int64_t count) {
    read_ahead({at, static_cast<std::size_t>(count)});
  };
  if (stride - width <= kGap) return bytes(first, (runs - 1) * stride + width);
  for (std::int64_t run = 0; run < runs; ++run) bytes(first + run * stride, width);
}

// Asks for columns [begin, end) of a piece.
void read_piece_ahead(const WeightPiece& piece, std::int64_t begin, std::int64_t end) {
  if (piece.data == nullptr || begin >= end || piece.k < 1) return;
  if (kernels::is_integer(piece.dtype)) {
    const auto [first, runs, width, stride] = kernels::stored_bytes(piece, begin, end);
    return read_runs_ahead(first, runs, width, stride);
  }
  const std::int64_t size = size_of(piece.dtype);
  const std::byte* first = piece.data + (piece.origin + begin * piece.n_stride) * size;
  if (piece.k_stride == 1) {
    read_runs_ahead(first, end - begin, piece.k * size, piece.n_stride * size);
  } else {
    read_runs_ahead(first, piece.k, (end - begin) * size, piece.k_stride * size);
  }
}

// Bytes of panels [begin, end) of the pieces in the checkpoint; asks for them.
std::int64_t read_panels_ahead(std::span<const WeightPiece> pieces, int begin, int end) {
  std::int64_t bytes = 0;
  std::int64_t column = 0;
  for (const WeightPiece& piece : pieces) {
    const std::int64_t from = std::max(std::int64_t{begin} * kernels::kPanel, column) - column;
    const std::int64_t to =
        std::min(std::int64_t{end} * kernels::kPanel, column + piece.n) - column;
    if (from < to && piece.data != nullptr) {
      read_piece_ahead(piece, from, to);
      bytes += (to - from) * column_size(piece);
    }
    column += piece.n;
  }
  return bytes;
}

std::int64_t blocks(std::int64_t extent, int block) {
  return (extent + block - 1) / block;
}

}  // namespace

TensorView WeightLoader::get(const std::string& name, std::initializer_list<std::int64_t> shape) {
  if (error_) return {};
  auto view = checkpoint_.get(name, shape);
  if (view) return *view;
  error_ = view.error();
  return {};
}

TensorView WeightLoader::get_plain(const std::string& name,
                                   std::initializer_list<std::int64_t> shape) {
  auto view = get(name, shape);
  if (!error_ && (view.dtype == DType::kF8E4M3 || view.dtype == DType::kF8E8M0)) {
    error_ = Error{ErrorKind::kInvalid,
                   "tensor " + name + " is in FP8, which is supported for matrices of layers only"};
    return {};
  }
  return view;
}

BlockScales WeightLoader::scales_of(const std::string& name, std::int64_t rows,
                                    std::int64_t columns) {
  if (!quantization_) {
    error_ = Error{ErrorKind::kInvalid,
                   "tensor " + name + " is in FP8, but config.json has no quantization_config"};
    return {};
  }
  const auto [block_rows, block_columns, unused] = *quantization_;
  const std::string scale = name + "_scale_inv";
  const auto view = get(scale, {blocks(rows, block_rows), blocks(columns, block_columns)});
  if (error_) return {};
  if (view.dtype != DType::kF32 && view.dtype != DType::kF8E8M0) {
    error_ = Error{ErrorKind::kInvalid, "tensor " + scale + " is neither F32 nor F8_E8M0"};
    return {};
  }
  return {view.bytes.data(), view.dtype, block_rows, block_columns, columns};
}

WeightPiece WeightLoader::slice(const std::string& name, std::int64_t rows, std::int64_t columns,
                                std::int64_t row, int n, std::int64_t column, int k) {
  if (!error_ && integers_ && has_packed(checkpoint_, *integers_, name)) {
    return packed_slice(*integers_, name, rows, columns, row, n, column, k);
  }
  const auto view = get(name, {rows, columns});
  if (error_) return {.n = n, .k = k};
  if (view.dtype == DType::kF8E8M0) {
    error_ = Error{ErrorKind::kInvalid, "tensor " + name + " is in F8_E8M0, a type of scales only"};
    return {.n = n, .k = k};
  }
  BlockScales scales;
  if (view.dtype == DType::kF8E4M3) scales = scales_of(name, rows, columns);
  bytes_ += std::int64_t{n} * k * size_of(view.dtype);
  return {.data = view.bytes.data(),
          .dtype = view.dtype,
          .n_stride = columns,
          .k_stride = 1,
          .n = n,
          .k = k,
          .origin = row * columns + column,
          .scales = scales};
}

WeightPiece WeightLoader::packed_slice(const IntegerWeights& kind, const std::string& name,
                                       std::int64_t rows, std::int64_t columns, std::int64_t row,
                                       int n, std::int64_t column, int k) {
  auto found = packed_weight(checkpoint_, kind, name, rows, columns);
  if (!found) {
    error_ = found.error();
    return {.n = n, .k = k};
  }
  WeightPiece piece = found->piece;
  piece.n = n;
  piece.k = k;
  piece.origin = row * piece.n_stride + column * piece.k_stride;
  bytes_ += std::int64_t{n} * column_size(piece);
  if (seen_.insert(name).second) {
    const std::int64_t bytes = found->checked_bytes();
    bytes_ += bytes;
    if (!dry()) {
      add({.bytes = bytes, .packed = std::make_shared<const PackedWeight>(std::move(*found))});
    }
  }
  return piece;
}

PackedMatrix WeightLoader::pack(std::span<const WeightPiece> pieces) {
  if (dry()) return {};
  const auto matrix = std::make_shared<Matrix>();
  matrix->pieces.assign(pieces.begin(), pieces.end());
  matrix->packed = backend_->reserve(pieces);
  const int panels = kernels::panels_of(matrix->packed);
  std::int64_t row_bytes = 1;
  for (const WeightPiece& piece : pieces) {
    row_bytes = std::max(row_bytes, column_size(piece));
  }
  const auto step = static_cast<int>(
      std::clamp<std::int64_t>(kJobBytes / (row_bytes * kernels::kPanel), 1, panels));
  for (int begin = 0; begin < panels; begin += step) {
    const int end = std::min(panels, begin + step);
    add({.bytes = read_panels_ahead(pieces, begin, end),
         .matrix = matrix,
         .begin = begin,
         .end = end});
  }
  return matrix->packed;
}

const float* WeightLoader::vector(const std::string& name, std::int64_t size) {
  const auto view = get_plain(name, {size});
  bytes_ += static_cast<std::int64_t>(view.bytes.size());
  if (dry()) return nullptr;
  auto* values = device::allocate<float>(*backend_, static_cast<std::size_t>(size));
  read_values(view, values, false);
  return values;
}

const float* WeightLoader::vectors(std::span<const VectorPart> parts) {
  std::size_t total = 0;
  for (const auto& part : parts) total += static_cast<std::size_t>(part.count);
  float* values = dry() ? nullptr : device::allocate<float>(*backend_, total);
  float* to = values;
  for (const auto& part : parts) {
    auto view = get_plain(part.name, {part.size});
    const auto unit = kernels::bytes_of(view.dtype);
    const auto bytes = static_cast<std::size_t>(part.count) * unit;
    bytes_ += static_cast<std::int64_t>(bytes);
    if (dry()) continue;
    view.bytes = view.bytes.subspan(static_cast<std::size_t>(part.begin) * unit, bytes);
    read_values(view, to, false);
    to += part.count;
  }
  return values;
}

WeightPiece WeightLoader::plain(const std::string& name, int rows, int columns) {
  const auto view = get_plain(name, {rows, columns});
  bytes_ += static_cast<std::int64_t>(view.bytes.size());
  return {.data = view.bytes.data(),
          .dtype = view.dtype,
          .n_stride = columns,
          .k_stride = 1,
          .n = rows,
          .k = columns};
}

std::pair<const void*, DType> WeightLoader::table(const std::string& name, std::int64_t rows,
                                                  std::int64_t columns) {
  const auto view = get_plain(name, {rows, columns});
  bytes_ += static_cast<std::int64_t>(view.bytes.size());
  const bool as_stored = view.dtype == DType::kBF16;
  const DType dtype = as_stored ? DType::kBF16 : DType::kF32;
  if (dry()) return {nullptr, dtype};
  void* to =
      backend_->allocate(static_cast<std::size_t>(rows * columns) * kernels::bytes_of(dtype));
  read_values(view, to, as_stored);
  return {to, dtype};
}

void WeightLoader::read_values(const TensorView& view, void* to, bool as_stored) {
  const auto bytes = view.bytes.size();
  const std::size_t from_size = kernels::bytes_of(view.dtype);
  const std::size_t to_size = as_stored ? from_size : sizeof(float);
  for (std::size_t at = 0; at < bytes; at += kJobBytes) {
    const auto part = view.bytes.subspan(at, std::min<std::size_t>(kJobBytes, bytes - at));
    read_ahead(part);
    add({.bytes = static_cast<std::int64_t>(part.size()),
         .matrix = nullptr,
         .values = part,
         .dtype = view.dtype,
         .to = static_cast<std::byte*>(to) + at / from_size * to_size,
         .as_stored = as_stored});
  }
}

void WeightLoader::add(Job job) {
  waiting_ += job.bytes;
  queue_.push_back(std::move(job));
  if (waiting_ > ahead_) work_off(ahead_ / 2);
}

void WeightLoader::finish() {
  if (!dry()) work_off(0);
}

void WeightLoader::work_off(std::int64_t bytes) {
  std::size_t count = 0;
  std::int64_t taken = 0;
  while (count < queue_.size() && (waiting_ - taken > bytes || bytes == 0)) {
    taken += queue_[count++].bytes;
  }
  for (std::size_t at = 0; at < count; at += kRound) {
    const std::size_t round = std::min(kRound, count - at);
    std::atomic<const Job*> bad = nullptr;
    backend_->parallel(static_cast<int>(round), [&](int i) {
      const Job& job = queue_[at + static_cast<std::size_t>(i)];
      if (!run(job)) bad.store(&job);
    });
    if (const Job* job = bad.load(); job != nullptr) return refuse(*job);
    for (std::size_t i = at; i < at + round; ++i) done_ += queue_[i].bytes;
    progress_(done_, total_);
  }
  queue_.erase(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(count));
  waiting_ -= taken;
}

// The sentence for a job with a weight that is not a number.
void WeightLoader::refuse(const Job& job) {
  if (job.packed != nullptr) {
    error_ = check_values(checkpoint_, *job.packed).error();
    return queue_.clear();
  }
  std::string tensors;
  std::set<const std::byte*> seen;
  for (const WeightPiece& piece : job.matrix->pieces) {
    if (piece.data == nullptr || !seen.insert(piece.data).second) continue;
    tensors += (tensors.empty() ? "" : " or ") + checkpoint_.owner_of(piece.data);
  }
  const auto& pieces = job.matrix->pieces;
  const bool stored = std::ranges::any_of(
      pieces, [](const WeightPiece& piece) { return kernels::is_integer(piece.dtype); });
  const bool rounded = kernels::is_integer(job.matrix->packed.dtype);
  const char* why = stored    ? ": a weight, or its scale, is not a finite number"
                    : rounded ? ": a weight, or its scale, is not a number (NaN) or infinite and "
                                "cannot be rounded"
                              : ": a weight, or its scale, is not a number (NaN)";
  error_ = Error{ErrorKind::kInvalid, tensors + why};
  queue_.clear();
}

bool WeightLoader::run(const Job& job) const {
  if (job.packed != nullptr) return check_values(checkpoint_, *job.packed).has_value();
  if (job.matrix != nullptr) {
    return backend_->pack_panels(job.matrix->pieces, job.matrix->packed, job.begin, job.end);
  }
  if (job.as_stored) {
    backend_->write(job.to, job.values.data(), job.values.size());
    return true;
  }
  float values[kConverted];
  const std::size_t unit = kernels::bytes_of(job.dtype);
  const std::size_t count = job.values.size() / unit;
  for (std::size_t at = 0; at < count; at += kConverted) {
    const std::size_t size = std::min(kConverted, count - at);
    kernels::to_float(job.values.data() + at * unit, job.dtype, static_cast<std::int64_t>(size),
                      values);
    backend_->write(static_cast<float*>(job.to) + at, values, size * sizeof(float));
  }
  return true;
}

}  // namespace dsm::model

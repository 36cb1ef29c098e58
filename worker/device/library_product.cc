#include "worker/device/library_product.h"

#include <string>

namespace dsm::device {
namespace {

using namespace kernels;  // parameter structs

// What NVIDIA recommends from Hopper on.
constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;
// Of a part's weights, and of its sums.
constexpr std::int64_t kPartBytes = std::int64_t{64} << 20;
// Shapes whose algorithms are kept. A model has a few weights, and prompts many lengths.
constexpr std::size_t kMostShapes = 4096;

void require(CublasLt::Status status, const char* what) {
  if (status == 0) return;
  throw CudaError(std::string("cuBLASLt: cannot ") + what + ": status " + std::to_string(status));
}

// A handle of the library's and what ends it.
template <class Create>
std::unique_ptr<void, CublasLt::Status (*)(void*)> made(CublasLt::Status (*destroy)(void*),
                                                        const Create& create) {
  void* handle = nullptr;
  require(create(&handle), "make a description");
  return {handle, destroy};
}

}  // namespace

// The sides of a product as the library names them, column-major: D[n, rows] = A^T B with the
// weights as A[k, n] and the activations as B[k, rows].
struct LibraryProduct::Layouts {
  Layouts(const CublasLt& api, const Shape& shape, std::int64_t ld)
      : a(layout(api, CublasLt::kBFloat16, shape.k, shape.n, shape.k)),
        b(layout(api, CublasLt::kBFloat16, shape.k, shape.rows, shape.k)),
        d(layout(api, CublasLt::kFloat32, shape.n, shape.rows, ld)) {}

  static Handle layout(const CublasLt& api, int type, std::int64_t rows, std::int64_t columns,
                       std::int64_t ld) {
    return made(api.layout_destroy, [&](void** to) {
      return api.layout_create(to, type, static_cast<std::uint64_t>(rows),
                               static_cast<std::uint64_t>(columns), ld);
    });
  }

  Handle a;
  Handle b;
  Handle d;
};

LibraryProduct::LibraryProduct(const CublasLt& library, int capability, const Stream& stream)
    : api_(library),
      capability_(capability),
      stream_(stream),
      library_(made(api_.destroy, api_.create)),
      product_(made(api_.product_destroy,
                    [&](void** to) {
                      return api_.product_create(to, CublasLt::kComputeFloat32, CublasLt::kFloat32);
                    })),
      preference_(made(api_.preference_destroy, api_.preference_create)) {
  workspace_.at_least(kWorkspaceBytes, stream_);  // before what is left goes to the KV cache
  require(api_.product_set(product_.get(), CublasLt::kTransposeA, &CublasLt::kTransposed,
                           sizeof CublasLt::kTransposed),
          "describe a product");
  require(api_.preference_set(preference_.get(), CublasLt::kMostWorkspaceBytes, &kWorkspaceBytes,
                              sizeof kWorkspaceBytes),
          "have a preference");
}

LibraryProduct::Shape LibraryProduct::shape_of(int panels, int k, int rows) {
  return {std::int64_t{panels} * kPanel, round_up(k, cuda::kUnpackInputs), rows};
}

std::optional<CublasLt::Algorithm> LibraryProduct::find_algorithm(const Shape& shape) {
  const Layouts layouts(api_, shape, shape.n);
  CublasLt::Found found{};
  int count = 0;
  const auto status =
      api_.heuristic(library_.get(), product_.get(), layouts.a.get(), layouts.b.get(),
                     layouts.d.get(), layouts.d.get(), preference_.get(), 1, &found, &count);
  if (status != 0 || count == 0 || found.status != 0) return std::nullopt;
  return found.algorithm;
}

const std::optional<CublasLt::Algorithm>& LibraryProduct::algorithm(const Shape& shape) {
  if (algorithms_.size() >= kMostShapes && !algorithms_.contains(shape)) algorithms_.clear();
  const auto [at, fresh] = algorithms_.try_emplace(shape);
  if (fresh) at->second = find_algorithm(shape);
  return at->second;
}

std::span<const cuda::ProductPart> LibraryProduct::parts_of(const cuda::ProductTask& task) {
  const DType dtype = task.w.dtype;
  const bool unpacks = dtype == DType::kBF16 || dtype == DType::kF8E4M3;
  if (!unpacks || task.rows < cuda::library_rows(capability_, dtype)) return {};
  cuda::library_parts(task, kPartBytes, parts_);
  for (const cuda::ProductPart& part : parts_) {
    if (!algorithm(shape_of(part.panels, task.w.k, part.rows))) return {};
  }
  return parts_;
}

void LibraryProduct::multiply(const cuda::Products& launch, const cuda::ProductTask& task,
                              float* sums, std::int64_t ld) {
  const Shape shape = shape_of(panels_of(task.w), task.w.k, task.rows);
  const auto bytes = [&](std::int64_t lines) {
    return static_cast<std::size_t>(lines * shape.k) * sizeof(std::uint16_t);
  };
  auto* weights = static_cast<std::uint16_t*>(weights_.at_least(bytes(shape.n), stream_));
  auto* rows = static_cast<std::uint16_t*>(rows_.at_least(bytes(shape.rows), stream_));
  cuda::unpack_bf16(task.w, weights, shape.k, stream_.get());
  cuda::gather_bf16(launch, task, rows, shape.k, stream_.get());
  const auto found = algorithm(shape);
  if (!found) throw CudaError("cuBLASLt: has no algorithm for what is no part");
  const Layouts layouts(api_, shape, ld);
  const float one = 1.0F;
  const float zero = 0.0F;
  require(
      api_.multiply(library_.get(), product_.get(), &one, weights, layouts.a.get(), rows,
                    layouts.b.get(), &zero, sums, layouts.d.get(), sums, layouts.d.get(), &*found,
                    workspace_.at_least(kWorkspaceBytes, stream_), kWorkspaceBytes, stream_.get()),
      "multiply");
}

}  // namespace dsm::device

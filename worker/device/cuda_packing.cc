#include "worker/device/cuda_packing.h"

#include <algorithm>
#include <cstdint>

namespace dsm::device {

using namespace kernels;  // parameter structs

namespace {

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

}  // namespace

// As a matrix of these panels alone.
HostPanels pack_on_host(std::span<const WeightPiece> pieces, const PackedMatrix& into, int begin,
                        int end) {
  const auto cut = columns_of(pieces, begin * kPanel, std::min(into.n, end * kPanel));
  const auto panels = static_cast<std::size_t>(end - begin);
  const auto value_bytes = static_cast<std::size_t>(std::int64_t{kPanel} * column_bytes(into));
  const auto scale_count = static_cast<std::size_t>(scale_blocks(into)) * kPanel;
  const auto at = static_cast<std::size_t>(begin);
  HostPanels made;
  made.values.resize(value_bytes * panels);
  made.to_values = static_cast<std::byte*>(const_cast<void*>(into.data)) + at * value_bytes;
  const bool scaled = has_scales(into);
  if (scaled) {
    made.scales.resize(scale_count * panels);
    made.to_scales = const_cast<float*>(into.scales) + at * scale_count;
  }
  PackedMatrix part = into;
  part.data = made.values.data();
  part.scales = scaled ? made.scales.data() : nullptr;
  part.n = std::min(into.n, end * kPanel) - begin * kPanel;
  made.numbers = kernels::pack_panels(cut, part, 0, end - begin);
  return made;
}

}  // namespace dsm::device

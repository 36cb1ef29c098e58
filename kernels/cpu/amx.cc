// The operators of bf16_ops.h with AMX.
//
// A product goes through its inputs in chunks. Of one, the rows' operands and sums stay in the
// second-level cache (256 and 512 KiB) while panels pass by, and half a panel in the first (16 KiB)
// while rows do. Rows leave the first one to it (Rows::kPass).
#include "kernels/cpu/amx_attention.h"
#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/bf16_operands.h"
#include "kernels/cpu/tables.h"

namespace dsm::kernels {
namespace {

constexpr int kChunkSteps = 9;  // at most: a half panel of 18 KiB
// From so many tiles of rows on they are more than the first-level cache keeps beside that.
constexpr int kPassingTiles = 4;

// Sums of a work item, panel by panel: of each half of a panel's columns the tiles of rows, two
// tiles of sums each, so that what two by two tiles give stands in 4 KiB side by side.
struct Sums {
  static constexpr int kTile = kTileRows * kLanes;
  static constexpr int kTilesOfRows = kItemRows / kTileRows;
  alignas(64) float of[kItemPanels][2][kTilesOfRows][2][kTileRows][kLanes];

  TileSums panel(int number) { return {of[number][0][0][0][0], kLanes, kTile, 2 * kTile}; }
  static constexpr std::int64_t kHalf = std::int64_t{kTilesOfRows} * 2 * kTile;

  // 16 columns of a row.
  float* at(int panel, int row, int vector) {
    return of[panel][vector / 2][row / kTileRows][vector % 2][row % kTileRows];
  }
};

// The weights of a panel from a step on, to be asked for; null: they do not stand there as they are
// multiplied.
inline const char* weights_from(const PackedMatrix& w, int panel, int step) {
  if (w.dtype != DType::kBF16) return nullptr;
  return panel_columns<DType::kBF16>(w, panel).data + static_cast<std::int64_t>(step) * kStepBytes;
}

// Adds to the sums what the inputs of a matrix give, of which the first step of `rows` is at
// `first`; they begin at zero unless go_on. `then`: the matrix that is next; null: none. Chunks are
// alike, lest the last be short: to fetch sums and to store them costs as much for each.
void add(const PackedMatrix& w, int panel_begin, int panel_end, const OperandRows& rows,
         const std::uint16_t* first, int tiles, bool go_on, const PackedMatrix* then, Sums& sums) {
  alignas(64) char made[kChunkSteps * kStepBytes];
  const TileSession session;
  const int steps = steps_of(w.k);
  const int chunks = (steps + kChunkSteps - 1) / kChunkSteps;
  const std::int64_t stride = rows.tile(1) - rows.tile(0);
  for (int chunk = 0; chunk < chunks; ++chunk) {
    const int begin = chunk * steps / chunks;
    const int end = (chunk + 1) * steps / chunks;
    const char* next = nullptr;
    if (end < steps) {
      next = weights_from(w, panel_begin, end);
    } else if (then != nullptr) {
      next = weights_from(*then, panel_begin, 0);
    }
    for (int panel = panel_begin; panel < panel_end; ++panel) {
      const auto multiply =
          tiles < kPassingTiles ? multiply_panel<Rows::kStay> : multiply_panel<Rows::kPass>;
      multiply(first + static_cast<std::int64_t>(begin) * kTileRows * kStepInputs, stride, tiles,
               chunk_of(w, panel, begin, end, made), end - begin, sums.panel(panel - panel_begin),
               Sums::kHalf, go_on || begin > 0,
               panel + 1 < panel_end ? weights_from(w, panel + 1, begin) : next);
    }
  }
}

// use(row, column, lanes, sums) for each 16 columns of n of each of `rows` rows of panels.
template <class Use>
inline void for_sums(Sums& sums, int n, int rows, int panel_begin, int panel_end, const Use& use) {
  for (int panel = panel_begin; panel < panel_end; ++panel) {
    for (int r = 0; r < rows; ++r) {
      for (int v = 0; v < kPanel / kLanes; ++v) {
        const int column = panel * kPanel + v * kLanes;
        if (column >= n) break;
        use(r, column, first_lanes(n - column), Avx512::load(sums.at(panel - panel_begin, r, v)));
      }
    }
  }
}

void linear(const LinearParams& p, int which, const OperandRows& rows, int row_begin, int row_end,
            int panel_begin, int panel_end) {
  Sums sums;
  const PackedMatrix& w = p.w[which];
  add(w, panel_begin, panel_end, rows, rows.data, tiles_of(row_end - row_begin), false, nullptr,
      sums);
  for_sums(sums, w.n, row_end - row_begin, panel_begin, panel_end,
           [&](int r, int column, __mmask16 lanes, __m512 value) {
             float* const y = p.y + which * p.y_step + (row_begin + r) * p.ldy + column;
             if (p.accumulate) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(lanes, y));
             if (p.bias != nullptr) {
               value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(lanes, p.bias + column));
             }
             _mm512_mask_storeu_ps(y, lanes, value);
           });
}

// x / (1 + 2^(-x log2 e)), to 3e-6 of it, as power_of_two().
inline __m512 silu(__m512 x) {
  // Beyond 2^120 it is as good as zero.
  const __m512 power =
      _mm512_min_ps(Avx512::mul(x, Avx512::set(-1.44269504F)), Avx512::set(120.0F));
  const __m512 one = Avx512::set(1.0F);
  const __m512 divisor = Avx512::add(one, power_of_two(power));
  const __m512 near = _mm512_rcp14_ps(divisor);
  const __m512 off = _mm512_fnmadd_ps(divisor, near, one);
  return Avx512::mul(x, Avx512::fma(near, off, near));
}

void gate_up(const GateUpParams& p, int group, const OperandRows& rows, int slot_begin,
             int slot_end, int panel_begin, int panel_end, const OperandRows& kept) {
  constexpr int kHalf = kPanel / 2;
  const bool begun = group == 0 && p.start != nullptr;
  Sums sums;
  add(p.w[group], panel_begin, panel_end, rows, rows.data, tiles_of(slot_end - slot_begin), false,
      nullptr, sums);
  for (int panel = panel_begin; panel < panel_end; ++panel) {
    for (int s = slot_begin; s < slot_end; ++s) {
      const auto at = [&](int v) { return sums.at(panel - panel_begin, s - slot_begin, v); };
      for (int v = 0; begun && v < kPanel / kLanes; ++v) {
        const float* start = p.start + s * p.lds + panel * kPanel + v * kLanes;
        Avx512::store(at(v), Avx512::add(Avx512::load(start), Avx512::load(at(v))));
      }
      const __m512 weight = Avx512::set(p.weight[s]);
      __m512 h[kHalf / kLanes];
      for (int v = 0; v < kHalf / kLanes; ++v) {
        const __m512 up = Avx512::load(at(v + kHalf / kLanes));
        h[v] = Avx512::mul(Avx512::mul(silu(Avx512::load(at(v))), up), weight);
      }
      if (kept.data != nullptr) {
        // The panel's columns are a step of the next product's inputs.
        std::uint16_t* const to = kept.tile(s / kTileRows) + panel * kTileRows * kStepInputs;
        store_step(h[0], h[1], to + s % kTileRows * kStepInputs);
        continue;
      }
      for (int v = 0; v < kHalf / kLanes; ++v) {
        Avx512::store(p.h + s * p.ldh + panel * kHalf + v * kLanes, h[v]);
      }
    }
    for (int s = slot_end; kept.data != nullptr && s % kTileRows != 0; ++s) {
      std::uint16_t* const to = kept.tile(s / kTileRows) + panel * kTileRows * kStepInputs;
      store_step(_mm512_setzero_ps(), _mm512_setzero_ps(), to + s % kTileRows * kStepInputs);
    }
  }
}

void row_parallel(const RowParallelParams& p, int group, const OperandRows& rows, int slot_begin,
                  int slot_end, int panel_begin, int panel_end) {
  const SegmentedMatrix& w = p.w[group];
  Sums sums;
  const std::uint16_t* at = rows.data;
  for (int s = 0; s < w.count; ++s) {
    add(w.part[s], panel_begin, panel_end, rows, at, tiles_of(slot_end - slot_begin), s > 0,
        s + 1 < w.count ? &w.part[s + 1] : nullptr, sums);
    at += operands_of(1, steps_of(w.part[s].k));
  }
  const float* const begins = group > 0 ? p.y : p.residual;
  for_sums(sums, w.part[0].n, slot_end - slot_begin, panel_begin, panel_end,
           [&](int s, int column, __mmask16 lanes, __m512 value) {
             const std::int64_t to = p.token[slot_begin + s] * p.ldy + column;
             if (begins != nullptr) {
               value = _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, begins + to), value);
             }
             _mm512_mask_storeu_ps(p.y + to, lanes, value);
           });
}

}  // namespace

constinit const Bf16Ops kAmxOps = {.name = "amx",
                                   .pack = pack_rows,
                                   .linear = linear,
                                   .gate_up = gate_up,
                                   .row_parallel = row_parallel,
                                   .attention = attend};

}  // namespace dsm::kernels

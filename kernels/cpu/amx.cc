// The operators of bf16_ops.h with AMX.
//
// A product goes through its inputs in chunks. Of one, the rows' operands and sums stay in the
// second-level cache (256 and 512 KiB) while panels pass by, and half a panel in the first (16 KiB)
// while rows do.
#include "kernels/cpu/amx_attention.h"
#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/bf16_operands.h"
#include "kernels/cpu/tables.h"

namespace dsm::kernels {
namespace {

constexpr int kChunkSteps = 8;

// Sums of a work item, panel by panel.
struct Sums {
  alignas(64) float of[kItemPanels][kItemRows][kPanel];
};

// Where the weights stand that are multiplied after steps [begin, end) of a panel; null: nowhere as
// they are.
inline const char* after(const PackedMatrix& w, int first_panel, int panel, int panel_end,
                         int begin, int end) {
  if (w.dtype != DType::kBF16) return nullptr;
  const bool here = panel + 1 < panel_end;
  const int step = here ? begin : end;
  if ((step + kChunkSteps) * kStepInputs > w.k) return nullptr;
  return panel_columns<DType::kBF16>(w, here ? panel + 1 : first_panel).data +
         static_cast<std::int64_t>(step) * kStepBytes;
}

// Adds to the sums what the inputs of a matrix give, of which the first step of `rows` is at
// `first`; they begin at zero unless go_on.
void add(const PackedMatrix& w, int panel_begin, int panel_end, const OperandRows& rows,
         const std::uint16_t* first, int tiles, bool go_on, Sums& sums) {
  alignas(64) char made[kChunkSteps * kStepBytes];
  const TileSession session;
  const int steps = steps_of(w.k);
  const std::int64_t stride = rows.tile(1) - rows.tile(0);
  for (int begin = 0; begin < steps; begin += kChunkSteps) {
    const int end = begin + kChunkSteps < steps ? begin + kChunkSteps : steps;
    for (int panel = panel_begin; panel < panel_end; ++panel) {
      multiply_panel(first + static_cast<std::int64_t>(begin) * kTileRows * kStepInputs, stride,
                     tiles, chunk_of(w, panel, begin, end, made), end - begin,
                     &sums.of[panel - panel_begin][0][0], go_on || begin > 0,
                     after(w, panel_begin, panel, panel_end, begin, end));
    }
  }
}

// use(at, lanes, sums) for each 16 columns of n of a panel's row.
template <class Use>
inline void for_columns(int n, int panel, const float* sums, const Use& use) {
  for (int v = 0; v < kPanel; v += kLanes) {
    const int column = panel * kPanel + v;
    if (column >= n) return;
    use(column, first_lanes(n - column), Avx512::load(sums + v));
  }
}

void linear(const LinearParams& p, int which, const OperandRows& rows, int row_begin, int row_end,
            int panel_begin, int panel_end) {
  Sums sums;
  const PackedMatrix& w = p.w[which];
  add(w, panel_begin, panel_end, rows, rows.data, tiles_of(row_end - row_begin), false, sums);
  for (int panel = panel_begin; panel < panel_end; ++panel) {
    for (int r = row_begin; r < row_end; ++r) {
      float* y = p.y + which * p.y_step + r * p.ldy;
      for_columns(w.n, panel, sums.of[panel - panel_begin][r - row_begin],
                  [&](int column, __mmask16 lanes, __m512 value) {
                    if (p.accumulate) {
                      value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(lanes, y + column));
                    }
                    if (p.bias != nullptr) {
                      value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(lanes, p.bias + column));
                    }
                    _mm512_mask_storeu_ps(y + column, lanes, value);
                  });
    }
  }
}

void gate_up(const GateUpParams& p, int group, const OperandRows& rows, int slot_begin,
             int slot_end, int panel_begin, int panel_end) {
  constexpr int kHalf = kPanel / 2;
  const bool begun = group == 0 && p.start != nullptr;
  Sums sums;
  add(p.w[group], panel_begin, panel_end, rows, rows.data, tiles_of(slot_end - slot_begin), false,
      sums);
  for (int panel = panel_begin; panel < panel_end; ++panel) {
    for (int s = slot_begin; s < slot_end; ++s) {
      float* of = sums.of[panel - panel_begin][s - slot_begin];
      for (int i = 0; begun && i < kPanel; i += kLanes) {
        const float* start = p.start + s * p.lds + panel * kPanel + i;
        Avx512::store(of + i, Avx512::add(Avx512::load(start), Avx512::load(of + i)));
      }
      float* h = p.h + s * p.ldh + panel * kHalf;
      const __m512 weight = Avx512::set(p.weight[s]);
      for (int i = 0; i < kHalf; i += kLanes) {
        const __m512 gate = Avx512::load(of + i);
        const __m512 silu = Avx512::mul(gate, sigmoid16<Avx512>(gate));
        Avx512::store(h + i, Avx512::mul(Avx512::mul(silu, Avx512::load(of + kHalf + i)), weight));
      }
    }
  }
}

void row_parallel(const RowParallelParams& p, int group, const OperandRows& rows, int slot_begin,
                  int slot_end, int panel_begin, int panel_end) {
  const SegmentedMatrix& w = p.w[group];
  Sums sums;
  const std::uint16_t* at = rows.data;
  for (int s = 0; s < w.count; ++s) {
    add(w.part[s], panel_begin, panel_end, rows, at, tiles_of(slot_end - slot_begin), s > 0, sums);
    at += operands_of(1, steps_of(w.part[s].k));
  }
  for (int panel = panel_begin; panel < panel_end; ++panel) {
    for (int s = slot_begin; s < slot_end; ++s) {
      const std::int64_t row = p.token[s] * p.ldy;
      const float* const begins = group > 0 ? p.y : p.residual;
      for_columns(w.part[0].n, panel, sums.of[panel - panel_begin][s - slot_begin],
                  [&](int column, __mmask16 lanes, __m512 value) {
                    if (begins != nullptr) {
                      const float* from = begins + row + column;
                      value = _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, from), value);
                    }
                    _mm512_mask_storeu_ps(p.y + row + column, lanes, value);
                  });
    }
  }
}

}  // namespace

constinit const Bf16Ops kAmxOps = {.name = "amx",
                                   .pack = pack_rows,
                                   .linear = linear,
                                   .gate_up = gate_up,
                                   .row_parallel = row_parallel,
                                   .attention = attend};

}  // namespace dsm::kernels

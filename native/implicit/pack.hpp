// What an implicit product packs: its kernel once, and in contiguous memory the positions of a block for every chunk of summands.
//
//     kernel:     U[group][unit][summand][unit rows or columns]
//     positions:  packed[panel][summand][W positions]
#pragma once
#include "implicit/forward_plan.hpp"

namespace NINEFOLD_NS {
namespace {

// Packs input i of a unit. Where inputs are not neighbours in memory, the units beside it are packed before the next input:
// what they read lies together, and rows of the weight are pages apart.
template <class T>
NINEFOLD_INLINE void pack_kernel_input(const Product<T>& q, const T* from, int64_t lanes, int64_t i, T* to) {
    constexpr int L = kLanes<T>, W = kPanel<T>;
    const Implicit& p = q.p;
    from += i * p.w_in;
    if (p.rows) {
        const int64_t step = p.ins * W;
        T* there = to + i * W + (p.flip ? (q.n_taps - 1) * step : 0);
        for (int v = 0; v < kVectors; ++v)
            gather<T>(from + v * L * p.w_out, p.w_out, max(0, min(L, lanes - v * L)), p.w_tap, q.n_taps, there + v * L,
                      p.flip ? -step : step);
    } else {
        T* there = to + i * q.n_taps * kRows;
        for (int64_t t = 0; t < q.n_taps; ++t, there += kRows)
            for (int64_t l = 0; l < kRows; ++l) there[l] = l < lanes ? from[l * p.w_out + q.tap(t)] : T(0);
    }
}

template <class T>
inline void pack_kernel(const Product<T>& q, const T* weight, T* to, int64_t threads) {
    constexpr int L = kLanes<T>, W = kPanel<T>;
    const Implicit& p = q.p;
    if (q.in_place) return;
    const int64_t together = ceil_div(q.units, max(threads, ceil_div(q.units, kUnits))), jobs = ceil_div(q.units, together);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t job = 0; job < p.groups * jobs; ++job) {
        const int64_t group = job / jobs, first = job % jobs * together, end = min(q.units, first + together);
        const T* from = weight + group * p.w_group;
        T* here = to + group * q.units * q.plane;
        auto lanes = [&](int64_t u) { return min(q.unit, p.outs - u * q.unit); };
        if (p.rows && p.w_in == 1) {
            for (int64_t u = first; u < end; ++u)
                for (int64_t t = 0; t < q.n_taps; ++t)
                    for (int v = 0; v < kVectors; ++v)
                        gather<T>(from + (u * W + v * L) * p.w_out + q.tap(t), p.w_out, max(0, min(L, lanes(u) - v * L)), 1,
                                  p.ins, here + u * q.plane + t * p.ins * W + v * L, W);
        } else if (p.w_out == 1 && q.n_taps == 1) {
            const int64_t whole = min(end, p.outs / q.unit);
            for (int64_t i = 0; i < p.ins; ++i) {
                for (int64_t u = first; u < whole; ++u) {
                    const T* row = from + i * p.w_in + u * q.unit;
                    T* there = here + u * q.plane + i * q.unit;
                    if (p.rows) __builtin_memcpy(there, row, sizeof(T) * W);
                    else __builtin_memcpy(there, row, sizeof(T) * kRows);
                }
                if (whole < end) pack_kernel_input<T>(q, from + whole * q.unit, lanes(whole), i, here + whole * q.plane);
            }
        } else {
            for (int64_t i = 0; i < p.ins; ++i)
                for (int64_t u = first; u < end; ++u)
                    pack_kernel_input<T>(q, from + u * q.unit * p.w_out, lanes(u), i, here + u * q.plane);
        }
    }
}

// One channel's pieces, side by side; may write a vector past the last.
template <class T>
NINEFOLD_INLINE void assemble_line(const Piece* pieces, int64_t n, const T* in, T* to) {
    constexpr int L = kLanes<T>;
    for (int64_t s = 0; s < n; ++s) {
        const Piece& piece = pieces[s];
        const T* from = in + max(piece.from, 0);
        T* there = to + piece.at;
        int64_t e = 0;
        if (piece.from < 0) {
            for (; e < piece.count; e += L) store(there + e, Vec<T>{});
        } else if (piece.step == 1) {
            for (; e + L <= piece.count; e += L) store(there + e, load(from + e));
            if (e < piece.count) store(there + e, load_first(from + e, piece.count - e));
        } else {
            if (piece.step == 2)
                for (; e + L < piece.count; e += L) store(there + e, evens<T>(load(from + 2 * e), load(from + 2 * e + L)));
            for (; e < piece.count; ++e) there[e] = from[e * piece.step];
        }
    }
}

// packed[panel][summand][position]: what the outputs [first, first + count) read.
template <class T>
inline void pack_positions(const Product<T>& q, const Chunk& c, const T* in, int64_t first, int64_t count, Piece* pieces, T* row,
                           T* to) {
    constexpr int L = kLanes<T>, W = kPanel<T>;
    const Implicit& p = q.p;
    const int64_t panel = c.count() * W;
    for (int64_t t = 0; t < c.nt; ++t) {
        const int64_t n = pieces_of(p, c.t + t, first, count, pieces);
        for (int64_t i = 0; i < c.ni;
             i += kLines) {  // a line is read some lines after it was written: loads of half-written vectors wait
            const int64_t lines = min(kLines, c.ni - i);
            for (int64_t l = 0; l < lines; ++l) assemble_line<T>(pieces, n, in + (c.i + i + l) * p.in_c, row + l * q.line_size());
            for (int64_t l = 0; l < lines; ++l) {
                T* there = to + (q.taps_inside ? (i + l) * c.nt + t : t * c.ni + i + l) * W;
                const T* from = row + l * q.line_size();
                for (int64_t j = 0; j < count; j += W, there += panel)
                    for (int v = 0; v < kVectors; ++v) store(there + v * L, load(from + j + v * L));
            }
        }
    }
}

}  // namespace
}  // namespace NINEFOLD_NS

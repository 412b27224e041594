// The products of a block of positions with all outputs of an item: positions as columns (contiguous), or as rows
// (channels-last).
//
//     for each chunk of summands: pack or look up, then for each tile: load sums, add products, store; the last chunk applies the
//     floor
//
// Tiles at the edges are collected in scratch and copied out at the end.
#pragma once
#include "implicit/pack.hpp"

namespace NINEFOLD_NS {
namespace {

// The block of positions from `first` on, under one tap; `tiles` of each chunk.
template <class T>
inline Ahead columns_ahead(const Product<T>& q, const T* in, int64_t first, int64_t tiles) {
    const Implicit& p = q.p;
    const int64_t n = first / q.each, r = first % q.each, count = min(p.block, q.each - r);
    if (!p.plain || p.in[2] != 1 || first >= q.total) return Ahead::nothing();
    return Ahead::over(in + n * p.in_n + r * p.in[2], count * p.in[2] * int64_t(sizeof(T)), p.in_c * int64_t(sizeof(T)), p.ins,
                       tiles * ceil_div(q.summands, q.deep));
}

template <class T>
inline Ahead rows_ahead(const Product<T>& q, const T* in, int64_t first, int64_t tiles) {
    const Implicit& p = q.p;
    if (!p.plain || first >= q.total) return Ahead::nothing();
    return Ahead::over(in + first * p.in[2], p.ins * int64_t(sizeof(T)), p.in[2] * int64_t(sizeof(T)),
                       min(p.block, q.total - first), tiles * ceil_div(q.summands, q.deep));
}

// Copies the tiles that were collected in scratch to the result of their group.
template <class T>
inline void store_edges(const Product<T>& q, int64_t first, int64_t count, int64_t o, int64_t end, const T* edge, T* result) {
    constexpr int L = kLanes<T>, W = kPanel<T>;
    const Implicit& p = q.p;
    for (int64_t j = 0; j < count; j += W) {
        const int64_t wide = min(W, count - j), r = (first + j) % q.each;
        if (p.out_p == 1 && wide % L == 0 && r + wide <= q.each) continue;
        for (int64_t l = 0; l < wide;) {
            const int64_t n = (first + j + l) / q.each, at = (first + j + l) % q.each, here = min(q.each - at, wide - l);
            for (int64_t i = o; i < end; ++i) {
                const T* from = edge + (j / W * q.share + i - o) * W + l;
                T* to = result + n * p.out_n + i * p.out_c + at * p.out_p;
                for (int64_t e = 0; e < here; ++e) to[e * p.out_p] = from[e];
            }
            l += here;
        }
    }
}

// Positions [first, first + count) as columns of the product, outputs [o, end) of a group as rows.
template <class T>
inline void positions_as_columns(const Product<T>& q, int64_t group, int64_t first, int64_t count, int64_t o, int64_t end,
                                 const T* in, const T* weight, const T* U, const T* bias, T* out, T* mine) {
    constexpr int L = kLanes<T>, W = kPanel<T>;
    const Implicit& p = q.p;
    T *packed = mine, *edge = packed + q.panels * q.deep * W, *row = edge + q.panels * q.share * W;
    Piece* pieces = reinterpret_cast<Piece*>(row + kLines * q.line_size());
    for (int64_t l = 0; l < kLines; ++l)
        for (int64_t k = count; k < q.panels * W; ++k) row[l * q.line_size() + k] = 0;  // columns that no position fills
    const T** rows = reinterpret_cast<const T**>(pieces + p.block);
    for (int64_t k = o; q.in_place && k < end; ++k) rows[k - o] = weight + group * p.w_group + k * p.w_out;
    T* result = out + group * p.outs * p.out_c;
    const T none[W] = {};
    Ahead ahead = columns_ahead<T>(q, in + group * p.ins * p.in_c, first + count, ceil_div(count, W) * ceil_div(end - o, kRows));
    for (int64_t k = 0; k < q.summands;) {
        const Chunk c = q.chunk(k);
        pack_positions<T>(q, c, in + group * p.ins * p.in_c, first, count, pieces, row, packed);
        k += c.count();
        const T floor = k == q.summands ? T(p.floor) : -T(__builtin_inf());
        for (int64_t j = 0; j < count; j += W) {
            const int64_t n = (first + j) / q.each, r = (first + j) % q.each, wide = min(W, count - j);
            const bool whole = p.out_p == 1 && wide % L == 0 && r + wide <= q.each;
            for (int64_t i = o; i < end; i += kRows) {
                const Left<T> left =
                    q.in_place
                        ? Left<T>{nullptr, rows + (i - o), 0, c.first, 1, c.count()}
                        : Left<T>{U + (group * q.units + i / kRows) * q.plane + c.first * kRows, nullptr, 0, 0, 1, c.count()};
                T* to = whole ? result + n * p.out_n + i * p.out_c + r : edge + (j / W * q.share + i - o) * W;
                const int64_t to_row = whole ? p.out_c : W, lines = min(kRows, end - i);
                const T* start = to;
                int64_t start_row = to_row;
                T added[kRows * W];
                if (c.first == 0) {
                    start = none, start_row = 0;
                    if (bias != nullptr) {
                        for (int64_t l = 0; l < lines; ++l)
                            for (int v = 0; v < kVectors; ++v)
                                store(added + l * W + v * L, broadcast(bias[group * p.outs + i + l]));
                        start = added, start_row = W;
                    }
                }
                ahead.some();
                tile_of<T>(lines, ceil_div(wide, L), left, packed + j / W * c.count() * W, W, start, start_row, to, to_row,
                           floor);
            }
        }
    }
    store_edges(q, first, count, o, end, edge, result);
}

// Positions as rows of the product, outputs as columns.
template <class T>
inline void positions_as_rows(const Product<T>& q, int64_t group, int64_t first, int64_t count, int64_t o, int64_t end,
                              const T* in, const T* U, const T* bias, T* out, T* mine) {
    constexpr int L = kLanes<T>, W = kPanel<T>;
    const Implicit& p = q.p;
    T *edge = mine, *zeros = edge + p.block * W, *added = zeros + round_up(p.ins, L);
    const T** pixels = reinterpret_cast<const T**>(added + round_up(p.outs, W));
    for (int64_t i = 0; i < round_up(p.ins, L); ++i) zeros[i] = 0;
    for (int64_t i = o; i < round_up(end, W); ++i) added[i] = bias != nullptr && i < p.outs ? bias[group * p.outs + i] : T(0);
    T* result = out + first * p.out_p + group * p.outs * p.out_c;
    Ahead ahead = rows_ahead<T>(q, in + group * p.ins, first + count, ceil_div(count, kRows) * ceil_div(end - o, W));
    const int64_t rest = (end - o) % W, odd = rest % L ? end - rest : end;  // channels from here on fill no whole vectors
    for (int64_t k = 0; k < q.summands;) {
        const Chunk c = q.chunk(k);
        if (c.i == 0 || k == 0)
            for (int64_t t = 0; t < c.nt; ++t)
                pixels_of<T>(p, c.t + t, first, count, in + group * p.ins, zeros, pixels + t * count);
        k += c.count();
        const T floor = k == q.summands ? T(p.floor) : -T(__builtin_inf());
        for (int64_t i = o; i < end; i += W) {
            const T* panel = U + (group * q.units + i / W) * q.plane + c.first * W;
            for (int64_t r = 0; r < count; r += kRows) {
                const Left<T> left{nullptr, pixels + r, count, c.i, c.nt, c.ni};
                T* to = i < odd ? result + r * p.out_p + i : edge + r * W;
                const int64_t to_row = i < odd ? p.out_p : W;
                ahead.some();
                tile_of<T>(count - r, min(kVectors, ceil_div(end - i, L)), left, panel, W, c.first == 0 ? added + i : to,
                           c.first == 0 ? 0 : to_row, to, to_row, floor);
            }
        }
    }
    for (int64_t r = 0; r < count && odd < end; ++r)
        for (int64_t i = odd; i < end; ++i) result[r * p.out_p + i] = edge[r * W + i - odd];
}

}  // namespace
}  // namespace NINEFOLD_NS

// The stages of backward_weights: products summed over the tiles of a thread's blocks, then transformed back into taps.
//
//     D[group][point][piece][output][input] += G[point][tile][output] x X[point][tile][input]      D --A^T--> taps
#pragma once
#include "winograd/stages.hpp"

namespace NINEFOLD_NS {
namespace {

// Sums the products of one thread's blocks of tiles for output channels [first, end) of every group.
template <class T>
inline void sum_products(const Blocks<T>& s, const Matrices<T>& all, const T* in, const T* grad, T* D, int64_t from, int64_t to,
                         int64_t first, int64_t end, T* mine) {
    constexpr int L = kLanes<T>, W = kPanel<T>;
    const Winograd& p = s.p;
    T *transforms = mine + s.stage, *X = transforms + s.kRoom, *G = X + s.n_points * s.x_plane;
    int64_t *row = reinterpret_cast<int64_t*>(G + s.n_points * s.g_plane), *shift = row + s.tiles;
    int64_t group = -1;
    for (int64_t k = from; k < to; ++k) {
        const Place b = s.place(k);
        const bool add = b.group == group;
        group = b.group;
        const int64_t count = s.offsets(b, row, shift);
        transform_data<T>(s, all, b, in, false, X, mine, transforms);
        transform_data<T>(s, all, b, grad, true, G, mine, transforms);
        for (int64_t k = 0; k < s.n_points; ++k)
            for (int64_t q = 0; q < s.n_pieces; ++q)
                for (int64_t i = 0; i < p.ins; i += W)
                    for (int64_t o = first; o < end; o += kRows)
                        outer_of<T>(end - o, min(kVectors, ceil_div(p.ins - i, L)), G + k * s.g_plane + o, s.g_row,
                                    X + k * s.x_plane + shift[q] + i, row, count,
                                    D + (((group * s.n_points + k) * s.n_pieces + q) * p.outs + o) * s.w_row + i, s.w_row, add);
    }
}

// Transforms the summed products of one vector of inputs of one output channel back into taps.
template <class T>
inline void transform_sums(const Blocks<T>& s, const Matrices<T>& all, const T* sums, int64_t size_of_part, int64_t parts,
                           int64_t group, int64_t each, int64_t o, int64_t i, T* weight, T* staged, T* room) {
    constexpr int L = kLanes<T>;
    const Winograd& p = s.p;
    const Shape size = piece(p), count = pieces(p);
    T *raw = staged, *cut = staged + s.n_taps * L;
    const int64_t step = s.n_pieces * p.outs * s.w_row, stride[3] = {size.n[1] * size.n[2] * L, size.n[2] * L, L};
    const int64_t in_stride[3] = {s.point.n[1] * s.point.n[2] * L, s.point.n[2] * L, L};
    T* whole = room + s.kRoom;  // where the transformed data was
    int64_t q[3], j[3], at = 0;
    for (q[0] = 0; q[0] < count.n[0]; ++q[0])
        for (q[1] = 0; q[1] < count.n[1]; ++q[1])
            for (q[2] = 0; q[2] < count.n[2]; ++q[2], ++at) {
                for (int64_t k = 0; k < s.n_points; ++k) {
                    Vec<T> total{};
                    const int64_t from = (group * s.n_points + k) * step + (at * p.outs + o) * s.w_row + i;
                    // a part has sums of the groups that its blocks are of
                    for (int64_t part = 0; part < parts; ++part) {
                        const int64_t first = s.n_blocks * part / parts, end = s.n_blocks * (part + 1) / parts;
                        if (first < end && first < (group + 1) * each && end > group * each)
                            total += load(sums + part * size_of_part + from);
                    }
                    store(whole + k * L, total);
                }
                transform_tile(all, 2, s.point, size, false, whole, in_stride, cut, stride, room);
                const T* c = cut;
                for (j[0] = 0; j[0] < size.n[0]; ++j[0])
                    for (j[1] = 0; j[1] < size.n[1]; ++j[1])
                        for (j[2] = 0; j[2] < size.n[2]; ++j[2], c += L) {
                            int64_t t = s.tap(q, j);
                            if (t >= 0) store(raw + t * L, load(c));
                        }
            }
    scatter<T>(raw, L, Vec<T>{}, -T(__builtin_inf()), weight + group * p.w_group + o * p.w_out + i * p.w_in, p.w_in,
               min(L, p.ins - i), p.w_tap, s.n_taps);
}

}  // namespace
}  // namespace NINEFOLD_NS

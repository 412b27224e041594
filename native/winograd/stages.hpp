// The stages of a Winograd convolution around its products: the kernel transformed, a block of data transformed, tiles stored.
//
//     weight --G--> U      data --stage--> lines --B^T--> X      M --A^T--> tiles --store--> output
#pragma once
#include "winograd/blocks.hpp"

namespace NINEFOLD_NS {
namespace {

template <class T>
inline Matrices<T> matrices(const Blocks<T>& s, T* room, bool weights) {
    const Winograd& p = s.p;
    Matrices<T> all;
    for (int d = 0; d < 3; ++d) {
        const WinogradAxis& a = p.axis[d];
        for (int k = 0; k < 3; ++k) all.pass[d][k] = nullptr;
        if (a.n == 1) continue;
        const int64_t spread = weights ? a.m : a.r, collect = weights ? a.r : a.m;
        const double* from[3] = {a.BT, a.G[weights], a.AT[weights]};
        const int64_t size[3] = {a.n * a.n, a.n * spread, a.n * collect};
        for (int k = 0; k < 3; ++k) {
            all.at[d][k] = room;
            for (int64_t j = 0; j < size[k]; ++j) room[j] = T(from[k][j]);
            room += size[k];
        }
        all.pass[d][0] = BT_pass_of<T>(a.n);
        all.pass[d][1] = G_or_AT_pass_of<T, true>(a.n, spread);
        all.pass[d][2] = G_or_AT_pass_of<T, false>(a.n, collect);
    }
    return all;
}

// Applies B^T (k = 0), G (1) or A^T (2) along every axis.
template <class T>
NINEFOLD_INLINE void transform_tile(const Matrices<T>& all, int k, Shape in, Shape out, bool x_first, const T* from,
                                    const int64_t* from_stride, T* to, const int64_t* to_stride, T* room) {
    const Pass<T> pass[3] = {all.pass[0][k], all.pass[1][k], all.pass[2][k]};
    const T* at[3] = {all.at[0][k], all.at[1][k], all.at[2][k]};
    transform<T>(pass, at, in, out, x_first, from, from_stride, to, to_stride, room);
}

// U[point][panel][piece * ins + input][output] for inputs [i0, i1) of one panel.
template <class T>
inline void transform_kernel(const Blocks<T>& s, const Matrices<T>& all, const T* weight, T* U, int64_t panel, int64_t i0,
                             int64_t i1, T* staged, T* room) {
    constexpr int L = kLanes<T>, W = kPanel<T>;
    const Winograd& p = s.p;
    const Shape size = piece(p), count = pieces(p);
    T *raw = staged, *cut = staged + s.n_taps * L;
    const int64_t stride[3] = {size.n[1] * size.n[2] * L, size.n[2] * L, L};
    const int64_t to_stride[3] = {s.point.n[1] * s.point.n[2] * s.u_plane, s.point.n[2] * s.u_plane, s.u_plane};
    for (int v = 0; v < kVectors; ++v) {
        const int64_t o = panel * W + v * L, lanes = min(L, p.outs - o);
        for (int64_t i = i0; i < i1; ++i) {
            T* to = U + panel * s.summands * W + i * W + v * L;
            if (lanes <= 0) {
                for (int64_t k = 0; k < s.n_points; ++k)
                    for (int64_t q = 0; q < s.n_pieces; ++q) store(to + k * s.u_plane + q * p.ins * W, Vec<T>{});
                continue;
            }
            gather<T>(weight + o * p.w_out + i * p.w_in, p.w_out, lanes, p.w_tap, s.n_taps, raw, L);
            int64_t q[3], j[3], at = 0;
            for (q[0] = 0; q[0] < count.n[0]; ++q[0])
                for (q[1] = 0; q[1] < count.n[1]; ++q[1])
                    for (q[2] = 0; q[2] < count.n[2]; ++q[2], ++at) {
                        T* c = cut;
                        for (j[0] = 0; j[0] < size.n[0]; ++j[0])
                            for (j[1] = 0; j[1] < size.n[1]; ++j[1])
                                for (j[2] = 0; j[2] < size.n[2]; ++j[2], c += L) {
                                    int64_t t = s.tap(q, j);
                                    store(c, t < 0 ? Vec<T>{} : load(raw + t * L));
                                }
                        transform_tile(all, 1, size, s.point, true, cut, stride, to + at * p.ins * W, to_stride, room);
                    }
        }
    }
}

// A line of `columns` positions of one vector of channels; zeros where there is none.
template <class T>
NINEFOLD_INLINE void stage_line(const T* from, int64_t step, int64_t channel, int64_t lanes, const Positions& at, int64_t first,
                                int64_t columns, T* to) {
    constexpr int L = kLanes<T>;
    const Run *run = at.of(first), *end = at.runs + at.n_runs;
    for (int64_t c = 0; c < columns; ++run) {
        const int64_t behind = run == end ? columns : min(columns, run->to + run->count - first);
        if (run == end || run->from < 0) {
            for (; c < behind; ++c) store(to + c * L, Vec<T>{});
        } else if (run->step == 1) {
            gather<T>(from + (run->from + first + c - run->to) * step, channel, lanes, step, behind - c, to + c * L, L);
            c = behind;
        } else {
            for (; c < behind; ++c)
                gather<T>(from + (run->from + (first + c - run->to) * run->step) * step, channel, lanes, step, 1, to + c * L, L);
        }
    }
}

// X[point][tile][channel] of one operand: the data, or with `grad` the outputs, whose tiles do not overlap.
template <class T>
inline void transform_data(const Blocks<T>& s, const Matrices<T>& all, const Place& b, const T* from, bool grad, T* X, T* staged,
                           T* room) {
    constexpr int L = kLanes<T>;
    const Winograd& p = s.p;
    const Shape size = grad ? tile(p) : s.point;
    const int64_t channels = grad ? p.outs : p.ins, row = grad ? s.g_row : s.x_row, plane = grad ? s.g_plane : s.x_plane;
    const int64_t *stride = grad ? p.out : p.in, channel = grad ? p.out_c : p.in_c, image = grad ? p.out_n : p.in_n;
    Shape count;
    const Positions* table[3];
    int64_t start[3];
    for (int d = 0; d < 3; ++d) {
        const WinogradAxis& a = p.axis[d];
        count.n[d] = b.count[d + 1] + (grad ? 0 : (a.pieces - 1) * a.shift);
        table[d] = grad ? &a.target : &a.source;
        start[d] = b.first[d + 1] * a.m;
    }
    const int64_t columns = (count.n[2] - 1) * p.axis[2].m + size.n[2];
    const int64_t in_stride[3] = {size.n[1] * columns * L, columns * L, L};
    const int64_t to_stride[3] = {s.point.n[1] * s.point.n[2] * plane, s.point.n[2] * plane, plane};
    const T* group = from + b.group * channels * channel + b.first[0] * image;
    int64_t at = 0;
    for (int64_t n = 0; n < b.count[0]; ++n)
        for (int64_t z = 0; z < count.n[0]; ++z)
            for (int64_t y = 0; y < count.n[1]; ++y, at += count.n[2])
                for (int64_t i = 0; i < channels; i += L) {
                    const int64_t lanes = min(L, channels - i);
                    const T* base = group + n * image + i * channel;
                    for (int64_t dz = 0; dz < size.n[0]; ++dz) {
                        const int64_t sz = (*table[0])[start[0] + z * p.axis[0].m + dz];
                        for (int64_t dy = 0; dy < size.n[1]; ++dy) {
                            const int64_t sy = (*table[1])[start[1] + y * p.axis[1].m + dy];
                            T* line = staged + (dz * size.n[1] + dy) * columns * L;
                            if (sz < 0 || sy < 0) {
                                for (int64_t c = 0; c < columns; ++c) store(line + c * L, Vec<T>{});
                            } else {
                                stage_line(base + sz * stride[0] + sy * stride[1], stride[2], channel, lanes, *table[2], start[2],
                                           columns, line);
                            }
                        }
                    }
                    for (int64_t x = 0; x < count.n[2]; ++x)
                        transform_tile(all, grad ? 1 : 0, size, s.point, true, staged + x * p.axis[2].m * L, in_stride,
                                       X + (at + x) * row + i, to_stride, room);
                }
}

// The result's tiles out of M[point][tile][channel] for channels [o, o + count); NaN in what is not finite of them, before
// the bias, to `spoilt`.
template <class T>
inline void store_tiles(const Blocks<T>& s, const Matrices<T>& all, const Place& b, const T* M, int64_t o, int64_t channels,
                        const T* bias, T* out, T* staged, T* room, Vec<T>& spoilt) {
    constexpr int L = kLanes<T>;
    const Winograd& p = s.p;
    const Shape size = tile(p);
    const WinogradAxis &az = p.axis[0], &ay = p.axis[1], &ax = p.axis[2];
    const int64_t columns = b.count[3] * ax.m, kept = min(columns, ax.size - b.first[3] * ax.m);
    const int64_t in_stride[3] = {s.point.n[1] * s.point.n[2] * s.m_plane, s.point.n[2] * s.m_plane, s.m_plane};
    const int64_t to_stride[3] = {size.n[1] * columns * L, columns * L, L};
    for (int64_t i = 0; i < channels; i += L) {
        const int64_t lanes = min(L, channels - i), channel = b.group * p.outs + o + i;
        Vec<T> add{};
        if (bias != nullptr)
            for (int64_t l = 0; l < lanes; ++l) add[l] = bias[channel + l];
        int64_t at = 0;
        for (int64_t n = 0; n < b.count[0]; ++n)
            for (int64_t z = 0; z < b.count[1]; ++z)
                for (int64_t y = 0; y < b.count[2]; ++y, at += b.count[3]) {
                    for (int64_t x = 0; x < b.count[3]; ++x)
                        transform_tile(all, 2, s.point, size, false, M + (at + x) * s.m_row + i, in_stride, staged + x * ax.m * L,
                                       to_stride, room);
                    for (int64_t dz = 0; dz < size.n[0]; ++dz)
                        for (int64_t dy = 0; dy < size.n[1]; ++dy) {
                            const int64_t oz = (b.first[1] + z) * az.m + dz, oy = (b.first[2] + y) * ay.m + dy;
                            if (oz >= az.size || oy >= ay.size) continue;
                            T* to = out + (b.first[0] + n) * p.out_n + channel * p.out_c + oz * p.out[0] + oy * p.out[1] +
                                    b.first[3] * ax.m * p.out[2];
                            scatter<T>(staged + (dz * size.n[1] + dy) * columns * L, L, add, T(p.floor), to, p.out_c, lanes,
                                       p.out[2], kept, &spoilt);
                        }
                }
    }
}

}  // namespace
}  // namespace NINEFOLD_NS

// Groups of several outputs: every vector that is loaded serves up to four output channels.
//
//     block of 4 outputs x c vectors along x, in registers;  for each input, for each tap:  acc[q][c] += w[q] * in[c]
#pragma once
#include "direct/forward_plan.hpp"

namespace NINEFOLD_NS {
namespace {

template <class T, class S>
inline void out_block(Forward<T, S>& f, const Outs<T>& args, int64_t q, int64_t c, S* to, int64_t tail, int64_t count,
                      T* buffer) {
    const Direct& d = f.d;
    if constexpr (Same<T, S>::value) {
        if (f.straight) return outs<T>(q, c, args, to, d.out_c, tail);
    }
    outs<T>(q, c, args, buffer, 6 * kLanes<T>, tail);
    int64_t hop = d.out[2] * d.jump[2];
    if (q == 4 && d.out_c == 1) {
        for (int64_t e = 0; e < count; ++e)
            for (int64_t j = 0; j < 4; ++j) narrow(buffer[j * 6 * kLanes<T> + e], to + e * hop + j);
    } else {
        for (int64_t j = 0; j < q; ++j)
            for (int64_t e = 0; e < count; ++e) narrow(buffer[j * 6 * kLanes<T> + e], to + j * d.out_c + e * hop);
    }
}

template <class T, class S>
inline void by_outs(Forward<T, S>& f, const Band<T>& band, int64_t g, int64_t part, S* to, T* buffer, int64_t* offsets) {
    const Direct& d = f.d;
    int64_t blocks = ceil_div(d.outs, 4);
    int64_t from = blocks * part / f.s.split * 4, until = min(d.outs, blocks * (part + 1) / f.s.split * 4);
    T init[4];
    for (int64_t l = 0; l < d.n_x; ++l) {
        const Line& x = d.x[l];
        int64_t taps = 0;
        for (int64_t a = 0; a < d.z.taps; ++a)
            for (int64_t b = 0; b < d.y.taps; ++b)
                for (int64_t c = 0; c < x.taps; ++c) offsets[taps++] = d.z.at[a] * band.zs + d.y.at[b] * band.ys + x.at[c];
        Outs<T> args{nullptr, band.is, d.ins, taps, offsets, nullptr, init, T(d.floor), 0};
        for (int64_t z = band.z0; z < band.z1; ++z)
            for (int64_t y = band.y0; y < band.y1; ++y) {
                const T* base = band.base + (z - band.z0) * d.step[0] * band.zs + (y - band.y0) * d.step[1] * band.ys;
                int64_t vectors = ceil_div(x.count, kLanes<T>), k = 0;
                while (vectors) {
                    int64_t c = balanced_chunk(vectors, widest(min(4, d.outs)));
                    int64_t left = x.count - k;
                    bool ends = c == vectors;
                    int64_t tail = ends && left < kLanes<T> ? left : kLanes<T>;
                    args.in = base + k;
                    args.last = ends && left >= kLanes<T> ? left - kLanes<T> : (c - 1) * kLanes<T>;
                    for (int64_t o = from; o < until; o += 4) {
                        int64_t q = min(4, d.outs - o);
                        args.w = f.block(g, o, q, l);
                        for (int64_t j = 0; j < q; ++j) init[j] = f.bias ? T(wide(f.bias[g * d.outs + o + j])) : T(0);
                        out_block(f, args, q, c, f.at(to + o * d.out_c, z, y, x, k), tail, min(left, c * kLanes<T>), buffer);
                    }
                    k += c * kLanes<T>;
                    vectors -= c;
                }
            }
    }
}

}  // namespace
}  // namespace NINEFOLD_NS

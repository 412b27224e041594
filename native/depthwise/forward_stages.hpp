// Forward and backward_data: a band is staged and its kernels packed, then rows of pixels are made, a few pixels at a time.
//
//     line    k k+1 ... k+P-1       P pixels x 2 vectors of channels in registers, over all taps
//
//     item -> block -> line         out of a staged band
//     item_unstaged -> pixel_group  out of memory as it lies; taps outside are left out
#pragma once
#include "depthwise/depthwise_plan.hpp"

namespace NINEFOLD_NS {
namespace {

// A row of outputs that reads pixels where they lie.
template <class T> struct UnstagedRow {
    const T* in;
    T* out;
    const T *packed, *bias;
    int64_t channels, step;
};

// P pixels from the k-th on, all channels.
template <int P, class T, class S>
inline void pixel_group(const DepthwiseNhwc<T, S>& f, const UnstagedRow<T>& h, int64_t k, const Taps& taps) {
    const Direct& d = f.d;
    constexpr int64_t B = kBlock<T>;
    int64_t hop = d.jump[2] * d.out[2], ahead = 0;
    const int64_t far = max(P, kAhead / (h.channels * int64_t(sizeof(T))));
    for (int64_t t = 0; t < taps.count; ++t) ahead = max(ahead, taps.from[t]);
    for (int64_t c = 0; c < h.channels; c += B) {
        int64_t own = min(B, h.channels - c);
        T part[B] = {};
        if (h.bias && own < B) __builtin_memcpy(part, h.bias + c, size_t(own) * sizeof(T));
        const T* start = h.bias && own == B ? h.bias + c : part;
        const T *in = h.in + c + k * h.step, *packed = h.packed + c * d.taps;
        T* out = h.out + c + k * hop;
        for (int p = 0; p < P; ++p) {  // what pixels further on read for the first time, and where they are written
            __builtin_prefetch(in + ahead + (far + p) * h.step);
            __builtin_prefetch(out + (far + p) * hop, 1);
        }
        if (own == B) pixels_unstaged<T, P, true>(in, h.step, taps, packed, start, T(d.floor), out, hop, own);
        else pixels_unstaged<T, P, false>(in, h.step, taps, packed, start, T(d.floor), out, hop, own);
    }
}

// Without staging: all channels of a few pixels after each other, as they lie; what is outside is left out tap by tap.
template <class T, class S>
inline void item_unstaged(const DepthwiseNhwc<T, S>& f, const Band& b, int64_t c, int64_t channels, const T* in, const T* weight,
                          const T* bias, T* out, T* packed, int64_t* room) {
    const Direct& d = f.d;
    constexpr int64_t B = kBlock<T>;
    for (int64_t k = 0; k < channels; k += B) f.pack(min(B, channels - k), packed + k * d.taps, weight + (c + k) * d.w_group);
    Taps taps{room, room + d.taps, room + 2 * d.taps, room + 3 * d.taps, 0},
        some{room + 4 * d.taps, room + 5 * d.taps, nullptr, nullptr, 0};
    const int64_t step = even_steps(d);
    for (int64_t z = b.z0; z < b.z1; ++z)
        for (int64_t y = b.y0; y < b.y1; ++y) {
            T* row = out + b.n * d.out_n + c + (d.z.first + z * d.jump[0]) * d.out[0] + (d.y.first + y * d.jump[1]) * d.out[1];
            int64_t before = 0;
            for (int64_t l = 0; l < d.n_x; ++l) {
                const Line& x = d.x[l];
                int64_t lo, hi;
                find_taps(d, z, y, x, before, B, taps, &lo, &hi);
                UnstagedRow<T> line{in + b.n * d.in_n + c, row + x.first * d.out[2], packed, bias ? bias + c : nullptr, channels,
                                    step * d.in[2]};
                for (int64_t k = lo ? 0 : hi; k < x.count; k = k + 1 == lo ? hi : k + 1) {
                    taps.under(k, some);
                    pixel_group<1>(f, line, k, some);
                }
                int64_t k = lo;
                for (; k + kPixels <= hi; k += kPixels) pixel_group<kPixels>(f, line, k, taps);
                if (k < hi && hi - lo >= kPixels)
                    pixel_group<kPixels>(f, line, hi - kPixels, taps), k = hi;  // some again: they come out the same
                for (; k + 3 <= hi; k += 3) pixel_group<3>(f, line, k, taps);
                for (; k < hi; ++k) pixel_group<1>(f, line, k, taps);
                before += d.z.taps * d.y.taps * x.taps;
            }
        }
}

template <class T, class S>
inline void line(const DepthwiseNhwc<T, S>& f, const T* in, const int64_t* at, int64_t taps, const T* w, const Vec<T>* init,
                 S* out, int64_t hop, int64_t count, int64_t channels) {
    const Direct& d = f.d;
    constexpr int64_t B = kBlock<T>;
    const T floor = T(d.floor);
    int64_t k = 0;
    if (count >= kPixels) {
        for (; k + kPixels <= count; k += kPixels)
            pixels<T, S, kPixels>(in + k * B, at, taps, w, init, floor, out + k * hop, hop, channels);
        if (k < count) {  // once more over some: they come out the same
            k = count - kPixels;
            pixels<T, S, kPixels>(in + k * B, at, taps, w, init, floor, out + k * hop, hop, channels);
        }
        return;
    }
    for (; k + 3 <= count; k += 3) pixels<T, S, 3>(in + k * B, at, taps, w, init, floor, out + k * hop, hop, channels);
    for (; k < count; ++k) pixels<T, S, 1>(in + k * B, at, taps, w, init, floor, out + k * hop, hop, channels);
}

template <class T, class S>
inline void block(const DepthwiseNhwc<T, S>& f, const Band& b, int64_t c, int64_t channels, const T* staged, const int64_t* at,
                  T* packed, const S* weight, const S* bias, S* out) {
    const Direct& d = f.d;
    f.pack(channels, packed, weight);
    T start[kBlock<T>];
    for (int64_t k = 0; k < kBlock<T>; ++k) start[k] = bias && k < channels ? T(wide(bias[k])) : T(0);
    Vec<T> init[kWide];
    for (int v = 0; v < kWide; ++v) init[v] = load(start + v * kLanes<T>);
    int64_t ys = f.s.bands.pitch, zs = ys * f.s.bands.staged_y, hop = d.jump[2] * d.out[2];
    for (int64_t z = b.z0; z < b.z1; ++z)
        for (int64_t y = b.y0; y < b.y1; ++y) {
            const T* base = staged + (z - b.z0) * d.step[0] * zs + (y - b.y0) * d.step[1] * ys;
            S* row = out + b.n * d.out_n + c + (d.z.first + z * d.jump[0]) * d.out[0] + (d.y.first + y * d.jump[1]) * d.out[1];
            int64_t before = 0;
            for (int64_t l = 0; l < d.n_x; ++l) {
                const Line& x = d.x[l];
                int64_t taps = d.z.taps * d.y.taps * x.taps;
                line(f, base, at + before, taps, packed + before * kBlock<T>, init, row + x.first * d.out[2], hop, x.count,
                     channels);
                before += taps;
            }
        }
}

template <class T, class S>
inline void item(const DepthwiseNhwc<T, S>& f, int64_t part, int64_t c, int64_t channels, const S* in, const S* weight,
                 const S* bias, S* out, char* mine) {
    const Direct& d = f.d;
    Band b = band(d, f.s.bands, part);
    T* staged = reinterpret_cast<T*>(mine);
    T* packed = reinterpret_cast<T*>(mine + f.s.staged);
    int64_t* at = reinterpret_cast<int64_t*>(mine + f.s.staged + f.s.packed);
    if constexpr (Same<T, S>::value)
        if (f.s.in_place) return item_unstaged(f, b, c, channels, in, weight, bias, out, packed, at);
    stage_band<T, S>(d, f.s.bands, b, in + b.n * d.in_n + c, channels, kBlock<T>, f.s.block_stride, 0, staged);
    f.fill_offsets(at);
    for (int64_t k = 0; k < channels; k += kBlock<T>)
        block(f, b, c + k, min(kBlock<T>, channels - k), staged + k / kBlock<T> * f.s.block_stride, at, packed,
              weight + (c + k) * d.w_group, bias ? bias + c + k : nullptr, out);
}

}  // namespace
}  // namespace NINEFOLD_NS

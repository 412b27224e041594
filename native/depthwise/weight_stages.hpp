// Backward_weights: sums over outputs of gradient times input, kept per tap and channel.
//
//     total[block][tap][2 vectors] += grad[pixel][2 vectors] * input[pixel + tap][2 vectors]     up to kTaps taps in registers
//
//     sums -> add_taps -> add       out of a staged band
//     sums -> sums_unstaged         out of memory as it lies
#pragma once
#include "depthwise/depthwise_plan.hpp"

namespace NINEFOLD_NS {
namespace {

// Adds the rows of a band, row by row with all channels, so that memory is read in its order; the next row is asked for
// meanwhile.
template <class T, class S>
inline void sums_unstaged(const DepthwiseNhwc<T, S>& f, const Band& b, const T* in, const T* grad, int64_t channels, T* total,
                          int64_t* room) {
    const Direct& d = f.d;
    constexpr int64_t B = kBlock<T>;
    Taps taps{room, room + d.taps, room + 2 * d.taps, room + 3 * d.taps, 0},
        some{room + 4 * d.taps, room + 5 * d.taps, nullptr, nullptr, 0};
    const int64_t step = even_steps(d) * d.in[2], hop = d.jump[2] * d.out[2];
    for (int64_t z = b.z0; z < b.z1; ++z)
        for (int64_t y = b.y0; y < b.y1; ++y) {
            const T* row = grad + (d.z.first + z * d.jump[0]) * d.out[0] + (d.y.first + y * d.jump[1]) * d.out[1];
            int64_t before = 0;
            for (int64_t l = 0; l < d.n_x; ++l) {
                const Line& x = d.x[l];
                int64_t lo, hi, last = 0;
                find_taps(d, z, y, x, before, B, taps, &lo, &hi);
                for (int64_t t = 0; t < taps.count; ++t) last = max(last, taps.from[t]);
                const int64_t next = last + d.in[1] * d.step[1], grad_next = d.jump[1] * d.out[1];
                auto add = [&](int64_t k, int64_t count, const Taps& under) {
                    for (int64_t c = 0; c < channels; c += B) {
                        const int64_t own = min(B, channels - c);
                        const T *a = in + c + k * step, *up = row + (x.first * d.out[2] + k * hop) + c;
                        for (int64_t t = 0; t < under.count; t += kTaps) {
                            const int64_t n = min(kTaps, under.count - t);
                            (own == B ? row_sums_of<T, true> : row_sums_of<T, false>)(n, a, step, under.from + t,
                                                                                      under.weight + t, up, hop, count, own, next,
                                                                                      grad_next, total + c * d.taps);
                        }
                    }
                };
                for (int64_t k = lo ? 0 : hi; k < x.count; k = k + 1 == lo ? hi : k + 1) {
                    taps.under(k, some);
                    add(k, 1, some);
                }
                if (lo < hi) add(lo, hi - lo, taps);
                before += d.z.taps * d.y.taps * x.taps;
            }
        }
}

template <int N, class T, class S>
inline void add(const DepthwiseNhwc<T, S>& f, const Band& b, const Line& x, const T* staged, const int64_t* at, const S* grad,
                int64_t channels, T* total, T* spare) {
    const Direct& d = f.d;
    int64_t ys = f.s.bands.pitch, zs = ys * f.s.bands.staged_y, hop = d.jump[2] * d.out[2];
    Vec<T> acc[N][kWide];
    for (int n = 0; n < N; ++n)
        for (int v = 0; v < kWide; ++v) acc[n][v] = broadcast(T(0));
    for (int64_t z = b.z0; z < b.z1; ++z)
        for (int64_t y = b.y0; y < b.y1; ++y) {
            const T* base = staged + (z - b.z0) * d.step[0] * zs + (y - b.y0) * d.step[1] * ys;
            const S* row =
                grad + (d.z.first + z * d.jump[0]) * d.out[0] + (d.y.first + y * d.jump[1]) * d.out[1] + x.first * d.out[2];
            if constexpr (Same<T, S>::value) {
                if (channels == kBlock<T>) {
                    row_sums<T, N>(base, at, row, hop, x.count, acc);
                    continue;
                }
            }
            for (int64_t k = 0; k < x.count; ++k)
                for (int64_t c = 0; c < kBlock<T>; ++c)
                    spare[k * kBlock<T> + c] = c < channels ? T(wide(row[k * hop + c])) : T(0);
            row_sums<T, N>(base, at, spare, kBlock<T>, x.count, acc);
        }
    for (int n = 0; n < N; ++n)
        for (int v = 0; v < kWide; ++v) {
            T* sum = total + n * kBlock<T> + v * kLanes<T>;
            store(sum, load(sum) + acc[n][v]);  // band by band: errors grow with the root of the bands
        }
}

template <class T, class S>
inline void add_taps(const DepthwiseNhwc<T, S>& f, const Band& b, const Line& x, const T* staged, const int64_t* at, int64_t n,
                     const S* grad, int64_t channels, T* total, T* spare) {
    switch (n) {
        case 1: return add<1>(f, b, x, staged, at, grad, channels, total, spare);
        case 2: return add<2>(f, b, x, staged, at, grad, channels, total, spare);
        case 3: return add<3>(f, b, x, staged, at, grad, channels, total, spare);
        case 4: return add<4>(f, b, x, staged, at, grad, channels, total, spare);
        case 5: return add<5>(f, b, x, staged, at, grad, channels, total, spare);
        case 6: return add<6>(f, b, x, staged, at, grad, channels, total, spare);
        case 7: return add<kTaps == 8 ? 7 : 1>(f, b, x, staged, at, grad, channels, total, spare);
        default: return add<kTaps>(f, b, x, staged, at, grad, channels, total, spare);
    }
}

template <class T, class S>
inline void sums(const DepthwiseNhwc<T, S>& f, int64_t from, int64_t until, int64_t c, int64_t channels, const S* in,
                 const S* grad, S* weight, T* partial, char* mine) {
    const Direct& d = f.d;
    T* staged = reinterpret_cast<T*>(mine);
    T* total = reinterpret_cast<T*>(mine + f.s.staged);
    int64_t* at = reinterpret_cast<int64_t*>(mine + f.s.staged + f.s.packed);
    T* spare = reinterpret_cast<T*>(mine + f.s.staged + f.s.packed + f.s.offsets);
    if (!f.s.in_place) f.fill_offsets(at);
    int64_t blocks = ceil_div(channels, kBlock<T>), each = d.taps * kBlock<T>;
    for (int64_t k = 0; k < each * blocks; ++k) total[k] = 0;
    for (int64_t part = from; part < until; ++part) {
        Band b = band(d, f.s.bands, part);
        if constexpr (Same<T, S>::value)
            if (f.s.in_place) {
                sums_unstaged(f, b, in + b.n * d.in_n + c, grad + b.n * d.out_n + c, channels, total, at);
                continue;
            }
        stage_band<T, S>(d, f.s.bands, b, in + b.n * d.in_n + c, channels, kBlock<T>, f.s.block_stride, 0, staged);
        int64_t before = 0;
        for (int64_t l = 0; l < d.n_x; ++l) {
            int64_t taps = d.z.taps * d.y.taps * d.x[l].taps;
            for (int64_t k = 0; k < blocks; ++k)
                for (int64_t t = 0; t < taps; t += kTaps)
                    add_taps(f, b, d.x[l], staged + k * f.s.block_stride, at + before + t, min(kTaps, taps - t),
                             grad + b.n * d.out_n + c + k * kBlock<T>, min(kBlock<T>, channels - k * kBlock<T>),
                             total + k * each + (before + t) * kBlock<T>, spare);
            before += taps;
        }
    }
    for (int64_t t = 0; t < d.taps; ++t)
        for (int64_t k = 0, where = place(d, t); k < channels; ++k) {
            T sum = total[k / kBlock<T> * each + t * kBlock<T> + k % kBlock<T>];
            if (partial) partial[(c + k) * d.taps + t] = sum;
            else narrow(sum, weight + (c + k) * d.w_group + where);
        }
}

}  // namespace
}  // namespace NINEFOLD_NS

// The inner loops over pixels whose channels are neighbours: a few pixels of a block of channels, in registers.
#pragma once
#include "common/nhwc_bands.hpp"

namespace NINEFOLD_NS {
namespace {

constexpr int kPixels = kRegisters == 32 ? 8 : 6, kWide = 2, kTaps = kRegisters == 32 ? 8 : 6;

template <class T> constexpr int64_t kBlock = kWide * kLanes<T>;

// A run that a tap of a line reads for some of its outputs, the others being zeros, and how many such runs there are.
NINEFOLD_INLINE const Run* run_of(const Direct& d, const Line& x, int64_t tap, int64_t* count) {
    const Run* found = nullptr;
    *count = 0;
    for (int64_t r = 0; r < d.n_runs; ++r) {
        const Run& run = d.runs[r];
        if (run.from < 0 || run.to >= x.at[tap] + x.count || run.to + run.count <= x.at[tap]) continue;
        found = &run;
        ++*count;
    }
    return found;
}

// Pixels between what neighbouring outputs read, if every tap has the same number and none reads two runs; else 0.
NINEFOLD_INLINE int64_t even_steps(const Direct& d) {
    const Run* first = nullptr;
    int64_t count;
    for (int64_t l = 0; l < d.n_x; ++l)
        for (int64_t t = 0; t < d.x[l].taps; ++t) {
            const Run* run = run_of(d, d.x[l], t, &count);
            if (count > 1) return 0;
            if (!run || run->count == 1) continue;
            if (!first) first = run;
            if (run->step != first->step) return 0;  // a border that repeats one pixel has a step of 0
        }
    return first ? first->step : 0;
}

template <class T, int P>
NINEFOLD_INLINE void pixels_core(const T* in, const int64_t* at, int64_t taps, const T* w, const Vec<T>* init,
                                 Vec<T> (&acc)[P][kWide]) {
    constexpr int64_t B = kBlock<T>;
    for (int p = 0; p < P; ++p)
        for (int v = 0; v < kWide; ++v) acc[p][v] = init[v];
    for (int64_t t = 0; t < taps; ++t, w += B) {
        const T* row = in + at[t];
        Vec<T> k[kWide];
        for (int v = 0; v < kWide; ++v) k[v] = load(w + v * kLanes<T>);
        for (int p = 0; p < P; ++p)
            for (int v = 0; v < kWide; ++v) acc[p][v] += k[v] * load(row + p * B + v * kLanes<T>);
    }
}

template <class T, class S, int P> NINEFOLD_INLINE void write(const Vec<T> (&acc)[P][kWide], T floor, S* out, int64_t hop,
                                                              int64_t channels) {
    const Vec<T> lowest = broadcast(floor);
    for (int p = 0; p < P; ++p, out += hop)
        for (int v = 0; v < kWide; ++v) {
            const Vec<T> result = larger(acc[p][v], lowest);
            int64_t left = channels - v * kLanes<T>;
            if constexpr (Same<T, S>::value) {
                if (left >= kLanes<T>) {
                    store(out + v * kLanes<T>, result);
                    continue;
                }
            }
            T part[kLanes<T>];
            store(part, result);
            for (int64_t c = 0; c < min(left, kLanes<T>); ++c) narrow(part[c], out + v * kLanes<T> + c);
        }
}

template <class T, class S, int P>
void pixels(const T* in, const int64_t* at, int64_t taps, const T* w, const Vec<T>* init, T floor, S* out, int64_t hop,
            int64_t channels) {
    Vec<T> acc[P][kWide];
    pixels_core<T, P>(in, at, taps, w, init, acc);
    write<T, S, P>(acc, floor, out, hop, channels);
}

// Taps that are read where they lie: from where, with which weight, by which outputs.
struct Taps {
    int64_t *from, *weight, *lo, *hi, count;

    // Those that output k reads, without their ranges.
    NINEFOLD_INLINE void under(int64_t k, Taps& some) const {
        some.count = 0;
        for (int64_t t = 0; t < count; ++t)
            if (k >= lo[t] && k < hi[t]) {
                some.from[some.count] = from[t];
                some.weight[some.count++] = weight[t];
            }
    }
};

// The taps of a line that read something for outputs (z, y), those between which all of them do: [lo, hi). Taps of the lines
// before are `before`; kernels lie in blocks of `unit` elements per tap.
NINEFOLD_INLINE void find_taps(const Direct& d, int64_t z, int64_t y, const Line& x, int64_t before, int64_t unit, Taps& taps,
                               int64_t* lo, int64_t* hi) {
    const int64_t step = even_steps(d);
    taps.count = 0;
    for (int64_t i = 0; i < d.z.taps; ++i)
        for (int64_t j = 0; j < d.y.taps; ++j) {
            int64_t from_z = d.source[0][z * d.step[0] + d.z.at[i]], from_y = d.source[1][y * d.step[1] + d.y.at[j]];
            if (from_z < 0 || from_y < 0) continue;
            for (int64_t k = 0; k < x.taps; ++k) {
                int64_t runs;
                const Run* run = run_of(d, x, k, &runs);
                if (!run) continue;
                const int64_t n = taps.count++, ahead = run->to - x.at[k];
                taps.from[n] = from_z * d.in[0] + from_y * d.in[1] + (run->from - ahead * step) * d.in[2];
                taps.weight[n] = (before + (i * d.y.taps + j) * x.taps + k) * unit;
                taps.lo[n] = ahead;
                taps.hi[n] = ahead + run->count;
            }
        }
    *lo = 0, *hi = x.count;
    for (int64_t t = 0; t < taps.count; ++t) *lo = max(*lo, taps.lo[t]), *hi = min(*hi, taps.hi[t]);
    *lo = min(*lo, x.count), *hi = max(*lo, *hi);
}

// P pixels of one block of channels, `in_hop` apart in the input itself; the last block may be in part.
template <class T, int P, bool Whole>
void pixels_unstaged(const T* in, int64_t in_hop, const Taps& taps, const T* packed, const T* start, T floor, T* out, int64_t hop,
                     int64_t channels) {
    Vec<T> acc[P][kWide];
    for (int p = 0; p < P; ++p)
        for (int v = 0; v < kWide; ++v) acc[p][v] = load(start + v * kLanes<T>);
    for (int64_t t = 0; t < taps.count; ++t) {
        const T *row = in + taps.from[t], *w = packed + taps.weight[t];
        Vec<T> k[kWide];
        for (int v = 0; v < kWide; ++v) k[v] = load(w + v * kLanes<T>);
        for (int p = 0; p < P; ++p)
            for (int v = 0; v < kWide; ++v) {
                const T* q = row + p * in_hop + v * kLanes<T>;
                if constexpr (Whole) acc[p][v] += k[v] * load(q);
                else acc[p][v] += k[v] * load_first(q, max(0, min(kLanes<T>, channels - v * kLanes<T>)));
            }
    }
    write<T, T, P>(acc, floor, out, hop, channels);
}

// Sums over one row of outputs of gradient times input, for up to kTaps taps.
template <class T, int N>
NINEFOLD_INLINE void row_sums(const T* in, const int64_t* at, const T* grad, int64_t grad_hop, int64_t count,
                              Vec<T> (&acc)[N][kWide]) {
    constexpr int64_t B = kBlock<T>;
    int64_t off[N];
    for (int n = 0; n < N; ++n) off[n] = at[n];
    for (int64_t k = 0; k < count; ++k, in += B, grad += grad_hop) {
        Vec<T> g[kWide];
        for (int v = 0; v < kWide; ++v) g[v] = load(grad + v * kLanes<T>);
        for (int n = 0; n < N; ++n)
            for (int v = 0; v < kWide; ++v) acc[n][v] += g[v] * load(in + off[n] + v * kLanes<T>);
    }
}

// The same where pixels lie, `hop` apart in the input: the sums of N taps, at `to` + weight[n], go on from what they are. `next`
// and `grad_next` are what the following row reads, from here on.
template <class T, int N, bool Whole>
void row_sums_unstaged(const T* in, int64_t hop, const int64_t* from, const int64_t* weight, const T* grad, int64_t grad_hop,
                       int64_t count, int64_t channels, int64_t next, int64_t grad_next, T* to) {
    Vec<T> acc[N][kWide];
    for (int n = 0; n < N; ++n)
        for (int v = 0; v < kWide; ++v) acc[n][v] = load(to + weight[n] + v * kLanes<T>);
    auto take = [&](const T* p, int v) __attribute__((always_inline)) {
        if constexpr (Whole) return load(p + v * kLanes<T>);
        else return load_first(p + v * kLanes<T>, max(0, min(kLanes<T>, channels - v * kLanes<T>)));
    };
    for (int64_t k = 0; k < count; ++k, in += hop, grad += grad_hop) {
        __builtin_prefetch(in + next);
        __builtin_prefetch(grad + grad_next);
        Vec<T> g[kWide];
        for (int v = 0; v < kWide; ++v) g[v] = take(grad, v);
        for (int n = 0; n < N; ++n)
            for (int v = 0; v < kWide; ++v) acc[n][v] += g[v] * take(in + from[n], v);
    }
    for (int n = 0; n < N; ++n)
        for (int v = 0; v < kWide; ++v) store(to + weight[n] + v * kLanes<T>, acc[n][v]);
}

template <class T, bool Whole, int N = kTaps>
void row_sums_of(int64_t n, const T* in, int64_t hop, const int64_t* from, const int64_t* weight, const T* grad, int64_t grad_hop,
                 int64_t count, int64_t channels, int64_t next, int64_t grad_next, T* to) {
    if constexpr (N > 1)
        if (n < N)
            return row_sums_of<T, Whole, N - 1>(n, in, hop, from, weight, grad, grad_hop, count, channels, next, grad_next, to);
    row_sums_unstaged<T, N, Whole>(in, hop, from, weight, grad, grad_hop, count, channels, next, grad_next, to);
}

}  // namespace
}  // namespace NINEFOLD_NS

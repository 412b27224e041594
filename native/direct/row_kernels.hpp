// The inner loops of direct summation: a block of outputs, in registers, out of staged rows.
#pragma once
#include "common/staging.hpp"

namespace NINEFOLD_NS {
namespace {

// Vectors along x at once under R rows or outputs: twelve accumulators hide the latency of multiply-add on every processor.
template <int R> constexpr int kMost = R == 1 ? 6 : 12 / R;
#if defined(__SSE2__) && !defined(__AVX2__)
constexpr bool kWritten = false;  // processors of before 2013: the general loops do
#else
constexpr bool kWritten = true;
#endif

// One row of inputs against the output rows LO to HI: kernel row u - q * ks for output row q.
template <class T, int R, int C, int LO, int HI>
NINEFOLD_INLINE void row_taps(Vec<T> (&acc)[R][C], const T* row, const T* w, int64_t hop, int64_t kx, const int64_t* tx,
                              int64_t last) {
    // `w` points at the kernel row of output row LO; that of LO + 1 lies `hop` elements before it
    for (int64_t k = 0; k < kx; ++k) {
        const T* p = row + tx[k];
        const T* wk = w + k;
        if constexpr (C <= HI - LO + 1) {
            Vec<T> v[C];
            for (int c = 0; c < C; ++c) v[c] = load(p + (c < C - 1 ? c * kLanes<T> : last));
            for (int q = LO; q <= HI; ++q) {
                Vec<T> b = broadcast(wk[-(q - LO) * hop]);
                for (int c = 0; c < C; ++c) acc[q][c] += b * v[c];
            }
        } else {
            Vec<T> b[HI - LO + 1];
            for (int q = LO; q <= HI; ++q) b[q - LO] = broadcast(wk[-(q - LO) * hop]);
            for (int c = 0; c < C; ++c) {
                Vec<T> v = load(p + (c < C - 1 ? c * kLanes<T> : last));
                for (int q = LO; q <= HI; ++q) acc[q][c] += b[q - LO] * v;
            }
        }
    }
}

template <class T> struct Rows {
    const T* in;             // staged, at the first output row and the first output of the chunk
    const int64_t* channel;  // where each input channel begins
    int64_t zs;              // step between planes
    int64_t us, ks;          // step between rows of taps; tap rows between neighbouring output rows
    int64_t ins, kz, ky, kx;
    const int64_t *tz, *tx;
    const T* w;
    int64_t last;  // where the last vector of the chunk starts
    T init, floor;
    int64_t square;  // K of a K x K kernel with its taps side by side and rows one apart, or 0
};

template <class T, int R, int C>
void rows_core(const Rows<T>& a, T* out, int64_t out_row, int64_t tail) {
    Vec<T> acc[R][C];
    for (int q = 0; q < R; ++q)
        for (int c = 0; c < C; ++c) acc[q][c] = broadcast(a.init);
    const int64_t kx = a.kx, last = a.last, ks = a.ks, ky = a.ky, us = a.us;
    const int64_t* tx = a.tx;
    const T* w = a.w;
    for (int64_t i = 0; i < a.ins; ++i) {
        for (int64_t z = 0; z < a.kz; ++z, w += ky * kx) {
            const T* row = a.in + a.channel[i] + a.tz[z] * a.zs;
            for (int64_t u = 0; u < ky + (R - 1) * ks; ++u, row += us) {
                int64_t hi = min(R - 1, ks == 1 ? u : u / ks);
                int64_t lo = u < ky ? 0 : (ks == 1 ? u - ky : (u - ky) / ks) + 1;
                if (lo > hi) continue;
                const T* wu = w + (u - lo * ks) * kx;
#define NINEFOLD_ROWS(LO, HI)                                                                 \
    case LO * 4 + HI:                                                                         \
        if constexpr (HI < R) row_taps<T, R, C, LO, HI>(acc, row, wu, ks * kx, kx, tx, last); \
        break;
                switch (lo * 4 + hi) {
                    NINEFOLD_ROWS(0, 0)
                    NINEFOLD_ROWS(0, 1)
                    NINEFOLD_ROWS(0, 2)
                    NINEFOLD_ROWS(0, 3)
                    NINEFOLD_ROWS(1, 1)
                    NINEFOLD_ROWS(1, 2)
                    NINEFOLD_ROWS(1, 3)
                    NINEFOLD_ROWS(2, 2)
                    NINEFOLD_ROWS(2, 3)
                    NINEFOLD_ROWS(3, 3)
                }
#undef NINEFOLD_ROWS
            }
        }
    }
    store_block<T>(acc, a.floor, out, out_row, last, tail);
}

// The same for small square kernels without dilation, written out: no loop over taps is left.
template <class T, int R, int C, int K> void square_core(const Rows<T>& a, T* out, int64_t out_row, int64_t tail) {
    Vec<T> acc[R][C];
    for (int q = 0; q < R; ++q)
        for (int c = 0; c < C; ++c) acc[q][c] = broadcast(a.init);
    const int64_t last = a.last;
    const T* w = a.w;
    for (int64_t i = 0; i < a.ins; ++i)
        for (int64_t z = 0; z < a.kz; ++z, w += K * K) {
            const T* row = a.in + a.channel[i] + a.tz[z] * a.zs;
#pragma GCC unroll 16
            for (int u = 0; u < K + R - 1; ++u, row += a.us)
#pragma GCC unroll 8
                for (int k = 0; k < K; ++k) {
                    Vec<T> v[C];
#pragma GCC unroll 8
                    for (int c = 0; c < C; ++c) v[c] = load(row + k + (c < C - 1 ? c * kLanes<T> : last));
#pragma GCC unroll 4
                    for (int q = 0; q < R; ++q) {
                        if (u - q < 0 || u - q >= K) continue;
                        Vec<T> b = broadcast(w[(u - q) * K + k]);
#pragma GCC unroll 8
                        for (int c = 0; c < C; ++c) acc[q][c] += b * v[c];
                    }
                }
        }
    store_block<T>(acc, a.floor, out, out_row, last, tail);
}

template <class T> struct Outs {
    const T* in;
    int64_t is, ins, taps;
    const int64_t* at;  // offsets of the taps from `in`
    const T* w;         // [ins][taps][Q]
    const T* init;      // per output
    T floor;
    int64_t last;
};

template <class T, int Q, int C>
void outs_core(const Outs<T>& a, T* out, int64_t out_step, int64_t tail) {
    Vec<T> acc[Q][C];
    for (int q = 0; q < Q; ++q)
        for (int c = 0; c < C; ++c) acc[q][c] = broadcast(a.init[q]);
    const T* w = a.w;
    const int64_t last = a.last;
    for (int64_t i = 0; i < a.ins; ++i) {
        const T* in = a.in + i * a.is;
        for (int64_t t = 0; t < a.taps; ++t, w += Q) {
            const T* p = in + a.at[t];
            if constexpr (C <= Q) {
                Vec<T> v[C];
                for (int c = 0; c < C; ++c) v[c] = load(p + (c < C - 1 ? c * kLanes<T> : last));
                for (int q = 0; q < Q; ++q) {
                    Vec<T> b = broadcast(w[q]);
                    for (int c = 0; c < C; ++c) acc[q][c] += b * v[c];
                }
            } else {
                Vec<T> b[Q];
                for (int q = 0; q < Q; ++q) b[q] = broadcast(w[q]);
                for (int c = 0; c < C; ++c) {
                    Vec<T> v = load(p + (c < C - 1 ? c * kLanes<T> : last));
                    for (int q = 0; q < Q; ++q) acc[q][c] += b[q] * v;
                }
            }
        }
    }
    store_block<T>(acc, a.floor, out, out_step, last, tail);
}

template <class T, int R> void rows_by_width(int64_t c, const Rows<T>& a, T* out, int64_t out_row, int64_t tail) {
#define NINEFOLD_C(C)                                                                     \
    case C:                                                                               \
        if constexpr (C <= kMost<R>) {                                                    \
            if constexpr (kWritten && C <= 3 && R > 1) {                                  \
                if (a.square == 3) return square_core<T, R, C, 3>(a, out, out_row, tail); \
                if (a.square == 5) return square_core<T, R, C, 5>(a, out, out_row, tail); \
            }                                                                             \
            rows_core<T, R, C>(a, out, out_row, tail);                                    \
        }                                                                                 \
        break;
    switch (c) {
        NINEFOLD_C(1)
        NINEFOLD_C(2)
        NINEFOLD_C(3)
        NINEFOLD_C(4)
        NINEFOLD_C(5)
        NINEFOLD_C(6)
    }
}

template <class T, int Q> void outs_by_width(int64_t c, const Outs<T>& a, T* out, int64_t out_step, int64_t tail) {
    switch (c) {
#undef NINEFOLD_C
#define NINEFOLD_C(C)                                                            \
    case C:                                                                      \
        if constexpr (C <= kMost<Q>) outs_core<T, Q, C>(a, out, out_step, tail); \
        break;
        NINEFOLD_C(1)
        NINEFOLD_C(2)
        NINEFOLD_C(3)
        NINEFOLD_C(4)
        NINEFOLD_C(5)
        NINEFOLD_C(6)
#undef NINEFOLD_C
    }
}

template <class T> void rows(int64_t r, int64_t c, const Rows<T>& a, T* out, int64_t out_row, int64_t tail) {
    switch (r) {
        case 1: return rows_by_width<T, 1>(c, a, out, out_row, tail);
        case 2: return rows_by_width<T, 2>(c, a, out, out_row, tail);
        case 3: return rows_by_width<T, 3>(c, a, out, out_row, tail);
        default: return rows_by_width<T, 4>(c, a, out, out_row, tail);
    }
}

template <class T> void outs(int64_t q, int64_t c, const Outs<T>& a, T* out, int64_t out_step, int64_t tail) {
    switch (q) {
        case 1: return outs_by_width<T, 1>(c, a, out, out_step, tail);
        case 2: return outs_by_width<T, 2>(c, a, out, out_step, tail);
        case 3: return outs_by_width<T, 3>(c, a, out, out_step, tail);
        default: return outs_by_width<T, 4>(c, a, out, out_step, tail);
    }
}

constexpr int64_t widest(int64_t r) { return r == 1 ? kMost<1> : r == 2 ? kMost<2> : r == 3 ? kMost<3> : kMost<4>; }

// Writes a[0], b[0], a[1], b[1], ...; there are as many of `b`, or one fewer.
template <class T> NINEFOLD_INLINE void zip(const T* a, const T* b, T* to, int64_t n_a, int64_t n_b) {
    typedef typename VecOf<T>::word Word;
    Word low[kLanes<T>], high[kLanes<T>];
    for (int k = 0; k < kLanes<T>; ++k) {
        low[k] = Word(k / 2 + k % 2 * kLanes<T>);
        high[k] = Word(low[k] + kLanes<T> / 2);
    }
    Mask<T> lower, upper;
    __builtin_memcpy(&lower, low, kBytes);
    __builtin_memcpy(&upper, high, kBytes);
    int64_t k = 0;
    for (; k + kLanes<T> <= n_b; k += kLanes<T>) {
        Vec<T> x = load(a + k), y = load(b + k);
        store(to + 2 * k, Vec<T>(__builtin_shuffle(x, y, lower)));
        store(to + 2 * k + kLanes<T>, Vec<T>(__builtin_shuffle(x, y, upper)));
    }
    for (; k < n_a; ++k) {
        to[2 * k] = a[k];
        if (k < n_b) to[2 * k + 1] = b[k];
    }
}

}  // namespace
}  // namespace NINEFOLD_NS

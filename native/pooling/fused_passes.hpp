// Rows of one plane without any in-between in memory: the join along y of a few vectors stays in registers and is shifted along x
// there. For one or two rows of outputs, steps of 1 or 2 along x, and few taps, in
// vectors of at least 4 lanes.
#pragma once
#include "pooling/rows.hpp"

namespace NINEFOLD_NS {

// Elements M, M + 1, ... of a followed by b.
template <int M, class T> NINEFOLD_INLINE Vec<T> moved(Vec<T> a, Vec<T> b) {
    constexpr int L = kLanes<T>;
    if constexpr (M == 0) return a;
    else if constexpr (M == L) return b;
    else if constexpr (L == 2) return __builtin_shuffle(a, b, Mask<T>{M, M + 1});
    else if constexpr (L == 4) return __builtin_shuffle(a, b, Mask<T>{M, M + 1, M + 2, M + 3});
    else if constexpr (L == 8) return __builtin_shuffle(a, b, Mask<T>{M, M + 1, M + 2, M + 3, M + 4, M + 5, M + 6, M + 7});
    else
        return __builtin_shuffle(a, b,
                                 Mask<T>{M, M + 1, M + 2, M + 3, M + 4, M + 5, M + 6, M + 7, M + 8, M + 9, M + 10, M + 11, M + 12,
                                         M + 13, M + 14, M + 15});
}

template <class Op, int K, int M, class T> NINEFOLD_INLINE Vec<T> join_moved(Vec<T> sum, Vec<T> a, Vec<T> b) {
    if constexpr (M < K) return join_moved<Op, K, M + 1, T>(Op::template join<T>(sum, moved<M, T>(a, b)), a, b);
    else return sum;
}

template <class T> NINEFOLD_INLINE Mask<T> lane_numbers() {
    typedef typename VecOf<T>::word Word;
    static constexpr Word order[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    Mask<T> m;
    __builtin_memcpy(&m, order, kBytes);
    return m;
}

// R rows of outputs whose windows have `count` rows each (C of them, or any number if that is 0): output i reads rows[i] to
// rows[i + count - 1], of `inside` elements, at least a vector, which stand behind `pad` of nothing, less than one. K taps along
// x, with a step of 1 or 2 between n outputs.
template <class Op, int R, int C, int Step, int K, class T> struct Fused {
    static constexpr int L = kLanes<T>;
    static constexpr int kept = C ? C + R - 1 : 1;
    typedef typename VecOf<T>::word Word;
    const T* const* rows;
    int64_t count, inside, pad;
    const T* row[kept];

    NINEFOLD_INLINE void down(int64_t v, Vec<T>* out) const {
        if constexpr (C == 0 && R > 1) {
            slide_at<Op, Before::none, R, T>(rows, count, v, out);
        } else if constexpr (C == 0) {
            Vec<T> sum = load(rows[0] + v);
            for (int64_t m = 1; m < count; ++m) sum = Op::template join<T>(sum, load(rows[m] + v));
            out[0] = sum;
        } else if constexpr (R == 2 && C > 1) {
            Vec<T> shared = load(row[1] + v);
            for (int m = 2; m < C; ++m) shared = Op::template join<T>(shared, load(row[m] + v));
            out[0] = Op::template join<T>(load(row[0] + v), shared);
            out[1] = Op::template join<T>(shared, load(row[C] + v));
        } else {
            for (int i = 0; i < R; ++i) {
                out[i] = load(row[i] + v);
                for (int m = 1; m < C; ++m) out[i] = Op::template join<T>(out[i], load(row[i + m] + v));
            }
        }
    }

    // The same for any elements of the padded rows: what lies inside is read and moved to its place.
    void edge(int64_t at, Vec<T>* out) const {
        const int64_t from = at - pad;
        const Vec<T> none = broadcast<T>(nothing<Op, T>());
        for (int i = 0; i < R; ++i) out[i] = none;
        if (from <= -L || from >= inside) return;
        const int64_t there = from < 0 ? 0 : min(from, inside - L);
        down(there, out);
        const Mask<T> place = lane_numbers<T>(), back = (place + Word(from - there)) & Word(L - 1);
        const Mask<T> valid = (place >= Word(-from)) & (place < Word(min(L, inside - from)));
        for (int i = 0; i < R; ++i) out[i] = valid ? __builtin_shuffle(out[i], back) : none;
    }

    NINEFOLD_INLINE void run(int64_t n, T* const* to) const {
        if constexpr (Step == 1) ones(n, to);
        else if constexpr (K <= 2) pairs(n, to);
        else twos(n, to);
    }

    NINEFOLD_INLINE void ones(int64_t n, T* const* to) const {
        Vec<T> a[R], b[R];
        edge(0, a);
        const int64_t easy = min(n - L, inside - 2 * L + pad);  // as far as the next vector lies inside
        int64_t o = 0;
        for (; o <= easy; o += L) {
            down(o + L - pad, b);
            for (int i = 0; i < R; ++i) store(to[i] + o, join_moved<Op, K, 1, T>(a[i], a[i], b[i])), a[i] = b[i];
        }
        for (; o < n; o += L) {
            edge(o + L, b);
            for (int i = 0; i < R; ++i) put(to[i] + o, n - o, join_moved<Op, K, 1, T>(a[i], a[i], b[i])), a[i] = b[i];
        }
    }

    NINEFOLD_INLINE void pairs(int64_t n, T* const* to) const {
        Vec<T> a[R], b[R];
        auto both = [&](int i) {
            return K == 1 ? evens<T>(a[i], b[i]) : Op::template join<T>(evens<T>(a[i], b[i]), odds<T>(a[i], b[i]));
        };
        int64_t o = 0;
        if (pad == 0)
            for (const int64_t easy = min(n - L, (inside - 2 * L) / 2); o <= easy && inside >= 2 * L; o += L) {
                down(2 * o, a), down(2 * o + L, b);
                for (int i = 0; i < R; ++i) store(to[i] + o, both(i));
            }
        for (; o < n; o += L) {
            edge(2 * o, a), edge(2 * o + L, b);
            for (int i = 0; i < R; ++i) put(to[i] + o, n - o, both(i));
        }
    }

    NINEFOLD_INLINE void twos(int64_t n, T* const* to) const {
        Vec<T> a[R], b[R], even[R], odd[R];
        edge(0, a), edge(L, b);
        for (int i = 0; i < R; ++i) even[i] = evens<T>(a[i], b[i]), odd[i] = odds<T>(a[i], b[i]);
        auto next = [&](int i) {
            const Vec<T> e = evens<T>(a[i], b[i]), u = odds<T>(a[i], b[i]);
            const Vec<T> sum = join_moved<Op, (K + 1) / 2, 1, T>(Op::template join<T>(even[i], odd[i]), even[i], e);
            even[i] = e, odd[i] = u;
            return sum;
        };
        const int64_t easy = inside - 4 * L + pad;  // as far as the next two vectors lie inside
        int64_t o = 0;
        for (; o + L <= n && 2 * o <= easy; o += L) {
            down(2 * o + 2 * L - pad, a), down(2 * o + 3 * L - pad, b);
            for (int i = 0; i < R; ++i) store(to[i] + o, next(i));
        }
        for (; o < n; o += L) {
            edge(2 * o + 2 * L, a), edge(2 * o + 3 * L, b);
            for (int i = 0; i < R; ++i) put(to[i] + o, n - o, next(i));
        }
    }

    static NINEFOLD_INLINE void put(T* to, int64_t rest, Vec<T> v) {
        if (rest >= L) store(to, v);
        else write_first(to, v, rest);
    }
};

NINEFOLD_INLINE bool can_fuse(const PoolAxis& x) {
    return x.dilation == 1 && (x.kernel == 2 || x.kernel == 3 || (x.kernel == 5 && x.stride == 1)) && x.stride <= 2;
}

template <class Op, int R, int C, int Step, int K, class T>
void fused_one(const T* const* rows, int64_t count, int64_t inside, int64_t pad, int64_t n, T* const* to) {
    Fused<Op, R, C, Step, K, T> fused{rows, count, inside, pad, {}};
    for (int k = 0; k < fused.kept; ++k) fused.row[k] = rows[k];
    fused.run(n, to);
}

template <class Op, int R, int C, class T>
void fused_taps(const PoolAxis& x, const T* const* rows, int64_t count, int64_t inside, int64_t pad, int64_t n, T* const* to) {
    if (x.stride == 2) {
        if (x.kernel == 2) return fused_one<Op, R, C, 2, 2, T>(rows, count, inside, pad, n, to);
        return fused_one<Op, R, C, 2, 3, T>(rows, count, inside, pad, n, to);
    }
    if (x.kernel == 2) return fused_one<Op, R, C, 1, 2, T>(rows, count, inside, pad, n, to);
    if (x.kernel == 3) return fused_one<Op, R, C, 1, 3, T>(rows, count, inside, pad, n, to);
    return fused_one<Op, R, C, 1, 5, T>(rows, count, inside, pad, n, to);
}

template <class Op, int R, class T>
void fused_rows(const PoolAxis& x, const T* const* rows, int64_t count, int64_t inside, int64_t pad, int64_t n, T* const* to) {
    if constexpr (R == 1)
        if (count == 2) return fused_taps<Op, R, 2, T>(x, rows, count, inside, pad, n, to);
    if (count == 3) return fused_taps<Op, R, 3, T>(x, rows, count, inside, pad, n, to);
    return fused_taps<Op, R, 0, T>(x, rows, count, inside, pad, n, to);
}

}  // namespace NINEFOLD_NS

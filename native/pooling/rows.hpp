// Joining rows of memory element by element: what poolings along all axes but one are made of, and that one, too, for a row that
// is read at several shifts.
#pragma once
#include "common/simd.hpp"
#include "pooling/pool.hpp"

namespace NINEFOLD_NS {

constexpr int64_t kMostShared = 8;  // rows of outputs that are made at once

// The larger of two, the first of equal ones; where nothing is NaN.
struct Larger {
    static constexpr bool largest = true, nan = false;
    template <class T> static NINEFOLD_INLINE Vec<T> join(Vec<T> a, Vec<T> b) { return larger(a, b); }
};
// The same with NaN, which is larger than all.
struct LargerOrNaN {
    static constexpr bool largest = true, nan = true;
    template <class T> static NINEFOLD_INLINE Vec<T> join(Vec<T> a, Vec<T> b) { return ((b > a) | (b != b)) ? b : a; }
};
struct Plus {
    static constexpr bool largest = false, nan = false;
    template <class T> static NINEFOLD_INLINE Vec<T> join(Vec<T> a, Vec<T> b) { return a + b; }
};

template <class Op, class T> constexpr T nothing() { return Op::largest ? -T(__builtin_inf()) : T(0); }

// What elements are computed in.
template <class S> struct WideOf {
    typedef S type;
};
template <> struct WideOf<BFloat16> {
    typedef float type;
};
template <class S> using Wide = typename WideOf<S>::type;

template <Before B, class T> NINEFOLD_INLINE Vec<T> prepared(Vec<T> v) {
    if constexpr (B == Before::none) return v;
    if constexpr (B == Before::square) return v * v;
    return v < T(0) ? -v : v;
}

template <class T> NINEFOLD_INLINE Vec<T> read(const T* p) { return load(p); }
NINEFOLD_INLINE Vec<float> read(const BFloat16* p) {
    typedef uint16_t Half __attribute__((vector_size(kBytes / 2)));
    typedef uint32_t Word __attribute__((vector_size(kBytes)));
    Half half;
    __builtin_memcpy(&half, p, kBytes / 2);
    return Vec<float>(__builtin_convertvector(half, Word) << 16);
}

// The first n elements, n below the lanes; nothing behind them is read.
template <class S> NINEFOLD_INLINE Vec<Wide<S>> read_first(const S* p, int64_t n) {
    S part[kLanes<Wide<S>>] = {};
    for (int64_t k = 0; k < n; ++k) part[k] = p[k];
    return read(part);
}
#if defined(__AVX2__)
template <> NINEFOLD_INLINE Vec<float> read_first(const float* p, int64_t n) { return load_first(p, n); }
#endif

template <class T> NINEFOLD_INLINE void write(T* p, Vec<T> v) { store(p, v); }
NINEFOLD_INLINE void write(BFloat16* p, Vec<float> v) {
    for (int k = 0; k < kLanes<float>; ++k) narrow(v[k], p + k);
}

// The first n lanes, n below their number: halves, so that it takes few stores.
template <class T> NINEFOLD_INLINE void write_first(T* p, Vec<T> v, int64_t n) {
    T part[kLanes<T>];
    store(part, v);
    int64_t at = 0;
    if (kLanes<T> > 8 && n & 8) __builtin_memcpy(p, part, 8 * sizeof(T)), at = 8;
    if (kLanes<T> > 4 && n & 4) __builtin_memcpy(p + at, part + at, 4 * sizeof(T)), at += 4;
    if (kLanes<T> > 2 && n & 2) __builtin_memcpy(p + at, part + at, 2 * sizeof(T)), at += 2;
    if (n & 1) p[at] = part[at];
}
NINEFOLD_INLINE void write_first(BFloat16* p, Vec<float> v, int64_t n) {
    for (int64_t k = 0; k < n; ++k) narrow(v[int(k)], p + k);
}

// to[v] = the join of rows[m][v], m < count, for v < n. Nothing behind the n elements is read or written; to is no source.
template <class Op, Before B, class S>
void join_rows(const S* const* rows, int64_t count, int64_t n, Wide<S>* to) {
    typedef Wide<S> T;
    constexpr int L = kLanes<T>;
    int64_t v = 0;
    for (; v + 4 * L <= n; v += 4 * L) {
        Vec<T> sum[4];
        for (int k = 0; k < 4; ++k) sum[k] = prepared<B, T>(read(rows[0] + v + k * L));
        for (int64_t m = 1; m < count; ++m) {
            const S* row = rows[m] + v;
            for (int k = 0; k < 4; ++k) sum[k] = Op::template join<T>(sum[k], prepared<B, T>(read(row + k * L)));
        }
        for (int k = 0; k < 4; ++k) store(to + v + k * L, sum[k]);
    }
    const int64_t last = n - L;
    while (v < n && last >= 0) {
        if (v > last) v = last;  // once more what the vector before wrote
        Vec<T> sum = prepared<B, T>(read(rows[0] + v));
        for (int64_t m = 1; m < count; ++m) sum = Op::template join<T>(sum, prepared<B, T>(read(rows[m] + v)));
        store(to + v, sum);
        v += L;
    }
    if (last >= 0 || n <= 0) return;
    Vec<T> sum = prepared<B, T>(read_first(rows[0], n));
    for (int64_t m = 1; m < count; ++m) sum = Op::template join<T>(sum, prepared<B, T>(read_first(rows[m], n)));
    write_first(to, sum, n);
}

// R neighbouring outputs at once: to[i] = the join of rows[i], ..., rows[i + count - 1], for count >= R. They share rows R - 1 to
// count - 1; before those each lacks one more row, behind them each adds one: count + 2 R - 4 operations instead of R (count -
// 1).
template <class Op, Before B, int R, class S>
NINEFOLD_INLINE void slide_at(const S* const* rows, int64_t count, int64_t v, Vec<Wide<S>>* out) {
    typedef Wide<S> T;
    auto at = [&](int64_t row) { return prepared<B, T>(read(rows[row] + v)); };
    Vec<T> before[R];
    before[R - 2] = at(R - 2);
    for (int i = R - 3; i >= 0; --i) before[i] = Op::template join<T>(before[i + 1], at(i));
    Vec<T> shared = at(R - 1);
    for (int64_t m = R; m < count; ++m) shared = Op::template join<T>(shared, at(m));
    for (int i = 0; i < R - 1; ++i) {
        out[i] = Op::template join<T>(before[i], shared);
        shared = Op::template join<T>(shared, at(count + i));
    }
    out[R - 1] = shared;
}

template <class Op, Before B, int R, class S>
void slide_rows(const S* const* rows, int64_t count, int64_t n, Wide<S>* const* to) {
    typedef Wide<S> T;
    constexpr int L = kLanes<T>;
    Vec<T> out[R];
    if (n < L) {  // too short for this
        for (int i = 0; i < R; ++i) join_rows<Op, B, S>(rows + i, count, n, to[i]);
        return;
    }
    for (int64_t v = 0; v < n; v += L) {
        if (v > n - L) v = n - L;
        slide_at<Op, B, R, S>(rows, count, v, out);
        for (int i = 0; i < R; ++i) store(to[i] + v, out[i]);
    }
}

// to[i][v] = the join of row[i * hop + m * step + v], m < count, for pixels i < n and v < inner, at least a vector.
template <class Op, class T>
void join_pixels(const T* row, int64_t hop, int64_t step, int64_t count, int64_t n, int64_t inner, T* to) {
    constexpr int L = kLanes<T>;
    for (int64_t i = 0; i < n; ++i, row += hop, to += inner)
        for (int64_t v = 0; v < inner; v += L) {
            if (v > inner - L) v = inner - L;
            const T* at = row + v;
            Vec<T> sum = load(at);
            for (int64_t m = 1; m < count; ++m) sum = Op::template join<T>(sum, load(at += step));
            store(to + v, sum);
        }
}

// Whether any of n elements is NaN.
template <class S> inline bool any_nan(const S* p, int64_t n) {
    typedef Wide<S> T;
    constexpr int L = kLanes<T>;
    Mask<T> found[4] = {};
    int64_t v = 0;
    for (; v + 4 * L <= n; v += 4 * L)
        for (int k = 0; k < 4; ++k) {
            Vec<T> x = read(p + v + k * L);
            found[k] |= x != x;
        }
    for (; v + L <= n; v += L) {
        Vec<T> x = read(p + v);
        found[0] |= x != x;
    }
    if (v < n) {
        Vec<T> x = read_first(p + v, n - v);
        found[1] |= x != x;
    }
    found[0] |= found[1] | found[2] | found[3];
    bool any = false;
    for (int k = 0; k < L; ++k) any |= found[0][k] != 0;
    return any;
}

template <class T> NINEFOLD_INLINE void copy(T* to, const T* from, int64_t n) {
    constexpr int L = kLanes<T>;
    if (n % L) {
        __builtin_memcpy(to, from, size_t(n) * sizeof(T));
        return;
    }
    for (int64_t v = 0; v < n; v += L) store(to + v, load(from + v));
}

template <class T> NINEFOLD_INLINE Vec<T> square_root(Vec<T> v) {
#if defined(NINEFOLD_AVX2)
    if constexpr (sizeof(T) == 4) return _mm256_sqrt_ps(v);
    else return _mm256_sqrt_pd(v);
#else
    for (int k = 0; k < kLanes<T>; ++k) v[k] = sizeof(T) == 4 ? T(__builtin_sqrtf(float(v[k]))) : T(__builtin_sqrt(double(v[k])));
    return v;
#endif
}

template <class T> inline void fill(T* p, int64_t n, T x) {
    for (int64_t k = 0; k < n; ++k) p[k] = x;
}

// The first and the second half of the elements of two vectors in turn.
template <class T> NINEFOLD_INLINE Vec<T> turns_low(Vec<T> a, Vec<T> b) {
    if constexpr (kLanes<T> == 2) return __builtin_shuffle(a, b, Mask<T>{0, 2});
    if constexpr (kLanes<T> == 4) return __builtin_shuffle(a, b, Mask<T>{0, 4, 1, 5});
    if constexpr (kLanes<T> == 8) return __builtin_shuffle(a, b, Mask<T>{0, 8, 1, 9, 2, 10, 3, 11});
    if constexpr (kLanes<T> == 16)
        return __builtin_shuffle(a, b, Mask<T>{0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23});
}
template <class T> NINEFOLD_INLINE Vec<T> turns_high(Vec<T> a, Vec<T> b) {
    if constexpr (kLanes<T> == 2) return __builtin_shuffle(a, b, Mask<T>{1, 3});
    if constexpr (kLanes<T> == 4) return __builtin_shuffle(a, b, Mask<T>{2, 6, 3, 7});
    if constexpr (kLanes<T> == 8) return __builtin_shuffle(a, b, Mask<T>{4, 12, 5, 13, 6, 14, 7, 15});
    if constexpr (kLanes<T> == 16)
        return __builtin_shuffle(a, b, Mask<T>{8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31});
}

// parts[r * pitch + q] = row[q * step + r] for all elements of a row of n.
template <class T> void split(const T* row, int64_t n, int64_t step, int64_t pitch, T* parts) {
    constexpr int L = kLanes<T>;
    int64_t done = 0;
    if (step == 2)
        for (; done + 2 * L <= n; done += 2 * L) {
            const Vec<T> a = load(row + done), b = load(row + done + L);
            store(parts + done / 2, evens<T>(a, b));
            store(parts + pitch + done / 2, odds<T>(a, b));
        }
    if (step == 4)
        for (; done + 4 * L <= n; done += 4 * L) {
            const Vec<T> a = load(row + done), b = load(row + done + L), c = load(row + done + 2 * L),
                         d = load(row + done + 3 * L);
            const Vec<T> ab = evens<T>(a, b), cd = evens<T>(c, d), ab1 = odds<T>(a, b), cd1 = odds<T>(c, d);
            T* to = parts + done / 4;
            store(to, evens<T>(ab, cd));
            store(to + pitch, evens<T>(ab1, cd1));
            store(to + 2 * pitch, odds<T>(ab, cd));
            store(to + 3 * pitch, odds<T>(ab1, cd1));
        }
    for (int64_t r = 0; r < step; ++r) {
        T* to = parts + r * pitch;
        for (int64_t q = done / step; q * step + r < n; ++q) to[q] = row[q * step + r];
    }
}

// row[q * step + r] = parts[r * pitch + q], the reverse.
template <class T> void merge(const T* parts, int64_t n, int64_t step, int64_t pitch, T* row) {
    constexpr int L = kLanes<T>;
    int64_t done = 0;
    if (step == 2)
        for (; done + 2 * L <= n; done += 2 * L) {
            const Vec<T> a = load(parts + done / 2), b = load(parts + pitch + done / 2);
            store(row + done, turns_low<T>(a, b));
            store(row + done + L, turns_high<T>(a, b));
        }
    for (int64_t r = 0; r < step; ++r) {
        const T* from = parts + r * pitch;
        for (int64_t q = done / step; q * step + r < n; ++q) row[q * step + r] = from[q];
    }
}

}  // namespace NINEFOLD_NS

// Register-blocked products of small matrices: the inner loops of blocked products, for any kernel that packs its own operands.
#pragma once
#include "common/simd.hpp"

namespace NINEFOLD_NS {

// Rows and vectors of accumulators that fit the registers, beside the vectors of b and one broadcast.
constexpr int kRows = kRegisters >= 32 ? 12 : 6, kVectors = 2;
template <class T> constexpr int kPanel = kVectors * kLanes<T>;

// What a product sums over: `count` segments of `length` consecutive elements; segment s of a row begins `shift[s]` after it.
struct Segments {
    const int64_t* shift;
    int64_t count, length;
};

// c[i][:] (+)= sum_k a[row[i] + k] * b[k][:] for MR rows and NV vectors; b is packed, kPanel wide.
template <class T, int MR, int NV>
__attribute__((noinline)) void product(const T* a, const int64_t* row, Segments over, const T* b, T* c, int64_t ldc, bool add) {
    Vec<T> acc[MR][NV];
    for (int i = 0; i < MR; ++i)
        for (int v = 0; v < NV; ++v) acc[i][v] = add ? load(c + i * ldc + v * kLanes<T>) : Vec<T>{};
    for (int64_t s = 0; s < over.count; ++s) {
        const T* at[MR];
        for (int i = 0; i < MR; ++i) at[i] = a + row[i] + over.shift[s];
        for (int64_t k = 0; k < over.length; ++k) {
            Vec<T> right[NV];
            for (int v = 0; v < NV; ++v) right[v] = load(b + v * kLanes<T>);
            b += kPanel<T>;
            for (int i = 0; i < MR; ++i) {
                Vec<T> left = broadcast(at[i][k]);
                for (int v = 0; v < NV; ++v) acc[i][v] += left * right[v];
            }
        }
    }
    for (int i = 0; i < MR; ++i)
        for (int v = 0; v < NV; ++v) store(c + i * ldc + v * kLanes<T>, acc[i][v]);
}

// c[i][:] (+)= sum_k a[k * lda + i] * b[row[k]][:] for MR rows and NV vectors: both operands have the summed index outermost.
template <class T, int MR, int NV>
__attribute__((noinline)) void outer(const T* a, int64_t lda, const T* b, const int64_t* row, int64_t count, T* c, int64_t ldc,
                                     bool add) {
    Vec<T> acc[MR][NV];
    for (int i = 0; i < MR; ++i)
        for (int v = 0; v < NV; ++v) acc[i][v] = add ? load(c + i * ldc + v * kLanes<T>) : Vec<T>{};
    for (int64_t k = 0; k < count; ++k) {
        const T* at = b + row[k];
        Vec<T> right[NV];
        for (int v = 0; v < NV; ++v) right[v] = load(at + v * kLanes<T>);
        for (int i = 0; i < MR; ++i) {
            Vec<T> left = broadcast(a[i]);
            for (int v = 0; v < NV; ++v) acc[i][v] += left * right[v];
        }
        a += lda;
    }
    for (int i = 0; i < MR; ++i)
        for (int v = 0; v < NV; ++v) store(c + i * ldc + v * kLanes<T>, acc[i][v]);
}

// The same for a number of rows and vectors that is known only now.
template <class T, int MR = kRows>
NINEFOLD_INLINE void product_of(int64_t rows, int64_t vectors, const T* a, const int64_t* row, Segments over, const T* b, T* c,
                                int64_t ldc, bool add) {
    if constexpr (MR > 1) {
        if (rows < MR) return product_of<T, MR - 1>(rows, vectors, a, row, over, b, c, ldc, add);
    }
    if (vectors == kVectors) return product<T, MR, kVectors>(a, row, over, b, c, ldc, add);
    return product<T, MR, 1>(a, row, over, b, c, ldc, add);
}

template <class T, int MR = kRows>
NINEFOLD_INLINE void outer_of(int64_t rows, int64_t vectors, const T* a, int64_t lda, const T* b, const int64_t* row,
                              int64_t count, T* c, int64_t ldc, bool add) {
    if constexpr (MR > 1) {
        if (rows < MR) return outer_of<T, MR - 1>(rows, vectors, a, lda, b, row, count, c, ldc, add);
    }
    if (vectors == kVectors) return outer<T, MR, kVectors>(a, lda, b, row, count, c, ldc, add);
    return outer<T, MR, 1>(a, lda, b, row, count, c, ldc, add);
}

// Transposes kLanes x kLanes elements in registers: blocks off the diagonal change places, halving.
template <class T, int D> NINEFOLD_INLINE void exchange(Vec<T>* v) {
    Mask<T> low, high;
    for (int l = 0; l < kLanes<T>; ++l) {
        low[l] = l & D ? l - D + kLanes<T> : l;
        high[l] = l & D ? l + kLanes<T> : l + D;
    }
    for (int i = 0; i < kLanes<T>; ++i) {
        if (i & D) continue;
        Vec<T> a = v[i], b = v[i + D];
        v[i] = __builtin_shuffle(a, b, low);
        v[i + D] = __builtin_shuffle(a, b, high);
    }
    if constexpr (D > 1) exchange<T, D / 2>(v);
}
template <class T> NINEFOLD_INLINE void transpose(Vec<T>* v) { exchange<T, kLanes<T> / 2>(v); }

// to[c][l] = from[l * lane + c * column] for c < columns, l < lanes; zeros in the lanes from there on. Vectors of `to` are `step`
// apart.
template <class T>
NINEFOLD_INLINE void gather(const T* from, int64_t lane, int64_t lanes, int64_t column, int64_t columns, T* to, int64_t step) {
    constexpr int L = kLanes<T>;
    int64_t c = 0;
    if (lane == 1 && lanes == L)
        for (; c < columns; ++c) store(to + c * step, load(from + c * column));
    if (column == 1)
        for (; c + L <= columns; c += L) {
            Vec<T> v[L];
            for (int l = 0; l < L; ++l) v[l] = l < lanes ? load(from + l * lane + c) : Vec<T>{};
            transpose<T>(v);
            for (int l = 0; l < L; ++l) store(to + (c + l) * step, v[l]);
        }
    for (; c < columns; ++c)
        for (int l = 0; l < L; ++l) to[c * step + l] = l < lanes ? from[l * lane + c * column] : T(0);
}

// The way back: to[l * lane + c * column] = from[c][l] + add[l], not below `floor`. Where `spoilt` is given, zero times every
// vector that is read is added to it, and what is not finite leaves NaN there.
template <class T>
NINEFOLD_INLINE void scatter(const T* from, int64_t step, Vec<T> add, T floor, T* to, int64_t lane, int64_t lanes, int64_t column,
                             int64_t columns, Vec<T>* spoilt = nullptr) {
    constexpr int L = kLanes<T>;
    const Vec<T> lowest = broadcast(floor);
    auto result = [&](int64_t c) __attribute__((always_inline)) {
        const Vec<T> x = load(from + c * step);
        if (spoilt != nullptr) *spoilt += x * Vec<T>{};
        return larger(Vec<T>(x + add), lowest);
    };
    int64_t c = 0;
    if (lane == 1 && lanes == L)
        for (; c < columns; ++c) store(to + c * column, result(c));
    if (column == 1)
        for (; c + L <= columns; c += L) {
            Vec<T> v[L];
            for (int l = 0; l < L; ++l) v[l] = result(c + l);
            transpose<T>(v);
            for (int l = 0; l < L; ++l)
                if (l < lanes) store(to + l * lane + c, v[l]);
        }
    for (; c < columns; ++c) {
        T part[L];
        store(part, result(c));
        for (int l = 0; l < lanes; ++l) to[l * lane + c * column] = part[l];
    }
}

}  // namespace NINEFOLD_NS

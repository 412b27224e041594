// Vectors of the widest registers of the instruction set that this file is compiled for, by the compiler's vector extension.
// Everything lives in a namespace named after the instruction set, and nothing of the standard library's containers is used:
// an inline function compiled here with wide instructions must never be the one that another file links to.
#pragma once
#include <cstddef>
#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "common/types.hpp"

#define NINEFOLD_NS ninefold::NINEFOLD_ISA
#define NINEFOLD_INLINE inline __attribute__((always_inline))

namespace NINEFOLD_NS {

// NINEFOLD_WIDE makes vectors and blocks those of AVX-512 out of any registers: a build for tests where no processor has it.
#if defined(__AVX512F__)
#define NINEFOLD_AVX512
#elif defined(__AVX2__) && !defined(NINEFOLD_WIDE)
#define NINEFOLD_AVX2
#endif

#if defined(NINEFOLD_AVX512) || defined(NINEFOLD_WIDE)
constexpr int kBytes = 64, kRegisters = 32;
#elif defined(NINEFOLD_AVX2)
constexpr int kBytes = 32, kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kBytes = 16, kRegisters = 32;
#else
constexpr int kBytes = 16, kRegisters = 16;
#endif

template <class T> struct VecOf;
template <> struct VecOf<float> {
    typedef float type __attribute__((vector_size(kBytes)));
    typedef int32_t mask __attribute__((vector_size(kBytes)));
    typedef int32_t word;
};
template <> struct VecOf<double> {
    typedef double type __attribute__((vector_size(kBytes)));
    typedef int64_t mask __attribute__((vector_size(kBytes)));
    typedef int64_t word;
};
template <class T> using Vec = typename VecOf<T>::type;
template <class T> using Mask = typename VecOf<T>::mask;
template <class T> constexpr int kLanes = kBytes / int(sizeof(T));

template <class T> NINEFOLD_INLINE Vec<T> load(const T* p) {
    Vec<T> v;
    __builtin_memcpy(&v, p, kBytes);
    return v;
}

template <class T> NINEFOLD_INLINE void store(T* p, Vec<T> v) { __builtin_memcpy(p, &v, kBytes); }

template <class T> NINEFOLD_INLINE Vec<T> broadcast(T x) {
    // written out: of a loop over lanes the compiler makes insertions, not a broadcast
    if constexpr (kLanes<T> == 2) return Vec<T>{x, x};
    if constexpr (kLanes<T> == 4) return Vec<T>{x, x, x, x};
    if constexpr (kLanes<T> == 8) return Vec<T>{x, x, x, x, x, x, x, x};
    if constexpr (kLanes<T> == 16) return Vec<T>{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}

// The larger of two, lane by lane: the first of equal ones, and where one of them is NaN.
#if defined(NINEFOLD_AVX512)
NINEFOLD_INLINE Vec<float> larger(Vec<float> a, Vec<float> b) { return _mm512_max_ps(b, a); }
NINEFOLD_INLINE Vec<double> larger(Vec<double> a, Vec<double> b) { return _mm512_max_pd(b, a); }
#elif defined(NINEFOLD_AVX2)
NINEFOLD_INLINE Vec<float> larger(Vec<float> a, Vec<float> b) { return _mm256_max_ps(b, a); }
NINEFOLD_INLINE Vec<double> larger(Vec<double> a, Vec<double> b) { return _mm256_max_pd(b, a); }
#else
template <class V> NINEFOLD_INLINE V larger(V a, V b) { return b > a ? b : a; }
#endif

template <class T> NINEFOLD_INLINE T sum(Vec<T> v) {
    // pairwise, halving: less error than in a row
    T part[kLanes<T>];
    __builtin_memcpy(part, &v, kBytes);
    for (int half = kLanes<T> / 2; half; half /= 2)
        for (int k = 0; k < half; ++k) part[k] += part[k + half];
    return part[0];
}

// All bits set in the first n lanes.
template <class T> NINEFOLD_INLINE Mask<T> first(int64_t n) {
    typedef typename VecOf<T>::word Word;
    static constexpr Word order[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    Mask<T> place;
    __builtin_memcpy(&place, order, kBytes);
    return Mask<T>(place < Word(n));
}

template <class T> NINEFOLD_INLINE Vec<T> masked(Vec<T> v, Mask<T> m) { return Vec<T>(Mask<T>(v) & m); }

// The first n elements, zeros behind them; nothing behind them is read.
template <class T> NINEFOLD_INLINE Vec<T> load_first(const T* p, int64_t n) {
    T part[kLanes<T>] = {};
    for (int64_t k = 0; k < n; ++k) part[k] = p[k];
    return load(part);
}
#if defined(NINEFOLD_AVX512)
template <> NINEFOLD_INLINE Vec<float> load_first(const float* p, int64_t n) {
    return Vec<float>(_mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p));
}
#elif defined(NINEFOLD_AVX2)
template <> NINEFOLD_INLINE Vec<float> load_first(const float* p, int64_t n) {
    return Vec<float>(_mm256_maskload_ps(p, __m256i(first<float>(n))));
}
#endif

template <class T> NINEFOLD_INLINE void store_first(T* p, Vec<T> v, int64_t n) {
    T part[kLanes<T>];
    __builtin_memcpy(part, &v, kBytes);
    for (int64_t k = 0; k < n; ++k) p[k] = part[k];
}

// Every second element of a followed by b.
template <class T> NINEFOLD_INLINE Vec<T> evens(Vec<T> a, Vec<T> b) {
    if constexpr (kLanes<T> == 2) return __builtin_shuffle(a, b, Mask<T>{0, 2});
    if constexpr (kLanes<T> == 4) return __builtin_shuffle(a, b, Mask<T>{0, 2, 4, 6});
    if constexpr (kLanes<T> == 8) return __builtin_shuffle(a, b, Mask<T>{0, 2, 4, 6, 8, 10, 12, 14});
    if constexpr (kLanes<T> == 16)
        return __builtin_shuffle(a, b, Mask<T>{0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30});
}
template <class T> NINEFOLD_INLINE Vec<T> odds(Vec<T> a, Vec<T> b) {
    if constexpr (kLanes<T> == 2) return __builtin_shuffle(a, b, Mask<T>{1, 3});
    if constexpr (kLanes<T> == 4) return __builtin_shuffle(a, b, Mask<T>{1, 3, 5, 7});
    if constexpr (kLanes<T> == 8) return __builtin_shuffle(a, b, Mask<T>{1, 3, 5, 7, 9, 11, 13, 15});
    if constexpr (kLanes<T> == 16)
        return __builtin_shuffle(a, b, Mask<T>{1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31});
}

// How elements lie in memory, and the type that they are computed in.
struct BFloat16 {
    uint16_t bits;
};

NINEFOLD_INLINE float wide(float x) { return x; }
NINEFOLD_INLINE double wide(double x) { return x; }
NINEFOLD_INLINE float wide(BFloat16 x) {
    uint32_t bits = uint32_t(x.bits) << 16;
    float f;
    __builtin_memcpy(&f, &bits, 4);
    return f;
}

NINEFOLD_INLINE void narrow(float x, float* p) { *p = x; }
NINEFOLD_INLINE void narrow(double x, double* p) { *p = x; }
NINEFOLD_INLINE void narrow(float x, BFloat16* p) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    // to nearest, ties to even; a NaN stays one
    uint32_t rounded = bits + 0x7fff + ((bits >> 16) & 1);
    p->bits = uint16_t((bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16) | 0x40 : rounded >> 16);
}

NINEFOLD_INLINE int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
NINEFOLD_INLINE int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
NINEFOLD_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
// The size of the next chunk of `left` items, in chunks of at most `widest`. The last two chunks are of about equal size. No
// division.
NINEFOLD_INLINE int64_t balanced_chunk(int64_t left, int64_t widest) {
    return left <= widest ? left : left < 2 * widest ? (left + 1) / 2 : widest;
}
NINEFOLD_INLINE int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
// A stride of at least so many elements that is an odd number of cache lines: rows a power of two apart would share few cache
// sets.
template <class T> NINEFOLD_INLINE int64_t pad_stride_for_cache_sets(int64_t elements) {
    constexpr int64_t line = 64 / int64_t(sizeof(T));
    return (ceil_div(elements, line) | 1) * line;
}

}  // namespace NINEFOLD_NS

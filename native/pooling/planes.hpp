// Planes to pixels and back: as many planes as a vector has lanes become one image whose pixels are vectors. Rows of it have no
// tails and every shift along x is a whole vector, which for small planes saves more than the transposition costs.
#pragma once
#include "pooling/rows.hpp"

namespace NINEFOLD_NS {

#if defined(NINEFOLD_AVX2)
NINEFOLD_INLINE void transpose(Vec<float>* v) {
    Vec<float> a[8], b[8];
    for (int k = 0; k < 8; k += 2) a[k] = _mm256_unpacklo_ps(v[k], v[k + 1]), a[k + 1] = _mm256_unpackhi_ps(v[k], v[k + 1]);
    for (int k = 0; k < 8; k += 4)
        for (int h = 0; h < 2; ++h) {
            b[k + 2 * h] = _mm256_shuffle_ps(a[k + h], a[k + 2 + h], 0x44);
            b[k + 2 * h + 1] = _mm256_shuffle_ps(a[k + h], a[k + 2 + h], 0xee);
        }
    for (int k = 0; k < 4; ++k) {
        v[k] = _mm256_permute2f128_ps(b[k], b[k + 4], 0x20);
        v[k + 4] = _mm256_permute2f128_ps(b[k], b[k + 4], 0x31);
    }
}
NINEFOLD_INLINE void transpose(Vec<double>* v) {
    const Vec<double> a = _mm256_unpacklo_pd(v[0], v[1]), b = _mm256_unpackhi_pd(v[0], v[1]);
    const Vec<double> c = _mm256_unpacklo_pd(v[2], v[3]), d = _mm256_unpackhi_pd(v[2], v[3]);
    v[0] = _mm256_permute2f128_pd(a, c, 0x20), v[1] = _mm256_permute2f128_pd(b, d, 0x20);
    v[2] = _mm256_permute2f128_pd(a, c, 0x31), v[3] = _mm256_permute2f128_pd(b, d, 0x31);
}
#else
// Each step deals the upper half of the vectors into the lower one; after log2(lanes) steps rows are columns.
template <class V> NINEFOLD_INLINE void transpose(V* v) {
    typedef decltype(v[0][0] + v[0][0]) T;
    constexpr int L = kLanes<T>;
    V w[L];
    for (int step = 1; step < L; step *= 2) {
        for (int k = 0; k < L / 2; ++k)
            w[2 * k] = turns_low<T>(v[k], v[k + L / 2]), w[2 * k + 1] = turns_high<T>(v[k], v[k + L / 2]);
        for (int k = 0; k < L; ++k) v[k] = w[k];
    }
}
#endif

// pixels[i][k] = planes[k][i] for i < n; planes from `count` on are zeros.
template <class T> void to_pixels(const T* planes, int64_t pitch, int64_t count, int64_t n, T* pixels) {
    constexpr int L = kLanes<T>;
    for (int64_t i = 0; i < n; i += L) {
        const int64_t rest = min(L, n - i);
        Vec<T> v[L];
        for (int k = 0; k < L; ++k) {
            const T* from = planes + k * pitch + i;
            v[k] = k >= count ? Vec<T>{} : rest == L ? load(from) : load_first(from, rest);
        }
        transpose(v);
        for (int64_t k = 0; k < rest; ++k) store(pixels + (i + k) * L, v[k]);
    }
}

// planes[k][i] = pixels[i][k] for i < n and k < count.
template <class T> void to_planes(const T* pixels, int64_t pitch, int64_t count, int64_t n, T* planes) {
    constexpr int L = kLanes<T>;
    for (int64_t i = 0; i < n; i += L) {
        const int64_t rest = min(L, n - i);
        Vec<T> v[L];
        for (int k = 0; k < L; ++k) v[k] = k < rest ? load(pixels + (i + k) * L) : Vec<T>{};
        transpose(v);
        for (int64_t k = 0; k < count; ++k) {
            T* to = planes + k * pitch + i;
            if (rest == L) store(to, v[k]);
            else write_first(to, v[k], rest);
        }
    }
}

// Whether poolings of these planes are done as pixels: small enough for the cache, and enough of them.
NINEFOLD_INLINE bool as_pixels(const Pool& p, int64_t lanes, int64_t width, int64_t narrowest) {
    const int64_t in = p.axis[0].n_in * p.axis[1].n_in * p.axis[2].n_in,
                  out = p.axis[0].n_out * p.axis[1].n_out * p.axis[2].n_out;
    const bool across = p.axis[2].kernel > 1 || p.axis[2].stride > 1, narrow = p.axis[2].n_in <= narrowest;
    return p.type != Type::bfloat16 && p.inner == 1 && across && narrow && p.outer >= lanes * max(1, p.threads) &&
           (in + out) * lanes * width <= 256 * 1024;
}

}  // namespace NINEFOLD_NS

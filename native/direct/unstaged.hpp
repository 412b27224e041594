// Inner loops over rows that are read where they lie: 3x3 and 5x5 kernels of one channel at unit steps along x.
//
// Nothing is staged. The first and the last vector of a row load with a mask: lanes outside the row are zero.
// A row above or below the image is a row of zeros.
#pragma once
#include "common/staging.hpp"

namespace NINEFOLD_NS {
namespace {

#if defined(__AVX2__)
constexpr bool kMasks = true;  // loads that leave lanes out, and touch no memory for them
#else
constexpr bool kMasks = false;
#endif
constexpr int64_t kDeepest = 5, kRows = kDeepest * (5 + 3);  // taps along z, and rows that a block may read
constexpr int64_t kColumn = 6;  // outputs of a column: more of them leave memory to be read in strips, which is slower out of it

#if defined(NINEFOLD_AVX512)
typedef __mmask16 Lanes;
NINEFOLD_INLINE Vec<float> load_lanes(const float* p, Lanes m) { return Vec<float>(_mm512_maskz_loadu_ps(m, p)); }
#elif defined(NINEFOLD_AVX2)
typedef Mask<float> Lanes;
NINEFOLD_INLINE Vec<float> load_lanes(const float* p, Lanes m) { return Vec<float>(_mm256_maskload_ps(p, __m256i(m))); }
#else
typedef Mask<float> Lanes;
NINEFOLD_INLINE Vec<float> load_lanes(const float* p, Lanes m) {
    float part[kLanes<float>];
    for (int k = 0; k < kLanes<float>; ++k) part[k] = m[k] ? p[k] : 0.0f;
    return load(part);
}
#endif

// Size of the square kernel if all is read where it lies, else 0.
NINEFOLD_INLINE int64_t unstaged_size(const Direct& d) {
    Span s;
    if (!kMasks || d.type != Type::float32 || d.ins != 1 || d.outs != 1 || d.n_x != 1 || d.out[2] * d.jump[2] != 1) return 0;
    int64_t size = d.x[0].taps, outputs = d.x[0].count;
    if ((size != 3 && size != 5) || d.y.taps != size || d.z.taps > kDeepest || d.step[1] != 1) return 0;
    for (int64_t t = 0; t < size; ++t)
        if (d.x[0].at[t] != t) return 0;
    if (!span_of(d, s) || 2 * s.before > size - 1 || 2 * s.after > size - 1) return 0;
    // only the first vector may touch what is outside before it, and only the last, which ends with the line, what is behind
    int64_t more = outputs - kLanes<float>, end = outputs % kLanes<float>;
    return more == 0 || (more >= s.before && (end == 0 || end >= s.after)) ? size : 0;
}

template <int K> struct Edges {
    Lanes left[K], right[K];
};

NINEFOLD_INLINE Lanes lanes_from(int64_t n) {  // all but the first n
#if defined(NINEFOLD_AVX512)
    return Lanes(n < 16 ? 0xffffu << max(n, 0) : 0);
#else
    return ~first<float>(n);
#endif
}

NINEFOLD_INLINE Lanes lanes_to(int64_t n) {
#if defined(NINEFOLD_AVX512)
    return Lanes(n >= 16 ? 0xffffu : (1u << max(n, 0)) - 1);
#else
    return first<float>(n);
#endif
}

// R rows of outputs, C vectors of them, of which the first and the last may touch what is outside.
template <int R, int C, int K>
void unstaged_core(const float* const* rows, int64_t x, int64_t depth, const float* w, float init, float floor,
                   const Edges<K>& edges, int64_t last, float* out, int64_t out_row) {
    Vec<float> acc[R][C];
    for (int q = 0; q < R; ++q)
        for (int c = 0; c < C; ++c) acc[q][c] = broadcast(init);
    for (int64_t z = 0; z < depth; ++z, w += K * K) {
#pragma GCC unroll 16
        for (int u = 0; u < K + R - 1; ++u) {
            const float* row = *rows++ + x;
#pragma GCC unroll 8
            for (int k = 0; k < K; ++k) {
                Vec<float> v[C];
#pragma GCC unroll 8
                for (int c = 0; c < C; ++c) {
                    const float* p = row + k + (c < C - 1 ? c * kLanes<float> : last);
                    if (c == 0 && 2 * k < K - 1) v[c] = load_lanes(p, edges.left[k]);
                    else if (c == C - 1 && 2 * k > K - 1) v[c] = load_lanes(p, edges.right[k]);
                    else v[c] = load(p);
                }
#pragma GCC unroll 4
                for (int q = 0; q < R; ++q) {
                    if (u - q < 0 || u - q >= K) continue;
                    Vec<float> b = broadcast(w[(u - q) * K + k]);
#pragma GCC unroll 8
                    for (int c = 0; c < C; ++c) acc[q][c] += b * v[c];
                }
            }
        }
    }
    store_block<float>(acc, floor, out, out_row, last);
}

// One 3x3 kernel in nine registers, moved down C vectors of columns: three loads a row, of which each serves three outputs.
template <int C, bool E>
void column_core(const float* const* rows, int64_t x, const float* w, float init, float floor, const Edges<3>& edges,
                 int64_t last, int64_t count, float* out, int64_t out_row) {
    constexpr int64_t L = kLanes<float>;
    Vec<float> k[9], acc[3][C];
#pragma GCC unroll 9
    for (int t = 0; t < 9; ++t) k[t] = broadcast(w[t]);
    const Vec<float> start = broadcast(init), lowest = broadcast(floor);
    // input row u: the first row of output u, the second of u - 1, the last of u - 2
    auto step = [&](int64_t u, Vec<float>(&first)[C], Vec<float>(&second)[C], Vec<float>(&third)[C])
                    __attribute__((always_inline)) {
                        const float* row = rows[u] + x;
#pragma GCC unroll 4
                        for (int c = 0; c < C; ++c) {
                            const float* p = row + (c < C - 1 ? c * L : last);
                            first[c] = start;
#pragma GCC unroll 3
                            for (int t = 0; t < 3; ++t) {
                                Vec<float> v;
                                if (E && c == 0 && t == 0) v = load_lanes(p, edges.left[0]);
                                else if (E && c == C - 1 && t == 2) v = load_lanes(p + 2, edges.right[2]);
                                else v = load(p + t);
                                first[c] += k[t] * v;
                                second[c] += k[3 + t] * v;
                                third[c] += k[6 + t] * v;
                            }
                            if (u >= 2) store(out + (u - 2) * out_row + (c < C - 1 ? c * L : last), larger(third[c], lowest));
                        }
                    };
    for (int q = 0; q < 3; ++q)
        for (int c = 0; c < C; ++c) acc[q][c] = start;
    int64_t u = 0;
    for (; u + 3 <= count + 2; u += 3) {
        step(u, acc[0], acc[2], acc[1]);
        step(u + 1, acc[1], acc[0], acc[2]);
        step(u + 2, acc[2], acc[1], acc[0]);
    }
    if (u < count + 2) step(u, acc[0], acc[2], acc[1]);
    if (u + 1 < count + 2) step(u + 1, acc[1], acc[0], acc[2]);
}

template <int K> struct Unstaged {
    const float* const* rows;  // of the input where staged position 0 would lie: depth times K + R - 1
    int64_t depth, outputs;
    const float* w;
    float init, floor;
    Edges<K> edges[4];  // of a chunk between others, the first, the last, the only one

    void prepare(const Span& s) {
        for (int k = 0; k < K; ++k) {
            Lanes left = lanes_from(s.before - k), right = lanes_to(s.before + s.count - k - (outputs - kLanes<float>)),
                  all = lanes_from(0);
            for (int e = 0; e < 4; ++e) {
                edges[e].left[k] = e & 1 ? left : all;
                edges[e].right[k] = e & 2 ? right : all;
            }
        }
    }
};

template <int K, int R> void unstaged_rows(const Unstaged<K>& a, float* out, int64_t out_row) {
    constexpr int64_t L = kLanes<float>;
    int64_t vectors = ceil_div(a.outputs, L), k = 0;
    while (vectors) {
        int64_t c = balanced_chunk(vectors, 3);
        bool begins = k == 0, ends = c == vectors;
        int64_t last = ends ? a.outputs - k - L : (c - 1) * L;
        const Edges<K>& edges = a.edges[begins + 2 * ends];
#define NINEFOLD_UNSTAGED(C) \
    case C: unstaged_core<R, C, K>(a.rows, k, a.depth, a.w, a.init, a.floor, edges, last, out + k, out_row); break;
        switch (c) {
            NINEFOLD_UNSTAGED(1)
            NINEFOLD_UNSTAGED(2)
            NINEFOLD_UNSTAGED(3)
        }
#undef NINEFOLD_UNSTAGED
        k += c * L;
        vectors -= c;
    }
}

// `count` rows of outputs, column by column.
NINEFOLD_INLINE void unstaged_columns(const Unstaged<3>& a, int64_t count, float* out, int64_t out_row) {
    constexpr int64_t L = kLanes<float>;
    int64_t vectors = ceil_div(a.outputs, L), k = 0;
    while (vectors) {
        int64_t c = min(vectors, 2);
        bool begins = k == 0, ends = c == vectors;
        int64_t last = ends ? a.outputs - k - L : (c - 1) * L;
        const Edges<3>& edges = a.edges[begins + 2 * ends];
        if (c == 1) column_core<1, true>(a.rows, k, a.w, a.init, a.floor, edges, last, count, out + k, out_row);
        else if (begins || ends) column_core<2, true>(a.rows, k, a.w, a.init, a.floor, edges, last, count, out + k, out_row);
        else column_core<2, false>(a.rows, k, a.w, a.init, a.floor, edges, last, count, out + k, out_row);
        k += c * L;
        vectors -= c;
    }
}

}  // namespace
}  // namespace NINEFOLD_NS

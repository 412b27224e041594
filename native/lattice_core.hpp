// Rows of channels in registers, and what the lattice does with them: spread, blur, read.
#pragma once
#include "lattice.hpp"
#include "simd.hpp"
#include "threads.hpp"

namespace NINEFOLD_NS {

typedef float Four __attribute__((vector_size(16)));
typedef float Eight __attribute__((vector_size(32)));

// A row of K vectors.
template <class V, int K> struct Row {
    static constexpr int width = K * int(sizeof(V) / sizeof(float));
    V v[K];
    NINEFOLD_INLINE static Row zero() {
        Row r;
        for (int k = 0; k < K; ++k) r.v[k] = V{};
        return r;
    }
    NINEFOLD_INLINE static Row from(const float* p) {
        Row r;
        __builtin_memcpy(r.v, p, sizeof(r.v));
        return r;
    }
    NINEFOLD_INLINE void to(float* p) const { __builtin_memcpy(p, v, sizeof(v)); }
    NINEFOLD_INLINE void add(const Row& o, float w) {
        for (int k = 0; k < K; ++k) v[k] += o.v[k] * w;
    }
    NINEFOLD_INLINE void add(const Row& o) {
        for (int k = 0; k < K; ++k) v[k] += o.v[k];
    }
    NINEFOLD_INLINE Row times(float w) const {
        Row r;
        for (int k = 0; k < K; ++k) r.v[k] = v[k] * w;
        return r;
    }
};

constexpr int64_t kAhead = 6;  // points whose vertices are asked for before they are needed

template <class R> NINEFOLD_INLINE void ask(const LatticeView& l, int64_t point, const float* values) {
    const int32_t* ids = l.ids + point * l.corners;
    for (int64_t k = 0; k < l.corners; ++k)
        for (int at = 0; at < R::width; at += 16) __builtin_prefetch(values + int64_t(ids[k]) * R::width + at);
}

template <class R> NINEFOLD_INLINE void spread(const LatticeView& l, int64_t point, const R& row, float* values) {
    const int32_t* ids = l.ids + point * l.corners;
    const uint16_t* weights = l.weights + point * l.corners;
    for (int64_t k = 0; k < l.corners; ++k) {
        float* at = values + int64_t(ids[k]) * R::width;
        R sum = R::from(at);
        sum.add(row, float(int32_t(weights[k])) * kWeightUnit);
        sum.to(at);
    }
}

template <class R> NINEFOLD_INLINE R read(const LatticeView& l, int64_t point, const float* values) {
    const int32_t* ids = l.ids + point * l.corners;
    const uint16_t* weights = l.weights + point * l.corners;
    R sum = R::zero();
    for (int64_t k = 0; k < l.corners; ++k)
        sum.add(R::from(values + int64_t(ids[k]) * R::width), float(int32_t(weights[k])) * kWeightUnit);
    return sum.times(l.scale);
}

// Numbers of a lattice's values in one buffer; the row behind the last vertex is zero, for neighbours that are not there.
template <class R> NINEFOLD_INLINE int64_t floats(const LatticeView& l) { return (l.vertices + 1) * R::width; }

// Bands of points that are spread at once, each into values of its own: no more than adding these up is worth.
NINEFOLD_INLINE int64_t bands(const LatticeView& l, int64_t threads) {
    const int64_t worth = l.points * l.corners / (2 * (l.vertices + 1));
    return worth < 1 ? 1 : worth < threads ? worth : threads;
}

// Part `part` of `parts` of a range.
struct Part {
    int64_t first, last;
    NINEFOLD_INLINE Part(int64_t items, int64_t part, int64_t parts) : first(items * part / parts), last(items * (part + 1) / parts) {}
};

NINEFOLD_INLINE void clear(float* p, int64_t count) { __builtin_memset(p, 0, size_t(count) * sizeof(float)); }

// The sums of `count` buffers: the first, and others behind one another.
template <class R> void gather_up(const LatticeView& l, float* first, const float* others, int64_t count, int64_t threads) {
    if (count == 1) return;
    const int64_t apart = floats<R>(l);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t v = 0; v < l.vertices; ++v) {
        R sum = R::from(first + v * R::width);
        for (int64_t b = 1; b < count; ++b) sum.add(R::from(others + (b - 1) * apart + v * R::width));
        sum.to(first + v * R::width);
    }
}

// Blur along every axis in turn, first to last or reversed; the result is in one of the two buffers.
template <class R> float* blur(const LatticeView& l, float* values, float* other, bool reversed, int64_t threads) {
    clear(values + l.vertices * R::width, R::width);
    clear(other + l.vertices * R::width, R::width);
    for (int64_t k = 0; k < l.corners; ++k) {
        const int32_t* near = l.near + (reversed ? l.corners - 1 - k : k) * l.vertices * 2;
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int64_t v = 0; v < l.vertices; ++v) {
            R sides = R::from(values + int64_t(near[2 * v]) * R::width);
            sides.add(R::from(values + int64_t(near[2 * v + 1]) * R::width));
            R sum = R::from(values + v * R::width);
            sum.add(sides, 0.5f);
            sum.to(other + v * R::width);
        }
        float* t = values;
        values = other, other = t;
    }
    return values;
}

}  // namespace NINEFOLD_NS

// Rows of channels in registers, and what the lattice does with them: spread, blur, read.
#pragma once
#include "common/simd.hpp"
#include "lattice/lattice.hpp"

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
        Row r;  // vector by vector: copied as a whole, it goes by way of the stack
        for (int k = 0; k < K; ++k) __builtin_memcpy(&r.v[k], p + k * (width / K), sizeof(V));
        return r;
    }
    NINEFOLD_INLINE void to(float* p) const {
        for (int k = 0; k < K; ++k) __builtin_memcpy(p + k * (width / K), &v[k], sizeof(V));
    }
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
    const uint16_t* weights = l.weights + point * (l.corners - 1);
    int32_t left = kWhole;
    for (int64_t k = 0; k < l.corners; ++k) {
        const int32_t weight = k + 1 < l.corners ? weights[k] : left;
        left -= weight;
        float* at = values + int64_t(ids[k]) * R::width;
        R sum = R::from(at);
        sum.add(row, float(weight) * kWeightUnit);
        sum.to(at);
    }
}

template <class R> NINEFOLD_INLINE R read(const LatticeView& l, int64_t point, const float* values) {
    const int32_t* ids = l.ids + point * l.corners;
    const uint16_t* weights = l.weights + point * (l.corners - 1);
    R sum = R::zero();
    int32_t left = kWhole;
    for (int64_t k = 0; k < l.corners; ++k) {
        const int32_t weight = k + 1 < l.corners ? weights[k] : left;
        left -= weight;
        sum.add(R::from(values + int64_t(ids[k]) * R::width), float(weight) * kWeightUnit);
    }
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
    NINEFOLD_INLINE Part(int64_t items, int64_t part, int64_t parts)
        : first(items * part / parts), last(items * (part + 1) / parts) {}
};

NINEFOLD_INLINE void clear(float* p, int64_t count) { __builtin_memset(p, 0, size_t(count) * sizeof(float)); }

NINEFOLD_INLINE Part part_of(const Team& team, int64_t items) { return Part(items, team.me, team.size); }

NINEFOLD_INLINE void together(const Team& team) {
    if (team.size > 1) wait_at(team.barrier, team.size);
}

// What is on a lattice's vertices: one buffer per band to spread into, and one or two for the blur. Every thread has a copy of
// its own, whose pointers change hands in the same way. The row behind the last vertex is zero in each buffer.
template <class R> struct Values {
    const LatticeView* l = nullptr;
    Order order = Order::forward;
    int64_t count = 0, apart = 0;
    float *fresh = nullptr, *others = nullptr;  // to spread into: the first band's, and those of the others
    float *blurred = nullptr,
          *spare = nullptr;  // the result, once blurred; with one order the first band's buffer is the spare one

    static int64_t size(const LatticeView& view, Order order, int64_t threads) {
        return (bands(view, threads) + 1 + (order == Order::both)) * floats<R>(view);
    }
    Values() = default;
    Values(const LatticeView& view, Order o, int64_t threads, float* at, bool first)
        : l(&view), order(o), count(bands(view, threads)), apart(floats<R>(view)) {
        fresh = at, others = at + apart, blurred = at + count * apart, spare = order == Order::both ? blurred + apart : fresh;
        if (first) clear(blurred + l->vertices * R::width, R::width), clear(spare + l->vertices * R::width, R::width);
    }
    NINEFOLD_INLINE float* of_band(int64_t band) const { return band ? others + (band - 1) * apart : fresh; }

    NINEFOLD_INLINE int64_t phases() const { return l->corners * (order == Order::both ? 2 : 1); }

    // Phase after phase, all threads together after each: the first axis of an order adds the bands up, the last one of two takes
    // the mean.
    void phase(int64_t phase, const Part& part) {
        const int64_t n = l->corners, step = phase % n;
        const bool second = phase >= n;
        const int32_t* near = l->near + ((order == Order::reversed || second) ? n - 1 - step : step) * l->vertices * 2;
        float* const idle = spare;
        if (step == 0) {
            // after the first order `blurred` holds its result, which stays
            if (count == 1) blur_axis<1, false>(near, fresh, second ? idle : blurred, part);
            else blur_axis<0, false>(near, fresh, second ? idle : blurred, part);
            return;
        }
        if (!second) {
            blur_axis<1, false>(near, blurred, idle, part);
            spare = blurred, blurred = idle;
            if (order != Order::both) fresh = spare;
            return;
        }
        float *from = step % 2 ? spare : fresh, *to = step % 2 ? fresh : spare;
        if (step == n - 1) blur_axis<1, true>(near, from, blurred, part);
        else blur_axis<1, false>(near, from, to, part);
    }

private:
    NINEFOLD_INLINE R sum_of(int64_t v, const float* from) const {
        R sum = R::from(from + v * R::width);
        for (int64_t b = 1; b < count; ++b) sum.add(R::from(of_band(b) + v * R::width));
        return sum;
    }

    // kBands 1: of one buffer; 0: of the sum of all bands'.
    template <int kBands, bool kMean> NINEFOLD_INLINE void blur_axis(const int32_t* near, const float* from, float* to,
                                                                     const Part& part) const {
        for (int64_t v = part.first; v < part.last; ++v) {
            const int64_t a = near[2 * v], b = near[2 * v + 1];
            R sides = kBands ? R::from(from + a * R::width) : sum_of(a, from);
            sides.add(kBands ? R::from(from + b * R::width) : sum_of(b, from));
            R sum = kBands ? R::from(from + v * R::width) : sum_of(v, from);
            sum.add(sides, 0.5f);
            if (kMean) {
                R mean = sum.times(0.5f);
                mean.add(R::from(to + v * R::width), 0.5f);
                sum = mean;
            }
            sum.to(to + v * R::width);
        }
    }
};

}  // namespace NINEFOLD_NS

// A band of the input, copied into scratch with its border written out: in the L1 or L2 cache, contiguous along x, without edges.
#pragma once
#include "common/direct_problem.hpp"
#include "common/simd.hpp"

namespace NINEFOLD_NS {

template <class T, class S> struct Same {
    static constexpr bool value = false;
};
template <class T> struct Same<T, T> {
    static constexpr bool value = true;
};

template <class T, class S> NINEFOLD_INLINE void copy_row(T* to, const S* from, int64_t count) {
    if constexpr (Same<T, S>::value) {
        int64_t k = 0;
        for (; k + kLanes<T> <= count; k += kLanes<T>) store(to + k, load(from + k));
        if (k == count) return;
        if (count >= kLanes<T>) {
            store(to + count - kLanes<T>, load(from + count - kLanes<T>));
        } else {
            for (; k < count; ++k) to[k] = from[k];
        }
    } else {
        for (int64_t k = 0; k < count; ++k) to[k] = wide(from[k]);
    }
}

// One row; `stride` is the distance of neighbours along x in the source. What lies behind the last run is left as it is: no
// arithmetic may read it, since denormal numbers that happen to lie there make it a hundred times as slow, even if its result is
// thrown away.
template <class T, class S>
NINEFOLD_INLINE void stage_row(T* to, const S* from, int64_t stride, const Run* runs, int64_t n_runs) {
    for (int64_t r = 0; r < n_runs; ++r) {
        const Run& run = runs[r];
        T* t = to + run.to;
        if (run.from < 0) {
            for (int64_t k = 0; k < run.count; ++k) t[k] = 0;
            continue;
        }
        const S* f = from + run.from * stride;
        int64_t hop = run.step * stride;
        if (hop == 1) {
            copy_row<T, S>(t, f, run.count);
        } else if (hop == 2) {
            for (int64_t k = 0; k < run.count; ++k) t[k] = wide(f[2 * k]);
        } else {
            for (int64_t k = 0; k < run.count; ++k) t[k] = wide(f[k * hop]);
        }
    }
}

// What is staged along x nearly always: zeros, neighbours in memory from an element on, zeros.
struct Span {
    int64_t before = 0, from = 0, count = 0, after = 0;
};

NINEFOLD_INLINE bool span_of(const Direct& d, Span& s) {
    int64_t first = d.n_runs > 1 && d.runs[0].from < 0 ? 1 : 0, rest = d.n_runs - first - 1;
    const Run& own = d.runs[first];
    s = {own.to, own.from, own.count, rest == 1 ? d.runs[first + 1].count : 0};
    return d.in[2] == 1 && own.from >= 0 && own.step == 1 && (rest == 0 || (rest == 1 && d.runs[first + 1].from < 0));
}

// Writes rows of vectors from registers, not below `floor`: the last vector of each starts at `last` and has `tail` elements.
template <class T, int R, int C>
NINEFOLD_INLINE void store_block(const Vec<T> (&acc)[R][C], T floor, T* out, int64_t out_row, int64_t last,
                                 int64_t tail = kLanes<T>) {
    const Vec<T> lowest = broadcast(floor);
    for (int q = 0; q < R; ++q, out += out_row) {
        for (int c = 0; c < C - 1; ++c) store(out + c * kLanes<T>, larger(acc[q][c], lowest));
        const Vec<T> end = larger(acc[q][C - 1], lowest);
        if (tail < kLanes<T>) store_first(out + last, end, tail);
        else store(out + last, end);
    }
}

// Stages bands of one channel, row by row.
template <class T, class S> class Stager {
public:
    explicit Stager(const Direct& direct) : d(direct) { simple = span_of(d, span); }

    // With `padded`, a vector of zeros is put behind each row.
    void plane(T* to, const S* source, int64_t z, int64_t y, int64_t rows_z, int64_t rows_y, int64_t zs, int64_t ys,
               bool padded) const {
        for (int64_t a = 0; a < rows_z; ++a) {
            int64_t from_z = d.source[0][z + a];
            T* row = to + a * zs;
            const S* given = source + from_z * d.in[0];
            for (int64_t b = 0; b < rows_y; ++b, row += ys) {
                int64_t from_y = d.source[1][y + b];
                if (padded) store(row + d.staged[2], Vec<T>{});
                if (from_z < 0 || from_y < 0)
                    for (int64_t k = 0; k < ys; ++k) row[k] = 0;
                else if (simple) plain_row(row, given + from_y * d.in[1] + span.from);
                else stage_row<T, S>(row, given + from_y * d.in[1], d.in[2], d.runs, d.n_runs);
            }
        }
    }

private:
    NINEFOLD_INLINE void plain_row(T* row, const S* given) const {
        const auto& [before, from, count, after] = span;
        for (int64_t k = 0; k < before; ++k) row[k] = 0;
        copy_row<T, S>(row + before, given, count);
        for (int64_t k = before + count; k < before + count + after; ++k) row[k] = 0;
    }

    const Direct& d;
    bool simple;
    Span span;
};

// Bands of outputs along z and y, and what is staged for one of them.
struct Bands {
    int64_t z, y, n_z, n_y;      // outputs per band, number of bands
    int64_t staged_z, staged_y;  // staged positions per band
    int64_t pitch;               // elements per staged row
};

NINEFOLD_INLINE int64_t reach(const Line& line) {
    int64_t far = 0;
    for (int64_t t = 0; t < line.taps; ++t) far = max(far, line.at[t]);
    return far;
}

// Choose bands so that what is staged (`bytes` per staged row) fits `budget`, with little staged twice.
NINEFOLD_INLINE Bands bands(const Direct& d, int64_t pitch, int64_t bytes, int64_t budget, int64_t least_items) {
    int64_t far[2] = {reach(d.z) + 1, reach(d.y) + 1};
    Bands b;
    b.pitch = pitch;
    double best = -1;
    b.z = b.y = 1;
    for (int64_t z = 1; z <= d.z.count; z = z < d.z.count ? min(2 * z, d.z.count) : z + 1) {
        int64_t rows_z = (z - 1) * d.step[0] + far[0];
        int64_t room = budget / max(1, bytes * rows_z);
        int64_t y = room <= far[1] ? 1 : (room - far[1]) / d.step[1] + 1;
        y = min(d.y.count, max(y, min(d.y.count, 4)));
        // even bands, and enough of them for all threads
        int64_t parts = ceil_div(d.y.count, y);
        if (parts * ceil_div(d.z.count, z) < least_items)
            parts = min(ceil_div(d.y.count, 4), ceil_div(least_items, ceil_div(d.z.count, z)));
        y = ceil_div(d.y.count, max(parts, 1));
        int64_t rows_y = (y - 1) * d.step[1] + far[1];
        double waste = double(rows_z) * double(rows_y) / (double(z) * double(y));
        if (double(rows_z) * double(rows_y) * double(bytes) > 2.0 * double(budget)) waste *= 4;
        if (best < 0 || waste < best) {
            best = waste;
            b.z = z;
            b.y = y;
        }
    }
    b.n_z = ceil_div(d.z.count, b.z);
    b.n_y = ceil_div(d.y.count, b.y);
    b.staged_z = (b.z - 1) * d.step[0] + far[0];
    b.staged_y = (b.y - 1) * d.step[1] + far[1];
    return b;
}

}  // namespace NINEFOLD_NS

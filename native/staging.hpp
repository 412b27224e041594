// A band of the input, copied into scratch with its border written out: in the cache, contiguous along x, without edges.
#pragma once
#include "simd.hpp"

namespace NINEFOLD_NS {

template <class T, class S> struct Same { static constexpr bool value = false; };
template <class T> struct Same<T, T> { static constexpr bool value = true; };

// One row. `stride` is the distance of neighbours along x in the source.
template <class T, class S>
NINEFOLD_INLINE void stage_row(T* to, const S* from, int64_t stride, const Run* runs, int64_t n_runs, int64_t used, int64_t pitch) {
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
            for (int64_t k = 0; k < run.count; ++k) t[k] = wide(f[k]);
        } else if (hop == 2) {
            for (int64_t k = 0; k < run.count; ++k) t[k] = wide(f[2 * k]);
        } else {
            for (int64_t k = 0; k < run.count; ++k) t[k] = wide(f[k * hop]);
        }
    }
    for (int64_t k = used; k < pitch; ++k) to[k] = 0;
}

// A row of pixels whose channels are neighbours: `channels` of them, zeros up to `block`.
template <class T, class S>
NINEFOLD_INLINE void stage_pixels(T* to, const S* from, int64_t stride, const Run* runs, int64_t n_runs, int64_t channels, int64_t block) {
    for (int64_t r = 0; r < n_runs; ++r) {
        const Run& run = runs[r];
        T* t = to + run.to * block;
        if (run.from < 0) {
            for (int64_t k = 0; k < run.count * block; ++k) t[k] = 0;
            continue;
        }
        const S* f = from + run.from * stride;
        int64_t hop = run.step * stride;
        for (int64_t k = 0; k < run.count; ++k, t += block, f += hop) {
            if (channels == block) {
                for (int64_t c = 0; c < block; ++c) t[c] = wide(f[c]);
            } else {
                for (int64_t c = 0; c < block; ++c) t[c] = c < channels ? T(wide(f[c])) : T(0);
            }
        }
    }
}

// Bands of outputs along z and y, and what is staged for one of them.
struct Bands {
    int64_t z, y, n_z, n_y;        // outputs per band, number of bands
    int64_t staged_z, staged_y;    // staged positions per band
    int64_t pitch;                 // elements per staged row
};

NINEFOLD_INLINE int64_t reach(const Line& line) {
    int64_t far = 0;
    for (int64_t t = 0; t < line.taps; ++t) far = most(far, line.at[t]);
    return far;
}

// Choose bands so that what is staged (`bytes` per staged row) fits `budget`, with little staged twice.
NINEFOLD_INLINE Bands bands(const Direct& d, int64_t pitch, int64_t bytes, int64_t budget, int64_t least_items) {
    int64_t far[2] = {reach(d.z) + 1, reach(d.y) + 1};
    Bands b;
    b.pitch = pitch;
    double best = -1;
    b.z = b.y = 1;
    for (int64_t z = 1; z <= d.z.count; z = z < d.z.count ? least(2 * z, d.z.count) : z + 1) {
        int64_t rows_z = (z - 1) * d.step[0] + far[0];
        int64_t room = budget / most(1, bytes * rows_z);
        int64_t y = room <= far[1] ? 1 : (room - far[1]) / d.step[1] + 1;
        y = least(d.y.count, most(y, least(d.y.count, 4)));
        // even bands, and enough of them for all threads
        int64_t parts = ceil_div(d.y.count, y);
        if (parts * ceil_div(d.z.count, z) < least_items) parts = least(ceil_div(d.y.count, 4), ceil_div(least_items, ceil_div(d.z.count, z)));
        y = ceil_div(d.y.count, most(parts, 1));
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

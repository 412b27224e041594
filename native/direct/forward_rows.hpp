// One output channel at a time: up to four of its rows share what is loaded of an input row.
//
//     input row u  x0 x1 x2 ...   is kernel row u under output row 0, u - ks under row 1, u - 2 ks under row 2, ...
//
//     row_block    rows whose outputs are neighbours along x, or are written at a stride
//     pair_block   two residues along x, made side by side and written alternating
//     row_kernel   kernels along x only, rows read where they lie
#pragma once
#include "direct/forward_plan.hpp"

namespace NINEFOLD_NS {
namespace {

// Two lines whose outputs lie between each other: rows of both are made, then written alternating.
template <class T, class S>
inline void pair_block(Forward<T, S>& f, const Band<T>& band, Rows<T> (&args)[2], S* to, int64_t z, int64_t y, int64_t many,
                       int64_t rs, T* buffer) {
    const Direct& d = f.d;
    const T* base = f.first_read(band, z, y);
    int64_t vectors = ceil_div(d.x[0].count, kLanes<T>), k = 0;
    while (vectors) {
        int64_t c = balanced_chunk(vectors, widest(many));
        int64_t count[2];
        for (int l = 0; l < 2; ++l) {
            int64_t left = d.x[l].count - k, own = min(c, ceil_div(left, kLanes<T>));
            count[l] = min(left, c * kLanes<T>);
            if (!own) continue;
            args[l].in = base + k;
            args[l].last = count[l] >= kLanes<T> ? count[l] - kLanes<T> : 0;
            rows<T>(many, own, args[l], buffer + l * 4 * 6 * kLanes<T>, 6 * kLanes<T>, min(count[l], kLanes<T>));
        }
        if constexpr (Same<T, S>::value)
            for (int64_t q = 0; q < many; ++q)
                zip<T>(buffer + q * 6 * kLanes<T>, buffer + (4 + q) * 6 * kLanes<T>, f.at(to, z, y + q * rs, d.x[0], k), count[0],
                       count[1]);
        k += c * kLanes<T>;
        vectors -= c;
    }
}

// `many` output rows, rs apart, from row y on.
template <class T, class S>
inline void row_block(Forward<T, S>& f, const Band<T>& band, Rows<T>& args, const Line& x, S* to, int64_t z, int64_t y,
                      int64_t many, int64_t rs, T* buffer) {
    const Direct& d = f.d;
    const T* base = f.first_read(band, z, y);
    int64_t vectors = ceil_div(x.count, kLanes<T>), k = 0;
    while (vectors) {
        int64_t c = balanced_chunk(vectors, widest(many));
        int64_t left = x.count - k;
        bool ends = c == vectors;
        int64_t tail = ends && left < kLanes<T> ? left : kLanes<T>;
        args.in = base + k;
        args.last = ends && left >= kLanes<T> ? left - kLanes<T> : (c - 1) * kLanes<T>;
        if constexpr (Same<T, S>::value) {
            if (f.straight) {
                rows<T>(many, c, args, f.at(to, z, y, x, k), rs * d.jump[1] * d.out[1], tail);
                k += c * kLanes<T>;
                vectors -= c;
                continue;
            }
        }
        rows<T>(many, c, args, buffer, 6 * kLanes<T>, tail);
        int64_t count = min(left, c * kLanes<T>), hop = d.out[2] * d.jump[2];
        for (int64_t q = 0; q < many; ++q) {
            S* row = f.at(to, z, y + q * rs, x, k);
            for (int64_t e = 0; e < count; ++e) narrow(buffer[q * 6 * kLanes<T> + e], row + e * hop);
        }
        k += c * kLanes<T>;
        vectors -= c;
    }
}

template <class T, class S>
inline void by_rows(Forward<T, S>& f, const Band<T>& band, int64_t o, S* to, T* packed, T* buffer, int64_t* channels) {
    const Direct& d = f.d;
    T init = f.bias ? T(wide(f.bias[o])) : T(0);
    for (int64_t i = 0; i < f.reads(o); ++i) channels[i] = f.channel(o, i) * band.is;
    int64_t ky = d.y.taps;
    int64_t dy = ky > 1 ? d.y.at[1] - d.y.at[0] : 1;
    // output rows rs apart read the same input rows, ks kernel rows apart
    int64_t a = dy, b = d.step[1];
    while (b) {
        int64_t c = a % b;
        a = b;
        b = c;
    }
    int64_t rs = dy / a, ks = d.step[1] / a;
    T* p = packed;
    for (int64_t l = 0; l < d.n_x; l += f.paired ? 2 : 1) {
        Rows<T> args[2];
        for (int64_t k = 0; k < (f.paired ? 2 : 1); ++k) args[k] = f.packed_line(band, d.x[l + k], o, channels, p, init, dy, ks);
        for (int64_t z = band.z0; z < band.z1; ++z)
            for (int64_t r = 0; r < min(rs, band.y1 - band.y0); ++r) {
                int64_t left = ceil_div(band.y1 - band.y0 - r, rs), y = band.y0 + r;
                while (left) {
                    int64_t many = balanced_chunk(left, 4);
                    if (f.paired) pair_block(f, band, args, to, z, y, many, rs, buffer);
                    else row_block(f, band, args[0], d.x[l], to, z, y, many, rs, buffer);
                    y += many * rs;
                    left -= many;
                }
            }
    }
}

// Rows under a kernel along x, read where they lie; what a block reads over the ends of a row is copied into `window` before.
template <class T, class S>
inline void row_kernel(Forward<T, S>& f, const Band<T>& band, int64_t g, const T* source, T* to, T* window, T* packed) {
    const Direct& d = f.d;
    Span span;
    span_of(d, span);
    const Line& x = d.x[0];
    const int64_t none = 0, far = reach(x), until = span.before + span.count;
    T* p = packed;
    Rows<T> args = f.packed_line(band, x, g, &none, p, f.bias ? T(wide(f.bias[g])) : T(0), 0, 1);
    for (int64_t z = band.z0; z < band.z1; ++z)
        for (int64_t y = band.y0; y < band.y1; ++y) {
            const int64_t from_z = d.source[0][z * d.step[0] + d.z.at[0]], from_y = d.source[1][y * d.step[1] + d.y.at[0]];
            const bool zeros = from_z < 0 || from_y < 0;
            const T* row = zeros ? nullptr : source + from_z * d.in[0] + from_y * d.in[1] + span.from;
            T* out_row = f.at(to, z, y, x, 0);
            for (int64_t k = 0; k < x.count;) {
                const int64_t c = balanced_chunk(ceil_div(x.count - k, kLanes<T>), kMost<1>), left = x.count - k;
                const int64_t own = min(left, c * kLanes<T>), end = k + max(own, kLanes<T>) + far;
                args.last = own < c * kLanes<T> ? max(own - kLanes<T>, 0) : (c - 1) * kLanes<T>;
                if (!zeros && k >= span.before && end <= until) {
                    args.in = row + (k - span.before);
                } else {
                    for (int64_t j = k; j < end; ++j)
                        window[j - k] = !zeros && j >= span.before && j < until ? row[j - span.before] : T(0);
                    args.in = window;
                }
                rows<T>(1, c, args, out_row + k, 0, min(own, kLanes<T>));
                k += own;
            }
        }
}

}  // namespace
}  // namespace NINEFOLD_NS

// Forward and backward_data by direct summation, vectors along x.
//
// A band of the input is staged with its border, so that no loop meets an edge. Two inner loops follow.
// Several outputs per group: each loaded vector serves up to four output channels (forward_outs.hpp).
// One output per group: a vector of an input row serves up to four output rows (forward_rows.hpp).
// Both keep twelve accumulators, which hide the latency of multiply-add. Both load fewer than two vectors per multiply-add.
#include "common/threads.hpp"
#include "direct/direct.hpp"
#include "direct/forward_outs.hpp"
#include "direct/forward_rows.hpp"
#include "direct/forward_unstaged.hpp"

namespace NINEFOLD_NS {

namespace {

template <class T, class S>
inline void stage(Forward<T, S>& f, Band<T>& band, const S* source, T* to) {
    const Direct& d = f.d;
    int64_t z = band.z0 * d.step[0], y = band.y0 * d.step[1];
    if constexpr (Same<T, S>::value) {
        if (f.s.in_place) {
            band.base = source + d.source[0][z] * d.in[0] + d.source[1][y] * d.in[1] + d.runs[0].from;
            band.is = d.in_c;
            band.zs = d.in[0];
            band.ys = d.in[1];
            return;
        }
    }
    int64_t rows_z = min(f.s.bands.staged_z, d.staged[0] - z), rows_y = min(f.s.bands.staged_y, d.staged[1] - y);
    band.ys = f.s.bands.pitch;
    band.zs = band.ys * f.s.bands.staged_y;
    band.is = band.zs * f.s.bands.staged_z;
    band.base = to;
    Stager<T, S> stager(d);
    for (int64_t i = 0; i < d.ins; ++i)
        stager.plane(to + i * band.is, source + i * d.in_c, z, y, rows_z, rows_y, band.zs, band.ys, f.s.padded);
}

// Where the packed weights of output o of group g start, and the step between their taps: a block of Q outputs lies together.
template <class T, class S>
inline void pack(Forward<T, S>& f, int64_t k) {
    const Direct& d = f.d;
    int64_t g = k / d.outs, o = k % d.outs;
    int64_t first = o / 4 * 4, width = min(4, d.outs - first);
    const S* w = f.weight + g * d.w_group + o * d.w_out;
    for (int64_t l = 0; l < d.n_x; ++l) {
        const Line& x = d.x[l];
        T* to = f.block(g, first, width, l) + (o - first);
        for (int64_t i = 0; i < d.ins; ++i)
            for (int64_t a = 0; a < d.z.taps; ++a)
                for (int64_t b = 0; b < d.y.taps; ++b)
                    for (int64_t c = 0; c < x.taps; ++c, to += width)
                        *to = wide(w[i * d.w_in + d.z.weight[a] + d.y.weight[b] + x.weight[c]]);
    }
}

template <class T, class S>
inline void item(Forward<T, S>& f, int64_t k, char* mine) {
    const Direct& d = f.d;
    int64_t part = k % f.s.split;
    k /= f.s.split;
    int64_t by = k % f.s.bands.n_y;
    k /= f.s.bands.n_y;
    int64_t bz = k % f.s.bands.n_z;
    k /= f.s.bands.n_z;
    int64_t g = k % d.groups, n = k / d.groups;
    Band<T> band{};
    band.z0 = bz * f.s.bands.z;
    band.y0 = by * f.s.bands.y;
    band.z1 = min(band.z0 + f.s.bands.z, d.z.count);
    band.y1 = min(band.y0 + f.s.bands.y, d.y.count);
    const S* source = f.in + n * d.in_n + g * d.ins * d.in_c;
    if constexpr (kMasks && Same<S, float>::value) {
        if (f.s.unstaged == 3)
            return unstaged<3>(f, band, g, source, f.out + n * d.out_n + g * d.out_c, reinterpret_cast<T*>(mine));
        if (f.s.unstaged == 5)
            return unstaged<5>(f, band, g, source, f.out + n * d.out_n + g * d.out_c, reinterpret_cast<T*>(mine));
    }
    char* rest = mine + f.s.staged;
    if constexpr (Same<T, S>::value) {
        if (f.s.row_kernel)
            return row_kernel(f, band, g, source, f.out + n * d.out_n + g * d.out_c, reinterpret_cast<T*>(mine),
                              reinterpret_cast<T*>(rest));
    }
    stage(f, band, source, reinterpret_cast<T*>(mine));
    S* to = f.out + n * d.out_n + g * d.outs * d.out_c;
    T* buffer = reinterpret_cast<T*>(rest + f.s.packed);
    int64_t* offsets = reinterpret_cast<int64_t*>(rest + f.s.packed + f.s.buffer);
    if (f.s.several) return by_outs(f, band, g, part, to, buffer, offsets);
    int64_t from = d.outs * part / f.s.split, until = d.outs * (part + 1) / f.s.split;
    for (int64_t o = from; o < until; ++o) by_rows(f, band, g + o, to + o * d.out_c, reinterpret_cast<T*>(rest), buffer, offsets);
}

template <class T, class S>
inline void run(Forward<T, S>&& f) {
    const Direct& d = f.d;
    int64_t n = min(d.threads, f.s.items);
#pragma omp parallel num_threads(n) if (n > 1)
    {
        char* mine = f.scratch + f.s.each * this_thread();
        if (f.s.several) {
#pragma omp for schedule(static)
            for (int64_t g = 0; g < d.groups * d.outs; ++g) pack(f, g);
        }
#pragma omp for schedule(dynamic, omp_chunk(f.s.items, n))
        for (int64_t k = 0; k < f.s.items; ++k) item(f, k, mine);
    }
}

template <class T> size_t scratch_of(const Direct& d) {
    Layout s = layout<T>(d);
    return size_t(s.shared + s.each * min(d.threads, s.items));
}

}  // namespace

size_t planar_forward_scratch(const Direct& d) { return d.type == Type::float64 ? scratch_of<double>(d) : scratch_of<float>(d); }

void planar_forward(const Direct& d, const void* in, const void* weight, const void* bias, void* out, char* scratch) {
    switch (d.type) {
        case Type::float32: return run(Forward<float, float>(d, in, weight, bias, out, scratch));
        case Type::float64: return run(Forward<double, double>(d, in, weight, bias, out, scratch));
        case Type::bfloat16: return run(Forward<float, BFloat16>(d, in, weight, bias, out, scratch));
    }
}

}  // namespace NINEFOLD_NS

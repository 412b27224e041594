// Bands of pixels whose channels are neighbours (channels-last), staged in blocks of channels: for depthwise/ and grouped/.
#pragma once
#include "common/staging.hpp"

namespace NINEFOLD_NS {

constexpr int64_t kFar = 4 << 10;  // bytes that pixels are asked for ahead of their use

// A row of pixels whose channels are neighbours, read in the order of memory and laid out in blocks of channels: channel c of
// pixel k goes to to[c / block * block_stride + k * block + c % block]; zeros fill the last block.
template <class T, class S>
NINEFOLD_INLINE void stage_pixels(T* to, int64_t block_stride, const S* from, int64_t stride, const Run* runs, int64_t n_runs,
                                  int64_t channels, int64_t block) {
    int64_t whole = channels / block, left = channels % block;
    for (int64_t r = 0; r < n_runs; ++r) {
        const Run& run = runs[r];
        T* t = to + run.to * block;
        if (run.from < 0) {
            for (int64_t b = 0; b < whole + (left > 0); ++b)
                for (int64_t k = 0; k < run.count * block; ++k) t[b * block_stride + k] = 0;
            continue;
        }
        const S* f = from + run.from * stride;
        int64_t hop = run.step * stride, far = max(1, kFar / max(1, stride * int64_t(sizeof(S)))) * hop;
        for (int64_t k = 0; k < run.count; ++k, t += block, f += hop) {
            for (int64_t b = 0; b < whole; ++b) {
                __builtin_prefetch(f + far + b * block);
                copy_row<T, S>(t + b * block_stride, f + b * block, block);
            }
            if (left)
                for (int64_t c = 0; c < block; ++c) t[whole * block_stride + c] = c < left ? T(wide(f[whole * block + c])) : T(0);
        }
    }
}

namespace {

// Where tap t lies in the weight, taps in the order line, z, y, x.
NINEFOLD_INLINE int64_t place(const Direct& d, int64_t t) {
    int64_t l = 0, planes = d.z.taps * d.y.taps;
    while (t >= planes * d.x[l].taps) t -= planes * d.x[l++].taps;
    int64_t kx = d.x[l].taps;
    return d.z.weight[t / kx / d.y.taps] + d.y.weight[t / kx % d.y.taps] + d.x[l].weight[t % kx];
}

struct Band {
    int64_t n, z0, z1, y0, y1;
};

NINEFOLD_INLINE Band band(const Direct& d, const Bands& bands, int64_t part) {
    int64_t by = part % bands.n_y, bz = part / bands.n_y % bands.n_z;
    int64_t z0 = bz * bands.z, y0 = by * bands.y;
    return {part / bands.n_y / bands.n_z, z0, min(z0 + bands.z, d.z.count), y0, min(y0 + bands.y, d.y.count)};
}

// Stages what a band of outputs reads, in blocks of channels that lie `block_stride` elements from each other, and `behind`
// pixels of zeros after each row.
template <class T, class S>
NINEFOLD_INLINE void stage_band(const Direct& d, const Bands& bands, const Band& b, const S* source, int64_t channels,
                                int64_t block, int64_t block_stride, int64_t behind, T* to) {
    const int64_t z = b.z0 * d.step[0], y = b.y0 * d.step[1], ys = bands.pitch, zs = ys * bands.staged_y;
    const int64_t rows_z = min(bands.staged_z, d.staged[0] - z), rows_y = min(bands.staged_y, d.staged[1] - y);
    const int64_t blocks = ceil_div(channels, block), end = (d.staged[2] + behind) * block;
    for (int64_t i = 0; i < rows_z; ++i)
        for (int64_t j = 0; j < rows_y; ++j) {
            T* row = to + i * zs + j * ys;
            const int64_t from_z = d.source[0][z + i], from_y = d.source[1][y + j];
            const bool zeros = from_z < 0 || from_y < 0;
            for (int64_t k = 0; k < blocks; ++k)
                for (int64_t e = zeros ? 0 : d.staged[2] * block; e < end; ++e) row[k * block_stride + e] = 0;
            if (!zeros)
                stage_pixels<T, S>(row, block_stride, source + from_z * d.in[0] + from_y * d.in[1], d.in[2], d.runs, d.n_runs,
                                   channels, block);
        }
}

}  // namespace
}  // namespace NINEFOLD_NS

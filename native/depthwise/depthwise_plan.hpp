// How a depthwise convolution of channels-last memory is cut, and what every stage of it knows.
//
//     staged band, blocks of channels:   block 0: [z][y][x][2 vectors]   block 1: ...        block_stride apart
//     packed kernels:                    block 0: [tap][2 vectors]       block 1: ...
//     item of work:                      one band of rows, `together` blocks of channels
//
// In place, nothing is staged: an item goes through its rows of pixels as they lie.
#pragma once
#include "depthwise/pixel_kernels.hpp"

namespace NINEFOLD_NS {
namespace {

constexpr int64_t kBand = 128 << 10;  // bytes staged at once, all channels of a few rows
constexpr int64_t kAhead = 6 << 10;   // bytes that pixels are asked for ahead of their use
constexpr int64_t kHeld = 64 << 10;   // bytes of kernels, of all channels, that stay in the second cache beside the pixels

constexpr int64_t kShort = 12, kLong = 32;  // taps, and outputs of a row

struct Layout {
    Bands bands;
    bool in_place;            // nothing is staged: pixels are read where they lie, and taps outside are left out
    int64_t blocks;           // of channels
    int64_t together, parts;  // blocks that an item takes, and items that takes
    int64_t block_stride, staged, packed, offsets, sums, grads, each, items, chunks;
};

template <class T> Layout layout(const Direct& d, bool weights) {
    Layout s{};
    int64_t row = d.staged[2] * kBlock<T> * int64_t(sizeof(T));
    s.blocks = ceil_div(d.groups, kBlock<T>);
    int64_t tall = (reach(d.z) + 1) * (reach(d.y) + 1 + 3 * d.step[1]);
    s.together = s.blocks;
    s.packed = round_up(d.taps * kBlock<T> * int64_t(sizeof(T)), 64);
    // sums of many taps would be loaded and stored again for every short row
    const bool often = weights && d.taps > kShort && (d.n_x != 1 || d.x[0].count < kLong);
    s.in_place = !often && d.type != Type::bfloat16 && even_steps(d) > 0 && s.packed * s.blocks <= kHeld;
    while (!s.in_place && s.together > 2 && s.together * row * tall > kBand) s.together = (s.together + 1) / 2;
    s.parts = ceil_div(s.blocks, s.together);
    int64_t wanted = d.threads > 1 ? ceil_div(2 * d.threads, s.parts * d.batch) : 1;
    // what is read where it lies needs no room: few bands, whose rows at the ends are read twice
    s.bands = bands(d, d.staged[2] * kBlock<T>, row * s.together, s.in_place ? int64_t(1) << 40 : kBand, wanted);
    int64_t places = d.batch * s.bands.n_z * s.bands.n_y, most_x = 0;
    for (int64_t l = 0; l < d.n_x; ++l) most_x = max(most_x, d.x[l].count);
    s.block_stride = round_up(d.staged[2] * kBlock<T> * s.bands.staged_z * s.bands.staged_y, 16);
    s.staged = s.in_place ? 0 : s.block_stride * int64_t(sizeof(T)) * s.together;
    s.packed *= weights || s.in_place ? s.together : 1;
    s.offsets = round_up(d.taps * 8 * (s.in_place ? 6 : 1), 64);
    s.chunks = weights && s.parts < 2 * d.threads ? min(places, d.threads) : 1;
    s.items = weights ? s.parts * s.chunks : s.parts * places;
    s.sums = weights && s.chunks > 1 ? round_up(d.groups * d.taps * int64_t(sizeof(T)), 64) * s.chunks : 0;
    s.grads = weights ? round_up(most_x * kBlock<T> * int64_t(sizeof(T)), 64) : 0;
    s.each = s.staged + s.packed + s.offsets + s.grads + 4096;
    return s;
}

template <class T, class S> struct DepthwiseNhwc {
    const Direct& d;
    Layout s;
    char* memory;

    DepthwiseNhwc(const Direct& direct, bool weights, char* memory) : d(direct), s(layout<T>(direct, weights)), memory(memory) {}

    int64_t fill_offsets(int64_t* at) const {
        int64_t count = 0, ys = s.bands.pitch, zs = ys * s.bands.staged_y;
        for (int64_t l = 0; l < d.n_x; ++l)
            for (int64_t a = 0; a < d.z.taps; ++a)
                for (int64_t b = 0; b < d.y.taps; ++b)
                    for (int64_t c = 0; c < d.x[l].taps; ++c)
                        at[count++] = d.z.at[a] * zs + d.y.at[b] * ys + d.x[l].at[c] * kBlock<T>;
        return count;
    }

    void pack(int64_t channels, T* packed, const S* weight) const {
        for (int64_t t = 0; t < d.taps; ++t)
            for (int64_t k = 0, where = place(d, t); k < kBlock<T>; ++k)
                packed[t * kBlock<T> + k] = k < channels ? T(wide(weight[k * d.w_group + where])) : T(0);
    }
};

}  // namespace
}  // namespace NINEFOLD_NS

// Groups of a few channels, channels-last.
//
// A vector holds output channels of one pixel: of several groups, or a part of one group. Input i of each group is spread over
// the outputs of its group by a permutation. If a vector has no second group, one element is broadcast instead. Up to ten pixels
// of a row share each kernel vector. Under three neighbouring taps, a spread pixel serves three outputs. All of it reads staged
// bands: in memory, pixels are often a power of two apart, and the L1 cache holds few such lines.
#include "grouped/grouped_nhwc.hpp"
#include "common/threads.hpp"
#include "grouped/pixel_tiles.hpp"

namespace NINEFOLD_NS {
namespace {

constexpr int64_t kMostWidth = 64;    // channels of a group
constexpr int64_t kBand = 256 << 10;  // bytes staged at once

// Pixels behind a staged row that the tiles of any line read, for outputs that are not written.
NINEFOLD_INLINE int64_t read_behind(const Direct& d) {
    int64_t end = d.staged[2];
    for (int64_t l = 0; l < d.n_x; ++l) {
        const int64_t count = d.x[l].count, each = tile_count(max(1, count));
        for (int64_t k = 0; k < count; k += each) end = max(end, k + tile_size(min(each, count - k)) + reach(d.x[l]));
    }
    return end - d.staged[2];
}

struct Layout {
    Bands bands;
    int64_t channels, vectors;
    int64_t width, blocks;    // channels that are staged together: those that a vector of outputs reads; such blocks
    int64_t together, parts;  // blocks that an item takes, and items that takes
    int64_t behind;           // pixels of zeros after a staged row
    int64_t block_stride, grad_block_stride;  // elements between blocks of a band, of what is read and of gradients
    int64_t items, chunks;
    int64_t kernel, offsets, staged, grads, each;  // bytes: of all kernels, packed, or of their sums; of a thread
};

Layout layout(const Direct& d, bool weights) {
    Layout s{};
    s.channels = d.groups * d.outs;
    s.vectors = ceil_div(s.channels, kL);
    s.width = max(kL, d.ins);
    s.blocks = ceil_div(s.channels, s.width);
    int64_t most_x = 0, rows_of_taps = d.z.taps * d.y.taps;
    for (int64_t l = 0; l < d.n_x; ++l) most_x = max(most_x, d.x[l].count);
    const int64_t pitch = (d.staged[2] + kMostPixels) * s.width, row = pitch * int64_t(sizeof(float)) * (weights ? 2 : 1);
    const int64_t tall = (reach(d.z) + 1) * (reach(d.y) + 1 + 3 * d.step[1]);
    s.together = s.blocks;
    while (s.together > 2 && s.together * row * tall > kBand) s.together = (s.together + 1) / 2;
    s.parts = ceil_div(s.blocks, s.together);
    const int64_t wanted = d.threads > 1 ? ceil_div(2 * d.threads, s.parts * d.batch) : 1;
    s.bands = bands(d, pitch, row * s.together, kBand, wanted);
    s.behind = weights ? 0 : read_behind(d);
    s.block_stride = round_up(pitch * s.bands.staged_z * s.bands.staged_y, 16);
    s.grad_block_stride = weights ? most_x * s.width * s.bands.z * s.bands.y : 0;
    const int64_t places = d.batch * s.bands.n_z * s.bands.n_y;
    s.chunks = weights && s.parts < 2 * d.threads ? min(places, d.threads) : 1;
    s.items = s.parts * (weights ? s.chunks : places);
    s.kernel = round_up(s.vectors * d.taps * d.ins * kL * int64_t(sizeof(float)), 64);
    s.offsets = round_up(rows_of_taps * 8, 64);
    s.staged = round_up(s.block_stride * s.together * int64_t(sizeof(float)), 64);
    s.grads = round_up(s.grad_block_stride * s.together * int64_t(sizeof(float)), 64);
    s.each = s.offsets + s.staged + s.grads + 4096;
    return s;
}

template <int M> class GroupedNhwc {
public:
    GroupedNhwc(const Direct& direct, bool weights, char* scratch)
        : d(direct), s(layout(direct, weights)), kernels(reinterpret_cast<float*>(scratch)) {
        rooms = scratch + s.kernel * (weights ? s.chunks : 1);
    }

    void forward(const float* in, const float* weight, const float* bias, float* out) {
        const int64_t n = min(d.threads, s.items);
#pragma omp parallel num_threads(n) if (n > 1)
        {
            const Room room = mine();
#pragma omp for schedule(static)
            for (int64_t k = 0; k < s.vectors * d.taps; ++k) pack(k, weight);
#pragma omp for schedule(dynamic, 1)
            for (int64_t k = 0; k < s.items; ++k) {
                const int64_t c = k % s.parts * s.together * width(), own = min(s.together * width(), s.channels - c);
                const Band b = band(d, s.bands, k / s.parts);
                stage_band<float, float>(d, s.bands, b, in + b.n * d.in_n + c, own, width(), s.block_stride, s.behind,
                                         room.staged);
                for (int64_t v = 0; v < own; v += kL)
                    vector(b, c + v, bias, room.staged + v / width() * s.block_stride, out + b.n * d.out_n + c + v, room.rows);
            }
        }
    }

    void backward_weights(const float* in, const float* grad, float* weight) {
        const int64_t n = min(d.threads, s.items), size = s.kernel / int64_t(sizeof(float)),
                      places = d.batch * s.bands.n_z * s.bands.n_y;
#pragma omp parallel num_threads(n) if (n > 1)
        {
            const Room room = mine();
#pragma omp for schedule(dynamic, 1)
            for (int64_t k = 0; k < s.items; ++k) {
                const int64_t chunk = k % s.chunks, c = k / s.chunks * s.together * width(),
                              own = min(s.together * width(), s.channels - c);
                float* total = kernels + chunk * size + c * d.taps * d.ins;
                for (int64_t e = 0; e < round_up(own, kL) * d.taps * d.ins; ++e) total[e] = 0;
                for (int64_t part = places * chunk / s.chunks; part < places * (chunk + 1) / s.chunks; ++part) {
                    const Band b = band(d, s.bands, part);
                    stage_band<float, float>(d, s.bands, b, in + b.n * d.in_n + c, own, width(), s.block_stride, s.behind,
                                             room.staged);
                    add(b, own, grad + b.n * d.out_n + c, room, total);
                }
            }
#pragma omp for schedule(static)
            for (int64_t k = 0; k < s.vectors * d.taps; ++k) unpack(k, size, weight);
        }
    }

private:
    struct Room {
        int64_t* rows;
        float *staged, *grads;
    };

    Room mine() const {
        char* p = rooms + s.each * this_thread();
        const Room room{reinterpret_cast<int64_t*>(p), reinterpret_cast<float*>(p + s.offsets),
                        reinterpret_cast<float*>(p + s.offsets + s.staged)};
        for (int64_t i = 0, n = 0; i < d.z.taps; ++i)
            for (int64_t j = 0; j < d.y.taps; ++j)
                room.rows[n++] = d.z.at[i] * s.bands.pitch * s.bands.staged_y + d.y.at[j] * s.bands.pitch;
        return room;
    }

    Reads reads(const Line& x, const int64_t* rows) const {
        const bool slides = x.taps == 3 && x.at[1] == x.at[0] + 1 && x.at[2] == x.at[0] + 2;
        return {rows, x.at, d.z.taps * d.y.taps, x.taps, d.ins, width(), slides};
    }

    // Kernels of a vector of outputs: [line][z, y][inputs of a group][x][outputs], zeros behind the last. Where the t-th tap of
    // them all is.
    int64_t packed_at(int64_t t, int64_t* taps) const {
        int64_t l = 0, planes = d.z.taps * d.y.taps, before = 0;
        while (t - before >= planes * d.x[l].taps) before += planes * d.x[l++].taps;
        *taps = d.x[l].taps;
        return ((before + (t - before) / *taps * *taps) * d.ins + (t - before) % *taps) * kL;
    }

    void pack(int64_t k, const float* weight) {
        int64_t taps;
        const int64_t c = k / d.taps * kL, where = place(d, k % d.taps);
        float* to = kernels + c * d.taps * d.ins + packed_at(k % d.taps, &taps);
        for (int64_t i = 0; i < d.ins; ++i, to += taps * kL)
            for (int64_t o = c; o < c + kL; ++o)
                to[o - c] = o < s.channels ? weight[o / d.outs * d.w_group + o % d.outs * d.w_out + i * d.w_in + where] : 0.0f;
    }

    void unpack(int64_t k, int64_t size, float* weight) const {
        int64_t taps;
        const int64_t c = k / d.taps * kL, where = place(d, k % d.taps);
        const float* from = kernels + c * d.taps * d.ins + packed_at(k % d.taps, &taps);
        for (int64_t i = 0; i < d.ins; ++i, from += taps * kL)
            for (int64_t o = c; o < min(c + kL, s.channels); ++o) {
                float sum = 0;
                for (int64_t chunk = 0; chunk < s.chunks; ++chunk) sum += from[chunk * size + o - c];
                weight[o / d.outs * d.w_group + o % d.outs * d.w_out + i * d.w_in + where] = sum;
            }
    }

    // All outputs of a band in the vector of channels from c on.
    void vector(const Band& b, int64_t c, const float* bias, const float* staged, float* out, const int64_t* rows) const {
        const int64_t own = min(kL, s.channels - c), ys = s.bands.pitch, zs = ys * s.bands.staged_y, hop = d.jump[2] * d.out[2];
        float start[kL] = {};
        if (bias) __builtin_memcpy(start, bias + c, size_t(own) * sizeof(float));
        const float* packed = kernels + c * d.taps * d.ins;
        for (int64_t l = 0; l < d.n_x; ++l) {
            const Line& x = d.x[l];
            const Reads r = reads(x, rows);
            for (int64_t z = b.z0; z < b.z1; ++z)
                for (int64_t y = b.y0; y < b.y1; ++y) {
                    const float* in = staged + (z - b.z0) * d.step[0] * zs + (y - b.y0) * d.step[1] * ys;
                    float* to = out + (d.z.first + z * d.jump[0]) * d.out[0] + (d.y.first + y * d.jump[1]) * d.out[1] +
                                x.first * d.out[2];
                    const int64_t count = tile_count(x.count), tiles = ceil_div(x.count, count),
                                  last = x.count - (tiles - 1) * count;
                    Writes w{to, hop, own, float(d.floor)};
                    of_width(r, in, packed, start, w, tiles - 1, count);
                    w.out += (tiles - 1) * count * hop;
                    of_width(r, in + (tiles - 1) * count * width(), packed, start, w, 1, last);
                }
            packed += r.n_rows * x.taps * d.ins * kL;
        }
    }

    void of_width(const Reads& r, const float* in, const float* packed, const float* start, const Writes& w, int64_t tiles,
                  int64_t count) const {
        switch (tile_size(count)) {
            case 4: return of_taps<4>(r, in, packed, start, w, tiles, count);
            case 8: return of_taps<8>(r, in, packed, start, w, tiles, count);
            default: of_taps<kMostPixels>(r, in, packed, start, w, tiles, count);
        }
    }

    template <int P> void of_taps(const Reads& r, const float* in, const float* packed, const float* start, const Writes& w,
                                  int64_t tiles, int64_t count) const {
        if (r.slides) row<M, P, true>(r, in, packed, start, w, tiles, count);
        else row<M, P, false>(r, in, packed, start, w, tiles, count);
    }

    // Adds a band to the sums of `own` channels.
    void add(const Band& b, int64_t own, const float* grad, const Room& room, float* total) const {
        const int64_t ys = s.bands.pitch, zs = ys * s.bands.staged_y, rows = b.y1 - b.y0;
        int64_t before = 0;
        for (int64_t l = 0; l < d.n_x; ++l) {
            const Line& x = d.x[l];
            const int64_t grad_row = x.count * kL, grad_block_stride = grad_row * rows * (b.z1 - b.z0);
            const Run run{0, 0, x.count, 1};
            for (int64_t z = b.z0; z < b.z1; ++z)
                for (int64_t y = b.y0; y < b.y1; ++y) {
                    const float* from = grad + (d.z.first + z * d.jump[0]) * d.out[0] + (d.y.first + y * d.jump[1]) * d.out[1] +
                                        x.first * d.out[2];
                    stage_pixels<float, float>(room.grads + ((z - b.z0) * rows + y - b.y0) * grad_row, grad_block_stride, from,
                                               d.jump[2] * d.out[2], &run, 1, own, kL);
                }
            const Reads r = reads(x, room.rows);
            const Sweep sweep{b.z1 - b.z0, rows, x.count, d.step[0] * zs, d.step[1] * ys, rows * grad_row, grad_row};
            for (int64_t v = 0; v < own; v += kL) {
                const float *in = room.staged + v / width() * s.block_stride, *up = room.grads + v / kL * grad_block_stride;
                add_vector(r, sweep, in, up, total + v * d.taps * d.ins + before * d.ins * kL);
            }
            before += r.n_rows * x.taps;
        }
    }

    void add_vector(const Reads& r, const Sweep& sweep, const float* in, const float* up, float* to) const {
        const int64_t row = r.taps * d.ins * kL;
        int64_t k = 0;
        if (r.slides) {
            for (; k + 3 <= r.n_rows; k += 3) sliding_weights<M, 3>(r, sweep, in, k, up, to + k * row);
            for (; k < r.n_rows; ++k) sliding_weights<M, 1>(r, sweep, in, k, up, to + k * row);
            return;
        }
        for (; k < r.n_rows; ++k) {
            int64_t t = 0;
            for (; t + 6 <= r.taps; t += 6) weights<M, 6>(r, sweep, in + r.rows[k], t, up, to + k * row);
            for (; t + 3 <= r.taps; t += 3) weights<M, 3>(r, sweep, in + r.rows[k], t, up, to + k * row);
            for (; t < r.taps; ++t) weights<M, 1>(r, sweep, in + r.rows[k], t, up, to + k * row);
        }
    }

    const Direct& d;
    Layout s;
    float* kernels;
    char* rooms;
    NINEFOLD_INLINE int64_t width() const { return M ? kL : s.width; }  // of staged pixels
};

template <class F> void with_group(const Direct& d, F f) {
    if (d.ins == 2) return f(Number<2>{});
    if constexpr (kL > 4)
        if (d.ins == 4) return f(Number<4>{});
    if constexpr (kL > 8)
        if (d.ins == 8) return f(Number<8>{});
    if (d.ins == kL) return f(Number<kL>{});
    f(Number<0>{});
}

}  // namespace

bool is_grouped_nhwc(const Direct& d) {
    const bool fills = d.ins % kL == 0 ? d.ins <= kMostWidth : d.ins == 2 || (kL > 4 && d.ins == 4) || (kL > 8 && d.ins == 8);
    return fills && d.outs == d.ins && d.groups > 1 && d.in_c == 1 && d.out_c == 1 && d.type == Type::float32 && !d.edges.lists;
}

size_t grouped_nhwc_scratch(const Direct& d, bool weights) {
    const Layout s = layout(d, weights);
    return size_t(s.kernel * (weights ? s.chunks : 1) + s.each * min(d.threads, s.items));
}

void grouped_nhwc_forward(const Direct& d, const void* in, const void* weight, const void* bias, void* out, char* scratch) {
    with_group(d, [&](auto m) {
        GroupedNhwc<decltype(m)::value>(d, false, scratch)
            .forward(static_cast<const float*>(in), static_cast<const float*>(weight), static_cast<const float*>(bias),
                     static_cast<float*>(out));
    });
}

void grouped_nhwc_backward_weights(const Direct& d, const void* in, const void* grad, void* weight, char* scratch) {
    with_group(d, [&](auto m) {
        GroupedNhwc<decltype(m)::value>(d, true, scratch)
            .backward_weights(static_cast<const float*>(in), static_cast<const float*>(grad), static_cast<float*>(weight));
    });
}

}  // namespace NINEFOLD_NS

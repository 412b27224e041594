// Depthwise convolutions where the channels of a pixel are neighbours (channels-last): vectors over channels, no border cases.
//
// A band of rows is staged in blocks of two vectors of channels, read in the order of memory. P output pixels share each pair of
// kernel vectors, and their inputs are operands of the multiply-adds straight from the cache: P + 1 loads per P multiply-adds.
// Forward and backward_data stage nothing where every tap reads one run of pixels at one step: they read the pixels where they
// lie.
#include "depthwise/depthwise_nhwc.hpp"
#include "common/threads.hpp"
#include "depthwise/pixel_kernels.hpp"

namespace NINEFOLD_NS {

bool is_depthwise_nhwc(const Direct& d) { return d.ins == 1 && d.outs == 1 && d.groups > 1 && d.in_c == 1 && d.out_c == 1; }

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

template <class T, class S> class DepthwiseNhwc {
public:
    DepthwiseNhwc(const Direct& direct, bool weights, char* memory) : d(direct), s(layout<T>(direct, weights)), memory(memory) {}

    void forward(const S* in, const S* weight, const S* bias, S* out) {
        int64_t n = min(d.threads, s.items);
#pragma omp parallel num_threads(n) if (n > 1)
        {
            char* mine = memory + s.each * this_thread();
#pragma omp for schedule(dynamic, 1)
            for (int64_t k = 0; k < s.items; ++k) {
                int64_t c = k % s.parts * s.together * kBlock<T>;
                item(k / s.parts, c, min(s.together * kBlock<T>, d.groups - c), in, weight, bias, out, mine);
            }
        }
    }

    void backward_weights(const S* in, const S* grad, S* weight) {
        int64_t n = min(d.threads, s.items);
        char* partial = memory + s.each * n;
        int64_t size = d.groups * d.taps, places = d.batch * s.bands.n_z * s.bands.n_y;
#pragma omp parallel num_threads(n) if (n > 1)
        {
            char* mine = memory + s.each * this_thread();
#pragma omp for schedule(dynamic, 1)
            for (int64_t k = 0; k < s.items; ++k) {
                int64_t chunk = k % s.chunks, c = k / s.chunks * s.together * kBlock<T>;
                T* to = s.chunks > 1 ? reinterpret_cast<T*>(partial + s.sums / s.chunks * chunk) : nullptr;
                sums(places * chunk / s.chunks, places * (chunk + 1) / s.chunks, c, min(s.together * kBlock<T>, d.groups - c), in,
                     grad, weight, to, mine);
            }
            if (s.chunks > 1) {
#pragma omp for schedule(static)
                for (int64_t k = 0; k < size; ++k) {
                    T total = 0;
                    for (int64_t chunk = 0; chunk < s.chunks; ++chunk)
                        total += reinterpret_cast<T*>(partial + s.sums / s.chunks * chunk)[k];
                    narrow(total, weight + k / d.taps * d.w_group + place(d, k % d.taps));
                }
            }
        }
    }

private:
    int64_t fill_offsets(int64_t* at) const {
        int64_t count = 0, ys = s.bands.pitch, zs = ys * s.bands.staged_y;
        for (int64_t l = 0; l < d.n_x; ++l)
            for (int64_t a = 0; a < d.z.taps; ++a)
                for (int64_t b = 0; b < d.y.taps; ++b)
                    for (int64_t c = 0; c < d.x[l].taps; ++c)
                        at[count++] = d.z.at[a] * zs + d.y.at[b] * ys + d.x[l].at[c] * kBlock<T>;
        return count;
    }

    void item(int64_t part, int64_t c, int64_t channels, const S* in, const S* weight, const S* bias, S* out, char* mine) const {
        Band b = band(d, s.bands, part);
        T* staged = reinterpret_cast<T*>(mine);
        T* packed = reinterpret_cast<T*>(mine + s.staged);
        int64_t* at = reinterpret_cast<int64_t*>(mine + s.staged + s.packed);
        if constexpr (Same<T, S>::value)
            if (s.in_place) return item_unstaged(b, c, channels, in, weight, bias, out, packed, at);
        stage_band<T, S>(d, s.bands, b, in + b.n * d.in_n + c, channels, kBlock<T>, s.block_stride, 0, staged);
        fill_offsets(at);
        for (int64_t k = 0; k < channels; k += kBlock<T>)
            block(b, c + k, min(kBlock<T>, channels - k), staged + k / kBlock<T> * s.block_stride, at, packed,
                  weight + (c + k) * d.w_group, bias ? bias + c + k : nullptr, out);
    }

    void pack(int64_t channels, T* packed, const S* weight) const {
        for (int64_t t = 0; t < d.taps; ++t)
            for (int64_t k = 0, where = place(d, t); k < kBlock<T>; ++k)
                packed[t * kBlock<T> + k] = k < channels ? T(wide(weight[k * d.w_group + where])) : T(0);
    }

    // Without staging: all channels of a few pixels after each other, as they lie; what is outside is left out tap by tap.
    void item_unstaged(const Band& b, int64_t c, int64_t channels, const T* in, const T* weight, const T* bias, T* out, T* packed,
                       int64_t* room) const {
        constexpr int64_t B = kBlock<T>;
        for (int64_t k = 0; k < channels; k += B) pack(min(B, channels - k), packed + k * d.taps, weight + (c + k) * d.w_group);
        Taps taps{room, room + d.taps, room + 2 * d.taps, room + 3 * d.taps, 0},
            some{room + 4 * d.taps, room + 5 * d.taps, nullptr, nullptr, 0};
        const int64_t step = even_steps(d);
        for (int64_t z = b.z0; z < b.z1; ++z)
            for (int64_t y = b.y0; y < b.y1; ++y) {
                T* row =
                    out + b.n * d.out_n + c + (d.z.first + z * d.jump[0]) * d.out[0] + (d.y.first + y * d.jump[1]) * d.out[1];
                int64_t before = 0;
                for (int64_t l = 0; l < d.n_x; ++l) {
                    const Line& x = d.x[l];
                    int64_t lo, hi;
                    find_taps(d, z, y, x, before, B, taps, &lo, &hi);
                    UnstagedRow line{in + b.n * d.in_n + c, row + x.first * d.out[2], packed, bias ? bias + c : nullptr, channels,
                                     step * d.in[2]};
                    for (int64_t k = lo ? 0 : hi; k < x.count; k = k + 1 == lo ? hi : k + 1) {
                        taps.under(k, some);
                        pixel_group<1>(line, k, some);
                    }
                    int64_t k = lo;
                    for (; k + kPixels <= hi; k += kPixels) pixel_group<kPixels>(line, k, taps);
                    if (k < hi && hi - lo >= kPixels)
                        pixel_group<kPixels>(line, hi - kPixels, taps), k = hi;  // some again: they come out the same
                    for (; k + 3 <= hi; k += 3) pixel_group<3>(line, k, taps);
                    for (; k < hi; ++k) pixel_group<1>(line, k, taps);
                    before += d.z.taps * d.y.taps * x.taps;
                }
            }
    }

    struct UnstagedRow {
        const T* in;
        T* out;
        const T *packed, *bias;
        int64_t channels, step;
    };

    // P pixels from the k-th on, all channels.
    template <int P> void pixel_group(const UnstagedRow& h, int64_t k, const Taps& taps) const {
        constexpr int64_t B = kBlock<T>;
        int64_t hop = d.jump[2] * d.out[2], ahead = 0;
        const int64_t far = max(P, kAhead / (h.channels * int64_t(sizeof(T))));
        for (int64_t t = 0; t < taps.count; ++t) ahead = max(ahead, taps.from[t]);
        for (int64_t c = 0; c < h.channels; c += B) {
            int64_t own = min(B, h.channels - c);
            T part[B] = {};
            if (h.bias && own < B) __builtin_memcpy(part, h.bias + c, size_t(own) * sizeof(T));
            const T* start = h.bias && own == B ? h.bias + c : part;
            const T *in = h.in + c + k * h.step, *packed = h.packed + c * d.taps;
            T* out = h.out + c + k * hop;
            for (int p = 0; p < P; ++p) {  // what pixels further on read for the first time, and where they are written
                __builtin_prefetch(in + ahead + (far + p) * h.step);
                __builtin_prefetch(out + (far + p) * hop, 1);
            }
            if (own == B) pixels_unstaged<T, P, true>(in, h.step, taps, packed, start, T(d.floor), out, hop, own);
            else pixels_unstaged<T, P, false>(in, h.step, taps, packed, start, T(d.floor), out, hop, own);
        }
    }

    void block(const Band& b, int64_t c, int64_t channels, const T* staged, const int64_t* at, T* packed, const S* weight,
               const S* bias, S* out) const {
        pack(channels, packed, weight);
        T start[kBlock<T>];
        for (int64_t k = 0; k < kBlock<T>; ++k) start[k] = bias && k < channels ? T(wide(bias[k])) : T(0);
        Vec<T> init[kWide];
        for (int v = 0; v < kWide; ++v) init[v] = load(start + v * kLanes<T>);
        int64_t ys = s.bands.pitch, zs = ys * s.bands.staged_y, hop = d.jump[2] * d.out[2];
        for (int64_t z = b.z0; z < b.z1; ++z)
            for (int64_t y = b.y0; y < b.y1; ++y) {
                const T* base = staged + (z - b.z0) * d.step[0] * zs + (y - b.y0) * d.step[1] * ys;
                S* row =
                    out + b.n * d.out_n + c + (d.z.first + z * d.jump[0]) * d.out[0] + (d.y.first + y * d.jump[1]) * d.out[1];
                int64_t before = 0;
                for (int64_t l = 0; l < d.n_x; ++l) {
                    const Line& x = d.x[l];
                    int64_t taps = d.z.taps * d.y.taps * x.taps;
                    line(base, at + before, taps, packed + before * kBlock<T>, init, row + x.first * d.out[2], hop, x.count,
                         channels);
                    before += taps;
                }
            }
    }

    void line(const T* in, const int64_t* at, int64_t taps, const T* w, const Vec<T>* init, S* out, int64_t hop, int64_t count,
              int64_t channels) const {
        constexpr int64_t B = kBlock<T>;
        const T floor = T(d.floor);
        int64_t k = 0;
        if (count >= kPixels) {
            for (; k + kPixels <= count; k += kPixels)
                pixels<T, S, kPixels>(in + k * B, at, taps, w, init, floor, out + k * hop, hop, channels);
            if (k < count) {  // once more over some: they come out the same
                k = count - kPixels;
                pixels<T, S, kPixels>(in + k * B, at, taps, w, init, floor, out + k * hop, hop, channels);
            }
            return;
        }
        for (; k + 3 <= count; k += 3) pixels<T, S, 3>(in + k * B, at, taps, w, init, floor, out + k * hop, hop, channels);
        for (; k < count; ++k) pixels<T, S, 1>(in + k * B, at, taps, w, init, floor, out + k * hop, hop, channels);
    }

    void sums(int64_t from, int64_t until, int64_t c, int64_t channels, const S* in, const S* grad, S* weight, T* partial,
              char* mine) const {
        T* staged = reinterpret_cast<T*>(mine);
        T* total = reinterpret_cast<T*>(mine + s.staged);
        int64_t* at = reinterpret_cast<int64_t*>(mine + s.staged + s.packed);
        T* spare = reinterpret_cast<T*>(mine + s.staged + s.packed + s.offsets);
        if (!s.in_place) fill_offsets(at);
        int64_t blocks = ceil_div(channels, kBlock<T>), each = d.taps * kBlock<T>;
        for (int64_t k = 0; k < each * blocks; ++k) total[k] = 0;
        for (int64_t part = from; part < until; ++part) {
            Band b = band(d, s.bands, part);
            if constexpr (Same<T, S>::value)
                if (s.in_place) {
                    sums_unstaged(b, in + b.n * d.in_n + c, grad + b.n * d.out_n + c, channels, total, at);
                    continue;
                }
            stage_band<T, S>(d, s.bands, b, in + b.n * d.in_n + c, channels, kBlock<T>, s.block_stride, 0, staged);
            int64_t before = 0;
            for (int64_t l = 0; l < d.n_x; ++l) {
                int64_t taps = d.z.taps * d.y.taps * d.x[l].taps;
                for (int64_t k = 0; k < blocks; ++k)
                    for (int64_t t = 0; t < taps; t += kTaps)
                        add_taps(b, d.x[l], staged + k * s.block_stride, at + before + t, min(kTaps, taps - t),
                                 grad + b.n * d.out_n + c + k * kBlock<T>, min(kBlock<T>, channels - k * kBlock<T>),
                                 total + k * each + (before + t) * kBlock<T>, spare);
                before += taps;
            }
        }
        for (int64_t t = 0; t < d.taps; ++t)
            for (int64_t k = 0, where = place(d, t); k < channels; ++k) {
                T sum = total[k / kBlock<T> * each + t * kBlock<T> + k % kBlock<T>];
                if (partial) partial[(c + k) * d.taps + t] = sum;
                else narrow(sum, weight + (c + k) * d.w_group + where);
            }
    }

    // Adds the rows of a band, row by row with all channels, so that memory is read in its order; the next row is asked for
    // meanwhile.
    void sums_unstaged(const Band& b, const T* in, const T* grad, int64_t channels, T* total, int64_t* room) const {
        constexpr int64_t B = kBlock<T>;
        Taps taps{room, room + d.taps, room + 2 * d.taps, room + 3 * d.taps, 0},
            some{room + 4 * d.taps, room + 5 * d.taps, nullptr, nullptr, 0};
        const int64_t step = even_steps(d) * d.in[2], hop = d.jump[2] * d.out[2];
        for (int64_t z = b.z0; z < b.z1; ++z)
            for (int64_t y = b.y0; y < b.y1; ++y) {
                const T* row = grad + (d.z.first + z * d.jump[0]) * d.out[0] + (d.y.first + y * d.jump[1]) * d.out[1];
                int64_t before = 0;
                for (int64_t l = 0; l < d.n_x; ++l) {
                    const Line& x = d.x[l];
                    int64_t lo, hi, last = 0;
                    find_taps(d, z, y, x, before, B, taps, &lo, &hi);
                    for (int64_t t = 0; t < taps.count; ++t) last = max(last, taps.from[t]);
                    const int64_t next = last + d.in[1] * d.step[1], grad_next = d.jump[1] * d.out[1];
                    auto add = [&](int64_t k, int64_t count, const Taps& under) {
                        for (int64_t c = 0; c < channels; c += B) {
                            const int64_t own = min(B, channels - c);
                            const T *a = in + c + k * step, *up = row + (x.first * d.out[2] + k * hop) + c;
                            for (int64_t t = 0; t < under.count; t += kTaps) {
                                const int64_t n = min(kTaps, under.count - t);
                                (own == B ? row_sums_of<T, true> : row_sums_of<T, false>)(n, a, step, under.from + t,
                                                                                          under.weight + t, up, hop, count, own,
                                                                                          next, grad_next, total + c * d.taps);
                            }
                        }
                    };
                    for (int64_t k = lo ? 0 : hi; k < x.count; k = k + 1 == lo ? hi : k + 1) {
                        taps.under(k, some);
                        add(k, 1, some);
                    }
                    if (lo < hi) add(lo, hi - lo, taps);
                    before += d.z.taps * d.y.taps * x.taps;
                }
            }
    }

    void add_taps(const Band& b, const Line& x, const T* staged, const int64_t* at, int64_t n, const S* grad, int64_t channels,
                  T* total, T* spare) const {
        switch (n) {
            case 1: return add<1>(b, x, staged, at, grad, channels, total, spare);
            case 2: return add<2>(b, x, staged, at, grad, channels, total, spare);
            case 3: return add<3>(b, x, staged, at, grad, channels, total, spare);
            case 4: return add<4>(b, x, staged, at, grad, channels, total, spare);
            case 5: return add<5>(b, x, staged, at, grad, channels, total, spare);
            case 6: return add<6>(b, x, staged, at, grad, channels, total, spare);
            case 7: return add<kTaps == 8 ? 7 : 1>(b, x, staged, at, grad, channels, total, spare);
            default: return add<kTaps>(b, x, staged, at, grad, channels, total, spare);
        }
    }

    template <int N>
    void add(const Band& b, const Line& x, const T* staged, const int64_t* at, const S* grad, int64_t channels, T* total,
             T* spare) const {
        int64_t ys = s.bands.pitch, zs = ys * s.bands.staged_y, hop = d.jump[2] * d.out[2];
        Vec<T> acc[N][kWide];
        for (int n = 0; n < N; ++n)
            for (int v = 0; v < kWide; ++v) acc[n][v] = broadcast(T(0));
        for (int64_t z = b.z0; z < b.z1; ++z)
            for (int64_t y = b.y0; y < b.y1; ++y) {
                const T* base = staged + (z - b.z0) * d.step[0] * zs + (y - b.y0) * d.step[1] * ys;
                const S* row =
                    grad + (d.z.first + z * d.jump[0]) * d.out[0] + (d.y.first + y * d.jump[1]) * d.out[1] + x.first * d.out[2];
                if constexpr (Same<T, S>::value) {
                    if (channels == kBlock<T>) {
                        row_sums<T, N>(base, at, row, hop, x.count, acc);
                        continue;
                    }
                }
                for (int64_t k = 0; k < x.count; ++k)
                    for (int64_t c = 0; c < kBlock<T>; ++c)
                        spare[k * kBlock<T> + c] = c < channels ? T(wide(row[k * hop + c])) : T(0);
                row_sums<T, N>(base, at, spare, kBlock<T>, x.count, acc);
            }
        for (int n = 0; n < N; ++n)
            for (int v = 0; v < kWide; ++v) {
                T* sum = total + n * kBlock<T> + v * kLanes<T>;
                store(sum, load(sum) + acc[n][v]);  // band by band: errors grow with the root of the bands
            }
    }

    const Direct& d;
    Layout s;
    char* memory;
};

template <class T> size_t scratch_of(const Direct& d, bool weights) {
    Layout s = layout<T>(d, weights);
    return size_t(s.each * min(d.threads, s.items) + s.sums);
}

template <class T, class S> void run(const Direct& d, const void* in, const void* weight, const void* bias, void* out,
                                     char* scratch) {
    DepthwiseNhwc<T, S>(d, false, scratch)
        .forward(static_cast<const S*>(in), static_cast<const S*>(weight), static_cast<const S*>(bias), static_cast<S*>(out));
}

template <class T, class S> void run_sums(const Direct& d, const void* in, const void* grad, void* weight, char* scratch) {
    DepthwiseNhwc<T, S>(d, true, scratch)
        .backward_weights(static_cast<const S*>(in), static_cast<const S*>(grad), static_cast<S*>(weight));
}

}  // namespace

size_t depthwise_nhwc_scratch(const Direct& d, bool weights) {
    return d.type == Type::float64 ? scratch_of<double>(d, weights) : scratch_of<float>(d, weights);
}

void depthwise_nhwc_forward(const Direct& d, const void* in, const void* weight, const void* bias, void* out, char* scratch) {
    switch (d.type) {
        case Type::float32: return run<float, float>(d, in, weight, bias, out, scratch);
        case Type::float64: return run<double, double>(d, in, weight, bias, out, scratch);
        case Type::bfloat16: return run<float, BFloat16>(d, in, weight, bias, out, scratch);
    }
}

void depthwise_nhwc_backward_weights(const Direct& d, const void* in, const void* grad, void* weight, char* scratch) {
    switch (d.type) {
        case Type::float32: return run_sums<float, float>(d, in, grad, weight, scratch);
        case Type::float64: return run_sums<double, double>(d, in, grad, weight, scratch);
        case Type::bfloat16: return run_sums<float, BFloat16>(d, in, grad, weight, scratch);
    }
}

}  // namespace NINEFOLD_NS

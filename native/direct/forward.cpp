// Forward and backward_data by direct summation out of a staged band, contiguous along x.
//
// Two inner loops. Where a group has several outputs, each loaded vector of inputs serves up to four of them. Where it has one
// (depthwise, one channel), a vector of an input row serves up to four output rows: row u under the first of R rows is the tap
// row u - q * ks of row q. Either way twelve accumulators hide the latency of multiply-add, and loads stay below two per
// multiply-add.
#include "common/threads.hpp"
#include "direct/direct.hpp"
#include "direct/row_kernels.hpp"
#include "direct/unstaged.hpp"

namespace NINEFOLD_NS {

namespace {

constexpr int64_t kBudget = 96 << 10;  // bytes staged at once by a group of several channels
constexpr int64_t kPlane = 16 << 10;   // and by a single channel: it stays in the first cache

struct Layout {
    Bands bands;
    bool in_place;
    bool padded;           // a line is shorter than the vector that is read of it
    bool several;          // outputs of a group share what is loaded; of a table each has rows of its own
    int64_t unstaged;      // size of a square kernel whose rows are read where they lie, or 0
    bool row_kernel;       // kernels along x only: rows are read where they lie, but for blocks that reach over their ends
    int64_t lines_taps;    // most taps along x of one line
    int64_t outs_at_once;  // Q, or 1
    int64_t split;         // parts of the outputs of a group
    int64_t shared, staged, packed, buffer, offsets, each;  // bytes
    int64_t items;
};

template <class T> Layout layout(const Direct& d) {
    Layout s{};
    int64_t narrowest = d.x[0].count;
    for (int64_t l = 0; l < d.n_x; ++l) {
        narrowest = min(narrowest, d.x[l].count);
        s.lines_taps = max(s.lines_taps, d.x[l].taps);
    }
    s.padded = narrowest < kLanes<T>;
    s.in_place = d.in_place && !s.padded && d.type != Type::bfloat16;
    s.unstaged = unstaged_size(d);
    Span span;
    const bool alone = d.ins == 1 && d.outs == 1 && !d.edges.lists && d.type != Type::bfloat16,
               row_wise = d.z.taps == 1 && d.y.taps == 1;
    s.row_kernel = alone && row_wise && d.n_x == 1 && d.out[2] * d.jump[2] == 1 && span_of(d, span);
    int64_t pitch = round_up(d.staged[2] + kLanes<T>, kLanes<T>);
    s.outs_at_once = min(d.outs, 4);
    int64_t row = pitch * int64_t(sizeof(T)) * d.ins;
    int64_t wanted = d.threads > 1 ? ceil_div(2 * d.threads, d.batch * d.groups) : 1;
    s.bands = bands(d, pitch, row, d.ins == 1 ? kPlane : kBudget, wanted);
    int64_t blocks = d.batch * d.groups * s.bands.n_z * s.bands.n_y;
    s.split = d.outs > 1 && blocks < wanted * d.batch * d.groups
                  ? min(ceil_div(wanted * d.batch * d.groups, blocks), ceil_div(d.outs, 4))
                  : 1;
    s.items = blocks * s.split;
    s.several = d.outs > 1 && !d.edges.lists;
    s.shared = s.several ? round_up(d.groups * d.outs * d.ins * d.taps * int64_t(sizeof(T)), 64) : 0;
    const int64_t window = (reach(d.x[0]) + (kMost<1> + 1) * kLanes<T>)*int64_t(sizeof(T));
    s.staged = s.row_kernel ? round_up(window, 64)
               : s.in_place ? 0
                            : round_up(s.unstaged ? row : row * s.bands.staged_z * s.bands.staged_y, 64);
    s.packed = s.several ? 0 : round_up((d.edges.lists ? d.edges.most : d.ins) * d.taps * int64_t(sizeof(T)), 64);
    s.buffer = round_up(2 * 4 * 6 * kBytes, 64);  // two lines of outputs that lie between each other
    s.offsets = round_up((s.several ? d.z.taps * d.y.taps * s.lines_taps : d.ins) * 8 + 64, 64);
    s.each = s.staged + s.packed + s.buffer + s.offsets + 4096;
    return s;
}

// --- one item ----------------------------------------------------------------------------------------------------------------

template <class T, class S> class Forward {
public:
    Forward(const Direct& direct, const void* in, const void* weight, const void* bias, void* out, char* scratch)
        : d(direct), s(layout<T>(direct)), in(static_cast<const S*>(in)), weight(static_cast<const S*>(weight)),
          bias(static_cast<const S*>(bias)), out(static_cast<S*>(out)), shared(reinterpret_cast<T*>(scratch)),
          scratch(scratch + s.shared) {
        straight = Same<T, S>::value && d.n_x == 1 && d.out[2] * d.jump[2] == 1;
        paired = Same<T, S>::value && d.n_x == 2 && d.out[2] * d.jump[2] == 2 && d.x[1].first == d.x[0].first + 1 &&
                 (d.x[0].count == d.x[1].count || d.x[0].count == d.x[1].count + 1);
    }

    void run() {
        int64_t n = min(d.threads, s.items);
#pragma omp parallel num_threads(n) if (n > 1)
        {
            char* mine = scratch + s.each * this_thread();
            if (s.several) {
#pragma omp for schedule(static)
                for (int64_t g = 0; g < d.groups * d.outs; ++g) pack(g);
            }
#pragma omp for schedule(dynamic, omp_chunk(s.items, n))
            for (int64_t k = 0; k < s.items; ++k) item(k, mine);
        }
    }

private:
    // Where the packed weights of output o of group g start, and the step between their taps: a block of Q outputs lies together.
    void pack(int64_t k) {
        int64_t g = k / d.outs, o = k % d.outs;
        int64_t first = o / 4 * 4, width = min(4, d.outs - first);
        const S* w = weight + g * d.w_group + o * d.w_out;
        for (int64_t l = 0; l < d.n_x; ++l) {
            const Line& x = d.x[l];
            T* to = block(g, first, width, l) + (o - first);
            for (int64_t i = 0; i < d.ins; ++i)
                for (int64_t a = 0; a < d.z.taps; ++a)
                    for (int64_t b = 0; b < d.y.taps; ++b)
                        for (int64_t c = 0; c < x.taps; ++c, to += width)
                            *to = wide(w[i * d.w_in + d.z.weight[a] + d.y.weight[b] + x.weight[c]]);
        }
    }

    // Packed: [group][line][block of outputs][ins][taps][Q]; the taps of the lines before come first.
    T* block(int64_t g, int64_t first, int64_t, int64_t l) {
        int64_t before = 0;
        for (int64_t k = 0; k < l; ++k) before += d.x[k].taps;
        int64_t planes = d.z.taps * d.y.taps * d.ins;
        return shared + g * d.outs * d.ins * d.taps + planes * (before * d.outs + d.x[l].taps * first);
    }

    void item(int64_t k, char* mine) {
        int64_t part = k % s.split;
        k /= s.split;
        int64_t by = k % s.bands.n_y;
        k /= s.bands.n_y;
        int64_t bz = k % s.bands.n_z;
        k /= s.bands.n_z;
        int64_t g = k % d.groups, n = k / d.groups;
        Band band{};
        band.z0 = bz * s.bands.z;
        band.y0 = by * s.bands.y;
        band.z1 = min(band.z0 + s.bands.z, d.z.count);
        band.y1 = min(band.y0 + s.bands.y, d.y.count);
        const S* source = in + n * d.in_n + g * d.ins * d.in_c;
        if constexpr (kMasks && Same<S, float>::value) {
            if (s.unstaged == 3) return unstaged<3>(band, g, source, out + n * d.out_n + g * d.out_c, reinterpret_cast<T*>(mine));
            if (s.unstaged == 5) return unstaged<5>(band, g, source, out + n * d.out_n + g * d.out_c, reinterpret_cast<T*>(mine));
        }
        char* rest = mine + s.staged;
        if constexpr (Same<T, S>::value) {
            if (s.row_kernel)
                return row_kernel(band, g, source, out + n * d.out_n + g * d.out_c, reinterpret_cast<T*>(mine),
                                  reinterpret_cast<T*>(rest));
        }
        stage(band, source, reinterpret_cast<T*>(mine));
        S* to = out + n * d.out_n + g * d.outs * d.out_c;
        T* buffer = reinterpret_cast<T*>(rest + s.packed);
        int64_t* offsets = reinterpret_cast<int64_t*>(rest + s.packed + s.buffer);
        if (s.several) return by_outs(band, g, part, to, buffer, offsets);
        int64_t from = d.outs * part / s.split, until = d.outs * (part + 1) / s.split;
        for (int64_t o = from; o < until; ++o)
            by_rows(band, g + o, to + o * d.out_c, reinterpret_cast<T*>(rest), buffer, offsets);
    }

    // What output o reads: of a table its edges, else all channels of its group, of which it is the only output.
    int64_t reads(int64_t o) const { return d.edges.lists ? d.edges.first[o + 1] - d.edges.first[o] : d.ins; }
    int64_t channel(int64_t o, int64_t i) const { return d.edges.lists ? d.edges.channel[d.edges.first[o] + i] : i; }
    int64_t place(int64_t o, int64_t i) const {
        return d.edges.lists ? d.edges.place[d.edges.first[o] + i] : o * d.w_group + i * d.w_in;
    }

    struct Band {
        int64_t z0, z1, y0, y1;
        const T* base;  // the staged position of the band's first output, first tap
        int64_t is, zs, ys;
    };

    void stage(Band& band, const S* source, T* to) {
        int64_t z = band.z0 * d.step[0], y = band.y0 * d.step[1];
        if constexpr (Same<T, S>::value) {
            if (s.in_place) {
                band.base = source + d.source[0][z] * d.in[0] + d.source[1][y] * d.in[1] + d.runs[0].from;
                band.is = d.in_c;
                band.zs = d.in[0];
                band.ys = d.in[1];
                return;
            }
        }
        int64_t rows_z = min(s.bands.staged_z, d.staged[0] - z), rows_y = min(s.bands.staged_y, d.staged[1] - y);
        band.ys = s.bands.pitch;
        band.zs = band.ys * s.bands.staged_y;
        band.is = band.zs * s.bands.staged_z;
        band.base = to;
        Stager<T, S> stager(d);
        for (int64_t i = 0; i < d.ins; ++i)
            stager.plane(to + i * band.is, source + i * d.in_c, z, y, rows_z, rows_y, band.zs, band.ys, s.padded);
    }

    S* at(S* to, int64_t z, int64_t y, const Line& x, int64_t k) {
        return to + (d.z.first + z * d.jump[0]) * d.out[0] + (d.y.first + y * d.jump[1]) * d.out[1] +
               (x.first + k * d.jump[2]) * d.out[2];
    }

    static int64_t square_of(const Line& x, int64_t ky, int64_t ks) {
        for (int64_t t = 0; t < x.taps; ++t)
            if (x.at[t] != t) return 0;
        return x.taps == ky && ks == 1 ? ky : 0;
    }

    void by_rows(const Band& band, int64_t o, S* to, T* packed, T* buffer, int64_t* channels) {
        T init = bias ? T(wide(bias[o])) : T(0);
        for (int64_t i = 0; i < reads(o); ++i) channels[i] = channel(o, i) * band.is;
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
        for (int64_t l = 0; l < d.n_x; l += paired ? 2 : 1) {
            Rows<T> args[2];
            for (int64_t k = 0; k < (paired ? 2 : 1); ++k) args[k] = packed_line(band, d.x[l + k], o, channels, p, init, dy, ks);
            for (int64_t z = band.z0; z < band.z1; ++z)
                for (int64_t r = 0; r < min(rs, band.y1 - band.y0); ++r) {
                    int64_t left = ceil_div(band.y1 - band.y0 - r, rs), y = band.y0 + r;
                    while (left) {
                        int64_t many = balanced_chunk(left, 4);
                        if (paired) pair_block(band, args, to, z, y, many, rs, buffer);
                        else row_block(band, args[0], d.x[l], to, z, y, many, rs, buffer);
                        y += many * rs;
                        left -= many;
                    }
                }
        }
    }

    // Rows under a kernel along x, read where they lie; what a block reads over the ends of a row is copied into `window` before.
    void row_kernel(const Band& band, int64_t g, const T* source, T* to, T* window, T* packed) {
        Span span;
        span_of(d, span);
        const Line& x = d.x[0];
        const int64_t none = 0, far = reach(x), until = span.before + span.count;
        T* p = packed;
        Rows<T> args = packed_line(band, x, g, &none, p, bias ? T(wide(bias[g])) : T(0), 0, 1);
        for (int64_t z = band.z0; z < band.z1; ++z)
            for (int64_t y = band.y0; y < band.y1; ++y) {
                const int64_t from_z = d.source[0][z * d.step[0] + d.z.at[0]], from_y = d.source[1][y * d.step[1] + d.y.at[0]];
                const bool zeros = from_z < 0 || from_y < 0;
                const T* row = zeros ? nullptr : source + from_z * d.in[0] + from_y * d.in[1] + span.from;
                T* out_row = at(to, z, y, x, 0);
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

    // A band whose rows are read where they lie; `zeros` has room for one of them.
    template <int K> void unstaged(const Band& band, int64_t g, const float* source, float* to, float* zeros) {
        Span span;
        span_of(d, span);
        const int64_t dy = d.y.at[1] - d.y.at[0], from_x = span.from - span.before;
        for (int64_t k = 0; k < d.staged[2]; ++k) zeros[k] = 0;
        const bool columns = K == 3 && d.z.taps == 1;
        const float* rows[kRows];
        T* packed = reinterpret_cast<T*>(reinterpret_cast<char*>(zeros) + s.staged);
        Unstaged<K> args{rows, d.z.taps, d.x[0].count, packed, bias ? wide(bias[g]) : 0.0f, float(d.floor), {}};
        packed_line(band, d.x[0], g, nullptr, packed, 0, dy, 1);
        args.prepare(span);
        for (int64_t z = band.z0; z < band.z1; ++z)
            for (int64_t r = 0; r < min(dy, band.y1 - band.y0); ++r) {
                int64_t left = ceil_div(band.y1 - band.y0 - r, dy), y = band.y0 + r;
                while (left) {
                    const int64_t many = balanced_chunk(left, columns ? kColumn : 4), out_row = dy * d.jump[1] * d.out[1];
                    const float** row = rows;
                    for (int64_t a = 0; a < d.z.taps; ++a) {
                        const int64_t from_z = d.source[0][z * d.step[0] + d.z.at[a]];
                        for (int64_t u = 0; u < K + many - 1; ++u) {
                            const int64_t from_y = d.source[1][y + d.y.at[0] + u * dy];
                            *row++ = from_z < 0 || from_y < 0 ? zeros : source + from_z * d.in[0] + from_y * d.in[1] + from_x;
                        }
                    }
                    float* out_rows = at(to, z, y, d.x[0], 0);
                    y += many * dy;
                    left -= many;
                    if constexpr (K == 3) {
                        if (columns) {
                            unstaged_columns(args, many, out_rows, out_row);
                            continue;
                        }
                    }
                    switch (many) {
                        case 1: unstaged_rows<K, 1>(args, out_rows, out_row); break;
                        case 2: unstaged_rows<K, 2>(args, out_rows, out_row); break;
                        case 3: unstaged_rows<K, 3>(args, out_rows, out_row); break;
                        default: unstaged_rows<K, 4>(args, out_rows, out_row);
                    }
                }
            }
    }

    // The weights of a line of output o, packed from `p` on, and what is the same for all its blocks of rows.
    Rows<T> packed_line(const Band& band, const Line& x, int64_t o, const int64_t* channels, T*& p, T init, int64_t dy,
                        int64_t ks) {
        const T* mine = p;
        int64_t ky = d.y.taps, ins = reads(o);
        for (int64_t i = 0; i < ins; ++i) {
            const S* w = weight + place(o, i);
            for (int64_t z = 0; z < d.z.taps; ++z)
                for (int64_t y = 0; y < ky; ++y)
                    for (int64_t k = 0; k < x.taps; ++k, ++p) *p = wide(w[d.z.weight[z] + d.y.weight[y] + x.weight[k]]);
        }
        return {nullptr, channels, band.zs, dy * band.ys, ks, ins,  d.z.taps,   ky,
                x.taps,  d.z.at,   x.at,    mine,         0,  init, T(d.floor), square_of(x, ky, ks)};
    }

    const T* first_read(const Band& band, int64_t z, int64_t y) const {
        return band.base + (z - band.z0) * d.step[0] * band.zs +
               ((y - band.y0) * d.step[1] + (d.y.taps ? d.y.at[0] : 0)) * band.ys;
    }

    // Two lines whose outputs lie between each other: rows of both are made, then written alternating.
    void pair_block(const Band& band, Rows<T> (&args)[2], S* to, int64_t z, int64_t y, int64_t many, int64_t rs, T* buffer) {
        const T* base = first_read(band, z, y);
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
                    zip<T>(buffer + q * 6 * kLanes<T>, buffer + (4 + q) * 6 * kLanes<T>, at(to, z, y + q * rs, d.x[0], k),
                           count[0], count[1]);
            k += c * kLanes<T>;
            vectors -= c;
        }
    }

    // `many` output rows, rs apart, from row y on.
    void row_block(const Band& band, Rows<T>& args, const Line& x, S* to, int64_t z, int64_t y, int64_t many, int64_t rs,
                   T* buffer) {
        const T* base = first_read(band, z, y);
        int64_t vectors = ceil_div(x.count, kLanes<T>), k = 0;
        while (vectors) {
            int64_t c = balanced_chunk(vectors, widest(many));
            int64_t left = x.count - k;
            bool ends = c == vectors;
            int64_t tail = ends && left < kLanes<T> ? left : kLanes<T>;
            args.in = base + k;
            args.last = ends && left >= kLanes<T> ? left - kLanes<T> : (c - 1) * kLanes<T>;
            if constexpr (Same<T, S>::value) {
                if (straight) {
                    rows<T>(many, c, args, at(to, z, y, x, k), rs * d.jump[1] * d.out[1], tail);
                    k += c * kLanes<T>;
                    vectors -= c;
                    continue;
                }
            }
            rows<T>(many, c, args, buffer, 6 * kLanes<T>, tail);
            int64_t count = min(left, c * kLanes<T>), hop = d.out[2] * d.jump[2];
            for (int64_t q = 0; q < many; ++q) {
                S* row = at(to, z, y + q * rs, x, k);
                for (int64_t e = 0; e < count; ++e) narrow(buffer[q * 6 * kLanes<T> + e], row + e * hop);
            }
            k += c * kLanes<T>;
            vectors -= c;
        }
    }

    void by_outs(const Band& band, int64_t g, int64_t part, S* to, T* buffer, int64_t* offsets) {
        int64_t blocks = ceil_div(d.outs, 4);
        int64_t from = blocks * part / s.split * 4, until = min(d.outs, blocks * (part + 1) / s.split * 4);
        T init[4];
        for (int64_t l = 0; l < d.n_x; ++l) {
            const Line& x = d.x[l];
            int64_t taps = 0;
            for (int64_t a = 0; a < d.z.taps; ++a)
                for (int64_t b = 0; b < d.y.taps; ++b)
                    for (int64_t c = 0; c < x.taps; ++c) offsets[taps++] = d.z.at[a] * band.zs + d.y.at[b] * band.ys + x.at[c];
            Outs<T> args{nullptr, band.is, d.ins, taps, offsets, nullptr, init, T(d.floor), 0};
            for (int64_t z = band.z0; z < band.z1; ++z)
                for (int64_t y = band.y0; y < band.y1; ++y) {
                    const T* base = band.base + (z - band.z0) * d.step[0] * band.zs + (y - band.y0) * d.step[1] * band.ys;
                    int64_t vectors = ceil_div(x.count, kLanes<T>), k = 0;
                    while (vectors) {
                        int64_t c = balanced_chunk(vectors, widest(min(4, d.outs)));
                        int64_t left = x.count - k;
                        bool ends = c == vectors;
                        int64_t tail = ends && left < kLanes<T> ? left : kLanes<T>;
                        args.in = base + k;
                        args.last = ends && left >= kLanes<T> ? left - kLanes<T> : (c - 1) * kLanes<T>;
                        for (int64_t o = from; o < until; o += 4) {
                            int64_t q = min(4, d.outs - o);
                            args.w = block(g, o, q, l);
                            for (int64_t j = 0; j < q; ++j) init[j] = bias ? T(wide(bias[g * d.outs + o + j])) : T(0);
                            out_block(args, q, c, at(to + o * d.out_c, z, y, x, k), tail, min(left, c * kLanes<T>), buffer);
                        }
                        k += c * kLanes<T>;
                        vectors -= c;
                    }
                }
        }
    }

    void out_block(const Outs<T>& args, int64_t q, int64_t c, S* to, int64_t tail, int64_t count, T* buffer) {
        if constexpr (Same<T, S>::value) {
            if (straight) return outs<T>(q, c, args, to, d.out_c, tail);
        }
        outs<T>(q, c, args, buffer, 6 * kLanes<T>, tail);
        int64_t hop = d.out[2] * d.jump[2];
        if (q == 4 && d.out_c == 1) {
            for (int64_t e = 0; e < count; ++e)
                for (int64_t j = 0; j < 4; ++j) narrow(buffer[j * 6 * kLanes<T> + e], to + e * hop + j);
        } else {
            for (int64_t j = 0; j < q; ++j)
                for (int64_t e = 0; e < count; ++e) narrow(buffer[j * 6 * kLanes<T> + e], to + j * d.out_c + e * hop);
        }
    }

    const Direct& d;
    Layout s;
    const S *in, *weight, *bias;
    S* out;
    T* shared;
    char* scratch;
    bool straight, paired;
};

template <class T> size_t scratch_of(const Direct& d) {
    Layout s = layout<T>(d);
    return size_t(s.shared + s.each * min(d.threads, s.items));
}

}  // namespace

size_t planar_forward_scratch(const Direct& d) { return d.type == Type::float64 ? scratch_of<double>(d) : scratch_of<float>(d); }

void planar_forward(const Direct& d, const void* in, const void* weight, const void* bias, void* out, char* scratch) {
    switch (d.type) {
        case Type::float32: return Forward<float, float>(d, in, weight, bias, out, scratch).run();
        case Type::float64: return Forward<double, double>(d, in, weight, bias, out, scratch).run();
        case Type::bfloat16: return Forward<float, BFloat16>(d, in, weight, bias, out, scratch).run();
    }
}

}  // namespace NINEFOLD_NS

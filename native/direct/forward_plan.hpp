// How a direct convolution is cut into items of work, and what every stage of it knows.
//
//     outputs of one image and group              an item: a band of rows, staged with its border
//     +-----------------------------+             +---+---------------------------+---+
//     |  band 0   (z0..z1, y0..y1)  |   ------>   | 0 |  rows that the band reads | 0 |   pitch per row
//     +-----------------------------+             +---+---------------------------+---+
//     |  band 1                     |
//     +-----------------------------+             in scratch of the thread: staged | packed | buffer | offsets
//
// Packed weights of a group with several outputs are shared by all threads: [group][line][block of 4 outputs][in][tap][output].
#pragma once
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

// A band of outputs, and where its first output finds its first tap.
template <class T> struct Band {
    int64_t z0, z1, y0, y1;
    const T* base;  // the staged position of the band's first output, first tap
    int64_t is, zs, ys;
};

template <class T, class S> struct Forward {
    const Direct& d;
    Layout s;
    const S *in, *weight, *bias;
    S* out;
    T* shared;
    char* scratch;
    bool straight, paired;

    Forward(const Direct& direct, const void* in, const void* weight, const void* bias, void* out, char* scratch)
        : d(direct), s(layout<T>(direct)), in(static_cast<const S*>(in)), weight(static_cast<const S*>(weight)),
          bias(static_cast<const S*>(bias)), out(static_cast<S*>(out)), shared(reinterpret_cast<T*>(scratch)),
          scratch(scratch + s.shared) {
        straight = Same<T, S>::value && d.n_x == 1 && d.out[2] * d.jump[2] == 1;
        paired = Same<T, S>::value && d.n_x == 2 && d.out[2] * d.jump[2] == 2 && d.x[1].first == d.x[0].first + 1 &&
                 (d.x[0].count == d.x[1].count || d.x[0].count == d.x[1].count + 1);
    }

    // Packed: [group][line][block of outputs][ins][taps][Q]; the taps of the lines before come first.
    T* block(int64_t g, int64_t first, int64_t, int64_t l) {
        int64_t before = 0;
        for (int64_t k = 0; k < l; ++k) before += d.x[k].taps;
        int64_t planes = d.z.taps * d.y.taps * d.ins;
        return shared + g * d.outs * d.ins * d.taps + planes * (before * d.outs + d.x[l].taps * first);
    }

    // What output o reads: of a table its edges, else all channels of its group, of which it is the only output.
    int64_t reads(int64_t o) const { return d.edges.lists ? d.edges.first[o + 1] - d.edges.first[o] : d.ins; }
    int64_t channel(int64_t o, int64_t i) const { return d.edges.lists ? d.edges.channel[d.edges.first[o] + i] : i; }
    int64_t place(int64_t o, int64_t i) const {
        return d.edges.lists ? d.edges.place[d.edges.first[o] + i] : o * d.w_group + i * d.w_in;
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

    // The weights of a line of output o, packed from `p` on, and what is the same for all its blocks of rows.
    Rows<T> packed_line(const Band<T>& band, const Line& x, int64_t o, const int64_t* channels, T*& p, T init, int64_t dy,
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

    const T* first_read(const Band<T>& band, int64_t z, int64_t y) const {
        return band.base + (z - band.z0) * d.step[0] * band.zs +
               ((y - band.y0) * d.step[1] + (d.y.taps ? d.y.at[0] : 0)) * band.ys;
    }
};

}  // namespace
}  // namespace NINEFOLD_NS

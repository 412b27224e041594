// How an implicit product is cut, and what every stage of it knows.
//
//     contiguous memory                             channels-last memory
//
//                 positions -> packed panels                     outputs -> packed kernel, panels of W
//               +---------+---------+                          +---------+---------+
//     summands  |  W      |  W      |                summands  |  W      |  W      |
//               +---------+---------+                          +---------+---------+
//     outputs   |  tile of kRows x W                 pixels    |  tile of kRows x W
//     kRows     |                                    kRows     |  rows read where they lie
//
// A summand is an input under a tap. Summands are cut into chunks whose packed panel stays in the L1 cache.
#pragma once
#include "implicit/product.hpp"

namespace NINEFOLD_NS {
namespace {

constexpr int64_t kDeep = 256;  // summands of a chunk
constexpr int64_t kLines = 4;   // of positions, assembled before they are packed
constexpr int64_t kUnits = 16;  // of a kernel, packed together

// Taps [t, t + nt) and inputs [i, i + ni), from summand `first` on. Where pixels are rows, neighbouring summands are inputs, else
// taps, if the weight does not have it otherwise. A chunk has all of what lies inside, or a part of it for one of the others.
struct Chunk {
    int64_t t, nt, i, ni, first;
    int64_t count() const { return nt * ni; }
};

template <class T> struct Product {
    static constexpr int L = kLanes<T>, W = kPanel<T>;

    const Implicit& p;
    int64_t n_taps, each, total;  // positions of an image, and of the batch
    int64_t plane;                // of a unit; an odd number of lines, so that units fall into different sets of the cache
    int64_t summands, unit, units, share;  // rows or columns of the packed kernel that lie beside one another
    int64_t deep, panels;                  // summands of the longest chunk; panels of a block, of pixels or of channels
    int64_t n_blocks;
    bool in_place, taps_inside;  // the weight's rows are read where they lie; neighbouring summands are taps

    explicit Product(const Implicit& plan) : p(plan) {
        n_taps = taps(p), each = positions(p), total = p.batch * each;
        summands = n_taps * p.ins;
        unit = p.rows ? W : kRows, units = ceil_div(p.outs, unit);
        share = min(round_up(ceil_div(p.outs, p.split), unit), round_up(p.outs, unit));
        const bool inputs_inside = p.w_in == 1 && p.w_tap == p.ins && p.ins > 1;
        in_place = !p.rows && !p.flip && ((p.w_in == n_taps && p.w_tap == 1) || inputs_inside);
        taps_inside = !p.rows && !(in_place && inputs_inside);
        constexpr int64_t line = 64 / int64_t(sizeof(T));
        plane = (ceil_div(summands * unit, line) | 1) * line;
        const int64_t inner = taps_inside ? n_taps : p.ins;
        deep = inner <= kDeep ? min(kDeep / inner * inner, summands) : ceil_div(inner, ceil_div(inner, kDeep));
        panels = ceil_div(p.block, W);
        n_blocks = ceil_div(total, p.block);
    }

    Chunk chunk(int64_t first) const {
        const int64_t inner = taps_inside ? n_taps : p.ins, outer = first / inner, at = first % inner;
        const int64_t many = inner <= kDeep ? min(deep, summands - first) / inner : 1,
                      part = inner <= kDeep ? inner : min(deep, inner - at);
        return taps_inside ? Chunk{at, part, outer, many, first} : Chunk{outer, many, at, part, first};
    }
    int64_t tap(int64_t t) const { return (p.flip ? n_taps - 1 - t : t) * p.w_tap; }

    int64_t line_size() const { return panels * W + W; }
    int64_t kernel_size() const { return in_place ? 0 : p.groups * units * plane; }

    // In elements: packed panels; pieces or addresses; what is collected beside the result; zeros.
    int64_t table_size() const {
        const int64_t pieces = p.rows ? 0 : p.block * int64_t(sizeof(Piece));
        const int64_t addresses = (p.rows ? max(1, deep / p.ins) * p.block : share) * int64_t(sizeof(T*));
        return ceil_div(pieces + addresses, int64_t(sizeof(T)));
    }
    int64_t thread_size() const {
        const int64_t packed = p.rows ? 0 : panels * deep * W,
                      edge = p.rows ? p.block * W : panels * share * W + kLines * line_size();
        return round_up(packed + edge + table_size() + round_up(p.ins, L) + round_up(p.outs, W) + W, 64);
    }
    size_t scratch(bool kept) const { return size_t(p.threads * thread_size() + (kept ? 0 : kernel_size()) + 64) * sizeof(T); }
};

}  // namespace
}  // namespace NINEFOLD_NS

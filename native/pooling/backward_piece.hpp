// How the work of a pooling's gradient is cut, and what a thread needs for a piece of it.
//
//     input, cut along its slowest axis that has windows
//     +------------------------------+
//     |                              |  q0  first position that is read
//     |   - - - - - - - - - - - - -  |  p0  first position that the piece owns   } outputs j0 to j1 read
//     |            piece             |                                          } any of these positions
//     |   - - - - - - - - - - - - -  |  p1                                      }
//     |                              |  q1
//     +------------------------------+
#pragma once
#include "common/bump_allocator.hpp"
#include "pooling/argmax_rows.hpp"
#include "pooling/windows.hpp"

namespace NINEFOLD_NS {
namespace {

constexpr int64_t kPiece = 16 * 1024;  // elements of a piece's input
constexpr int64_t kSlack = 64;         // elements behind a row of scratch
constexpr int64_t kNarrow = 128;       // positions in a row that is better off as pixels
constexpr int64_t kBatch = 8;          // rows that are staged before any is read

NINEFOLD_INLINE int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

// Positions that a piece owns along an axis, the outputs that read any of them, and all that these read.
struct Part {
    int64_t p0, p1, j0, j1, q0, q1;
};

Part part_of(const PoolAxis& a, int64_t from, int64_t to) {
    Part part{from, to, 0, 0, 0, 0};
    part.j0 = max(0, -floor_div(-(from + a.lo - extent(a) + 1), a.stride));
    part.j1 = max(part.j0, min(a.n_out, floor_div(to - 1 + a.lo, a.stride) + 1));
    part.q0 = min(from, max(0, part.j0 * a.stride - a.lo));
    part.q1 = part.j1 > part.j0 ? max(to, min(a.n_in, (part.j1 - 1) * a.stride - a.lo + extent(a))) : to;
    return part;
}

struct Cut {
    int cut_axis;              // the axis that is cut: 0 or 1
    int64_t own, pieces;       // positions per piece
    int64_t reads, outs;       // most of them along that axis
    int64_t n, pitch, before;  // elements of a row of outputs; with room before and behind; that room
    int64_t staged, parted;    // elements of a staged row, and of one of its parts
};

Cut cut_of(const Pool& p) {
    const PoolAxis &y = p.axis[1], &x = p.axis[2];
    Cut c{};
    c.cut_axis = trivial(p.axis[0]) ? 1 : 0;
    const PoolAxis& a = p.axis[c.cut_axis];
    const int64_t slice = (c.cut_axis == 0 ? y.n_in : 1) * x.n_in * p.inner;
    c.own = max(max(1, 2 * extent(a)), kPiece / max(1, slice));
    if (p.threads > 1 && p.outer * ceil_div(a.n_in, c.own) < 4 * p.threads)
        c.own = max(a.stride, ceil_div(a.n_in, ceil_div(4 * p.threads, max(1, p.outer))));
    c.own = min(a.n_in, c.own);
    c.pieces = ceil_div(a.n_in, c.own);
    for (int64_t k = 0; k < c.pieces; ++k) {
        const Part part = part_of(a, k * c.own, min(a.n_in, (k + 1) * c.own));
        c.reads = max(c.reads, part.q1 - part.q0);
        c.outs = max(c.outs, part.j1 - part.j0);
    }
    c.n = x.n_out * p.inner;
    c.before = (extent(x) - 1) / x.stride * p.inner;
    const int64_t last = (x.lo + x.n_in - 1) / x.stride + 1;  // behind the last part that a position of the input is in
    c.pitch = c.before + max(x.n_out, last) * p.inner + kSlack;
    const int64_t width = max(span(x, x.n_out), x.lo + x.n_in);
    c.staged = width * p.inner + kSlack;
    c.parted = ceil_div(width, x.stride) * p.inner + kSlack;
    return c;
}

template <class S> struct Room {
    typedef Wide<S> T;
    const T** rows;  // taps, or what is gathered
    const Word<T>** found;
    Word<T>* taps;
    const S** plain;
    T *staged, *parts, *merged, *up, *row, *across, *down, *slab;
    Word<T>*start, *at_x, *at_y, *at_z;

    size_t layout(char* base, const Pool& p, const Cut& c) {
        const PoolAxis &z = p.axis[0], &y = p.axis[1], &x = p.axis[2];
        const bool largest = p.join == Join::largest;
        const int64_t zs = c.cut_axis == 0 ? c.reads : 1, ys = c.cut_axis == 1 ? c.reads : y.n_in;
        const int64_t zo = c.cut_axis == 0 ? c.outs : 1, yo = c.cut_axis == 1 ? c.outs : y.n_out;
        const int64_t taps_most = max(z.kernel, max(y.kernel, x.kernel));
        BumpAllocator take(base);
        rows = take.allocate<const T*>(taps_most), found = take.allocate<const Word<T>*>(taps_most),
        taps = take.allocate<Word<T>>(taps_most);
        plain = take.allocate<const S*>(taps_most);
        staged = take.allocate<T>(largest ? kBatch * c.staged : 0);
        parts = take.allocate<T>((largest ? kBatch : 1) * x.stride * c.parted);
        merged = take.allocate<T>(c.staged);
        up = take.allocate<T>(zo * yo * c.n + kSlack);                  // the gradient of the outputs, divided and widened
        row = take.allocate<T>(kBatch * c.pitch);                       // the gradient with respect to the maxima along x
        across = take.allocate<T>(largest ? ys * c.n + kSlack : 0);     // maxima along x, of one plane
        down = take.allocate<T>(largest ? zs * yo * c.n + kSlack : 0);  // maxima along x and y
        slab = take.allocate<T>(yo * c.n + kSlack);                     // the gradient with respect to those of one plane
        start = take.allocate<Word<T>>(largest ? c.n + kSlack : 0);     // the first tap along x that reads inside
        at_x = take.allocate<Word<T>>(largest ? zs * ys * c.pitch : 0);
        at_y = take.allocate<Word<T>>(largest ? zs * yo * c.n + kSlack : 0);
        at_z = take.allocate<Word<T>>(largest ? zo * yo * c.n + kSlack : 0);
        return take.bytes();
    }
};

}  // namespace
}  // namespace NINEFOLD_NS

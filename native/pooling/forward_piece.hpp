// How the work of a forward pooling is cut, and what a thread needs for a piece of it.
//
//     input of one plane                        what a thread holds
//     +---------------------------------+
//     |      +--------------+           |       planes   rows of the band, joined along z
//     |      | piece: rows  |           |       staged   a batch of rows, joined along y, the border around them
//     |      | x columns    |  ...      |       parts    the same by residue of x modulo the stride
//     |      +--------------+           |       out      a row of outputs before it is divided
//     +---------------------------------+
#pragma once
#include "common/bump_allocator.hpp"
#include "pooling/rows.hpp"
#include "pooling/windows.hpp"

namespace NINEFOLD_NS {
namespace {

constexpr int64_t kLongRow = 2048;    // elements that are staged at once along x
constexpr int64_t kBand = 48 * 1024;  // elements that a band reads
constexpr int64_t kSlack = 64;        // elements behind a row of scratch
constexpr int64_t kStaged = 2048;     // elements of a batch of staged rows
constexpr int64_t kManyTaps = 8;      // taps along x from which they are joined in two steps

// How the work is cut, and what each thread needs.
struct Cut {
    int64_t rows, cols, bands, chunks;  // outputs per piece along y and x, and pieces
    int64_t batch;                      // rows that are staged at once
    int64_t row, pitch, out;            // elements of a staged row, of one of its parts, of an output row
    bool deep;                          // several planes are joined first
};

// Rows of outputs that are made at once.
int64_t shared(const PoolAxis& y) {
    int64_t n = 1;
    while (y.stride == 1 && y.dilation == 1 && 2 * n <= kMostShared && 2 * n <= y.kernel) n *= 2;
    return n;
}

Cut cut_of(const Pool& p) {
    const PoolAxis &z = p.axis[0], &y = p.axis[1], &x = p.axis[2];
    Cut c{};
    c.deep = z.kernel > 1;
    c.cols = x.n_out;
    if (span(x, x.n_out) * p.inner > 2 * kLongRow) {
        c.cols = max(1, (max(kLongRow / p.inner, 2 * extent(x)) - extent(x)) / x.stride + 1);
        c.cols = ceil_div(x.n_out, ceil_div(x.n_out, c.cols));
    }
    c.chunks = ceil_div(x.n_out, c.cols);
    const int64_t wide = span(x, c.cols) * p.inner, planes = c.deep ? z.kernel + 1 : 1;
    const int64_t fitting = max(kBand / (wide * planes), 2 * extent(y));
    c.rows = min(y.n_out, max(1, (fitting - extent(y)) / y.stride + 1));
    const int64_t wanted = 4 * p.threads;  // pieces, so that all threads end together
    if (p.threads > 1 && p.outer * c.chunks * ceil_div(y.n_out, c.rows) < wanted)
        c.rows = max(1, ceil_div(y.n_out, ceil_div(wanted, max(1, p.outer * c.chunks))));
    c.rows = ceil_div(y.n_out, ceil_div(y.n_out, c.rows));
    c.bands = ceil_div(y.n_out, c.rows);
    c.row = wide + kSlack;
    c.batch = min(c.rows, max(shared(y), kStaged / c.row));
    c.pitch = x.stride > 1 ? ceil_div(span(x, c.cols), x.stride) * p.inner + kSlack : 0;
    c.out = c.cols * p.inner + kSlack;
    return c;
}

// One thread's scratch, laid out once for counting and once for use.
template <class S> struct Room {
    typedef Wide<S> T;
    const S** rows;    // of the band, as windows see it
    const T** joined;  // the same after the planes were joined
    const S** picked;  // taps of one output
    const T** taps;
    S* none;  // a row of nothing
    T* no_row;
    T *planes, *staged, *parts, *fewer, *out, *twice, *divide;

    size_t layout(char* at, const Pool& p, const Cut& c) {
        const int64_t height = span(p.axis[1], c.rows);
        const int64_t most_taps = max(p.axis[0].kernel, max(p.axis[1].kernel, p.axis[2].kernel));
        BumpAllocator take(at);
        rows = take.allocate<const S*>(height), joined = take.allocate<const T*>(height);
        picked = take.allocate<const S*>(most_taps), taps = take.allocate<const T*>(most_taps);
        none = take.allocate<S>(c.row), no_row = take.allocate<T>(c.row);
        planes = take.allocate<T>(c.deep ? height * c.row : 0);
        staged = take.allocate<T>(c.batch * c.row);
        parts = take.allocate<T>(c.batch * p.axis[2].stride * c.pitch);
        fewer = take.allocate<T>(c.batch * c.row);
        out = take.allocate<T>(c.out), twice = take.allocate<T>(2 * c.out), divide = take.allocate<T>(c.out);
        return take.bytes();
    }
};

// One piece: a band of rows and a chunk of columns of one image.
template <class S> struct Piece {
    typedef Wide<S> T;
    const Pool& p;
    const Cut& cut;
    const S* in;
    S* result;
    Room<S>& room;
    int64_t j0, j1, i0, i1;      // outputs
    int64_t left, first, until;  // positions along x: of the first tap, and of what lies inside
    int64_t scanned = 0, last_nan = -1;

    Piece(const Pool& pool, const Cut& c, const S* x, S* z, Room<S>& r, int64_t band, int64_t chunk)
        : p(pool), cut(c), in(x), result(z), room(r) {
        j0 = band * c.rows, j1 = min(j0 + c.rows, p.axis[1].n_out);
        i0 = chunk * c.cols, i1 = min(i0 + c.cols, p.axis[2].n_out);
        left = i0 * p.axis[2].stride - p.axis[2].lo;
        first = max(0, left);
        until = max(first, min(p.axis[2].n_in, left + span(p.axis[2], i1 - i0)));
    }

    int64_t inside() const { return (until - first) * p.inner; }
    const S* row(int64_t z, int64_t y) const { return in + ((z * p.axis[1].n_in + y) * p.axis[2].n_in + first) * p.inner; }

    bool finishing() const { return sizeof(S) != sizeof(T) || p.after != After::none || p.divides(); }
    S* output(int64_t oz, int64_t j) const { return result + ((oz * p.axis[1].n_out + j) * p.axis[2].n_out + i0) * p.inner; }
};

}  // namespace
}  // namespace NINEFOLD_NS

// Gradients of poolings. A sum's is spread over its window. A maximum's goes to its first element in memory (the last NaN, if
// there is one): found along x, then y, then z, each time as the first of the largest, which makes it the first of all.
//
// Both are gathered, not scattered: each row of the gradient is the sum of those rows of the outputs that read it, for a maximum
// where the tap that was found is the one that reads it. So every element is written once, in a fixed order, by one thread, and
// all of it is arithmetic on whole rows. What was found is made anew from the input, and lives in scratch: nothing is kept from
// the forward pass. Work is cut along the slowest axis that has windows; what neighbouring pieces share is found twice.
#include "pool.hpp"

#include "rows.hpp"
#include "simd.hpp"
#include "taker.hpp"
#include "threads.hpp"

namespace NINEFOLD_NS {
namespace {

constexpr int64_t kPiece = 64 * 1024;  // elements of a piece's input
constexpr int64_t kSlack = 64;         // elements behind a row of scratch
constexpr int64_t kBatch = 8;          // rows that are staged before any is read

template <class T> using Word = typename VecOf<T>::word;

NINEFOLD_INLINE int64_t extent(const PoolAxis& a) { return (a.kernel - 1) * a.dilation + 1; }
NINEFOLD_INLINE int64_t span(const PoolAxis& a, int64_t outputs) { return (outputs - 1) * a.stride + extent(a); }
NINEFOLD_INLINE bool trivial(const PoolAxis& a) { return a.kernel == 1 && a.stride == 1 && a.lo == 0 && a.n_in == a.n_out; }
NINEFOLD_INLINE int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

// Positions that a piece owns along an axis, the outputs that read any of them, and all that these read.
struct Part {
    int64_t p0, p1, j0, j1, q0, q1;
};

Part part_of(const PoolAxis& a, int64_t from, int64_t to) {
    Part part{from, to, 0, 0, 0, 0};
    part.j0 = most(0, -floor_div(-(from + a.lo - extent(a) + 1), a.stride));
    part.j1 = most(part.j0, least(a.n_out, floor_div(to - 1 + a.lo, a.stride) + 1));
    part.q0 = least(from, most(0, part.j0 * a.stride - a.lo));
    part.q1 = part.j1 > part.j0 ? most(to, least(a.n_in, (part.j1 - 1) * a.stride - a.lo + extent(a))) : to;
    return part;
}

struct Cut {
    int along;                 // the axis that is cut: 0 or 1
    int64_t own, pieces;       // positions per piece
    int64_t reads, outs;       // most of them along that axis
    int64_t n, pitch, before;  // elements of a row of outputs; with room before and behind; that room
    int64_t staged, parted;    // elements of a staged row, and of one of its parts
};

Cut cut_of(const Pool& p) {
    const PoolAxis &y = p.axis[1], &x = p.axis[2];
    Cut c{};
    c.along = trivial(p.axis[0]) ? 1 : 0;
    const PoolAxis& a = p.axis[c.along];
    const int64_t slice = (c.along == 0 ? y.n_in : 1) * x.n_in * p.inner;
    c.own = most(most(1, 2 * extent(a)), kPiece / most(1, slice));
    if (p.threads > 1 && p.outer * ceil_div(a.n_in, c.own) < 4 * p.threads)
        c.own = most(a.stride, ceil_div(a.n_in, ceil_div(4 * p.threads, most(1, p.outer))));
    c.own = least(a.n_in, c.own);
    c.pieces = ceil_div(a.n_in, c.own);
    for (int64_t k = 0; k < c.pieces; ++k) {
        const Part part = part_of(a, k * c.own, least(a.n_in, (k + 1) * c.own));
        c.reads = most(c.reads, part.q1 - part.q0);
        c.outs = most(c.outs, part.j1 - part.j0);
    }
    c.n = x.n_out * p.inner;
    c.before = (extent(x) - 1) / x.stride * p.inner;
    const int64_t last = (x.lo + x.n_in - 1) / x.stride + 1;  // behind the last part that a position of the input is in
    c.pitch = c.before + most(x.n_out, last) * p.inner + kSlack;
    const int64_t width = most(span(x, x.n_out), x.lo + x.n_in);
    c.staged = width * p.inner + kSlack;
    c.parted = ceil_div(width, x.stride) * p.inner + kSlack;
    return c;
}

template <class S> struct Room {
    typedef Wide<S> T;
    const T** rows;        // taps, or what is gathered
    const Word<T>** found;
    Word<T>* taps;
    const S** plain;
    T *staged, *parts, *merged, *up, *row, *across, *down, *slab;
    Word<T>*start, *at_x, *at_y, *at_z;

    size_t layout(char* base, const Pool& p, const Cut& c) {
        const PoolAxis &z = p.axis[0], &y = p.axis[1], &x = p.axis[2];
        const bool max = p.join == Join::largest;
        const int64_t zs = c.along == 0 ? c.reads : 1, ys = c.along == 1 ? c.reads : y.n_in;
        const int64_t zo = c.along == 0 ? c.outs : 1, yo = c.along == 1 ? c.outs : y.n_out;
        const int64_t taps_most = most(z.kernel, most(y.kernel, x.kernel));
        Taker take(base);
        rows = take.of<const T*>(taps_most), found = take.of<const Word<T>*>(taps_most), taps = take.of<Word<T>>(taps_most);
        plain = take.of<const S*>(taps_most);
        staged = take.of<T>(max ? kBatch * c.staged : 0);
        parts = take.of<T>((max ? kBatch : 1) * x.stride * c.parted);
        merged = take.of<T>(c.staged);
        up = take.of<T>(zo * yo * c.n + kSlack);       // the gradient of the outputs, divided and widened
        row = take.of<T>(kBatch * c.pitch);            // the gradient with respect to the maxima along x
        across = take.of<T>(max ? ys * c.n + kSlack : 0);       // maxima along x, of one plane
        down = take.of<T>(max ? zs * yo * c.n + kSlack : 0);    // maxima along x and y
        slab = take.of<T>(yo * c.n + kSlack);          // the gradient with respect to those of one plane
        start = take.of<Word<T>>(max ? c.n + kSlack : 0);       // the first tap along x that reads inside
        at_x = take.of<Word<T>>(max ? zs * ys * c.pitch : 0);
        at_y = take.of<Word<T>>(max ? zs * yo * c.n + kSlack : 0);
        at_z = take.of<Word<T>>(max ? zo * yo * c.n + kSlack : 0);
        return take.bytes();
    }
};

// to[v] = the largest of rows[m][v], at[v] = its tap; where none is larger than nothing, start[v], or the first tap without start.
template <bool Nan, class T>
void find(const T* const* rows, const Word<T>* taps, int64_t count, int64_t n, const Word<T>* start, T* to, Word<T>* at) {
    constexpr int L = kLanes<T>;
    for (int64_t v = 0; v < n; v += L) {  // rows are scratch, or n is a multiple of L
        Vec<T> top = load(rows[0] + v);
        Mask<T> where = {};
        if (start) __builtin_memcpy(&where, start + v, kBytes);
        else where = where + taps[0];
        for (int64_t m = 1; m < count; ++m) {
            const Vec<T> x = load(rows[m] + v);
            Mask<T> more = x > top;
            if constexpr (Nan) more |= x != x;
            where = more ? Mask<T>{} + taps[m] : where;
            top = Nan ? (more ? x : top) : larger(top, x);
        }
        store(to + v, top);
        __builtin_memcpy(at + v, &where, kBytes);
    }
}

// to[v] = the sum of rows[m][v], for a maximum of those where found[m][v] is taps[m].
template <bool Max, class T>
void gather(const T* const* rows, const Word<T>* const* found, const Word<T>* taps, int64_t count, int64_t n, T* to) {
    constexpr int L = kLanes<T>;
    auto one = [&](int64_t v) {
        Vec<T> sum = {};
        for (int64_t m = 0; m < count; ++m) {
            Vec<T> g = load(rows[m] + v);
            if constexpr (Max) {
                Mask<T> where;
                __builtin_memcpy(&where, found[m] + v, kBytes);
                g = masked<T>(g, where == taps[m]);
            }
            sum += g;
        }
        return sum;
    };
    int64_t v = 0;
    for (; v + L <= n; v += L) store(to + v, one(v));
    if (v < n) write_first(to + v, one(v), n - v);  // rows are scratch with room behind them
}

template <class S, bool Max> struct Piece {
    typedef Wide<S> T;
    const Pool& p;
    const Cut& c;
    const S *in, *grad;
    S* result;
    Room<S>& room;
    Part z, y;

    int64_t outs_y() const { return y.j1 - y.j0; }
    const S* input(int64_t iz, int64_t iy) const { return in + (iz * p.axis[1].n_in + iy) * p.axis[2].n_in * p.inner; }

    void run() {
        widen();
        if constexpr (Max) {
            bool nan = false;
            for (int64_t iz = z.q0; iz < z.q1; ++iz) nan |= any_nan(input(iz, y.q0), (y.q1 - y.q0) * p.axis[2].n_in * p.inner);
            nan ? search<true>() : search<false>();
        }
        for (int64_t iz = z.p0; iz < z.p1; ++iz) spread(iz);
    }

    // The gradient of the outputs that matter here, divided as they were.
    void widen() {
        constexpr int L = kLanes<T>;
        const PoolAxis &yy = p.axis[1], &x = p.axis[2];
        for (int64_t oz = z.j0; oz < z.j1; ++oz)
            for (int64_t oy = y.j0; oy < y.j1; ++oy) {
                const S* from = grad + (oz * yy.n_out + oy) * x.n_out * p.inner;
                T* to = room.up + ((oz - z.j0) * outs_y() + oy - y.j0) * c.n;
                const T share = T((p.divide[0] ? p.divide[0][oz] : 1.0) * (p.divide[1] ? p.divide[1][oy] : 1.0));
                int64_t v = 0;
                if (p.divide[2]) {
                    for (int64_t i = 0; i < x.n_out; ++i)
                        for (int64_t k = 0; k < p.inner; ++k, ++v) to[v] = wide(from[v]) / (share * T(p.divide[2][i]));
                    continue;
                }
                for (; v + L <= c.n; v += L) store(to + v, read(from + v) / broadcast<T>(share));
                for (; v < c.n; ++v) to[v] = wide(from[v]) / share;
            }
    }

    // Find the maxima: along x for every row, then along y, then along z.
    template <bool Nan> void search() {
        const PoolAxis &zz = p.axis[0], &yy = p.axis[1];
        starts();
        for (int64_t iz = z.q0; iz < z.q1; ++iz) {
            T* down = room.down + (iz - z.q0) * outs_y() * c.n;
            T* across = trivial(yy) ? down : room.across;
            for (int64_t iy = y.q0; iy < y.q1; iy += kBatch) rows_x<Nan>(iz, iy, least(kBatch, y.q1 - iy), across);
            if (trivial(yy)) continue;
            for (int64_t oy = y.j0; oy < y.j1; ++oy) {
                const int64_t count = picks(yy, oy, y.q0, across, c.n), to = (iz - z.q0) * outs_y() + oy - y.j0;
                settle<Nan>(count, room.down + to * c.n, room.at_y + to * c.n);
            }
        }
        for (int64_t oz = z.j0; oz < z.j1 && !trivial(zz); ++oz)
            for (int64_t oy = 0; oy < outs_y(); ++oy) {
                const int64_t count = picks(zz, oz, z.q0, room.down + oy * c.n, outs_y() * c.n);
                settle<Nan>(count, room.across, room.at_z + ((oz - z.j0) * outs_y() + oy) * c.n);
            }
    }

    // The rows inside that one output reads.
    int64_t picks(const PoolAxis& a, int64_t j, int64_t q0, const T* from, int64_t pitch) {
        int64_t count = 0;
        for (int64_t m = 0; m < a.kernel; ++m) {
            const int64_t at = j * a.stride - a.lo + m * a.dilation;
            if (at < 0 || at >= a.n_in) continue;
            room.rows[count] = from + (at - q0) * pitch;
            room.taps[count++] = Word<T>(m);
        }
        return count;
    }

    template <bool Nan> void settle(int64_t count, T* to, Word<T>* at) {
        if (count) return find<Nan, T>(room.rows, room.taps, count, c.n, nullptr, to, at);
        fill<T>(to, c.n, -T(__builtin_inf()));
        fill<Word<T>>(at, c.n, Word<T>(-1));
    }

    void starts() {
        const PoolAxis& x = p.axis[2];
        for (int64_t i = 0; i < x.n_out; ++i) {
            const int64_t missing = x.lo - i * x.stride;
            const int64_t m = missing > 0 ? ceil_div(missing, x.dilation) : 0;
            fill<Word<T>>(room.start + i * p.inner, p.inner, Word<T>(m));
        }
        fill<Word<T>>(room.start + c.n, kSlack, 0);
    }

    // Stage some rows with nothing around them, then find the maxima along x.
    template <bool Nan> void rows_x(int64_t iz, int64_t iy, int64_t count, T* across) {
        const PoolAxis& x = p.axis[2];
        const int64_t in_row = x.n_in * p.inner, lo = x.lo * p.inner, width = c.staged - kSlack;
        for (int64_t i = 0; i < count; ++i) {
            T* to = room.staged + i * c.staged;
            const S* from = input(iz, iy + i);
            fill<T>(to, lo, -T(__builtin_inf()));
            join_rows<Plus, Before::none, S>(&from, 1, in_row, to + lo);
            fill<T>(to + lo + in_row, width - lo - in_row, -T(__builtin_inf()));
            if (x.stride == 1) continue;
            T* parts = room.parts + i * x.stride * c.parted;
            if (p.inner == 1) split(to, width, x.stride, c.parted, parts);
            else
                for (int64_t u = 0; u < width / p.inner; ++u)
                    __builtin_memcpy(parts + u % x.stride * c.parted + u / x.stride * p.inner, to + u * p.inner, size_t(p.inner) * sizeof(T));
        }
        for (int64_t i = 0; i < count; ++i) {
            const T* from = x.stride == 1 ? room.staged + i * c.staged : room.parts + i * x.stride * c.parted;
            for (int64_t m = 0; m < x.kernel; ++m) {
                const int64_t at = m * x.dilation;
                room.rows[m] = from + at % x.stride * c.parted + at / x.stride * p.inner;
                room.taps[m] = Word<T>(m);
            }
            const int64_t k = (iz - z.q0) * (y.q1 - y.q0) + iy + i - y.q0;
            find<Nan, T>(room.rows, room.taps, x.kernel, c.n, room.start, across + (iy + i - y.q0) * c.n, room.at_x + k * c.pitch + c.before);
        }
    }

    // The gradient of one plane of the input.
    void spread(int64_t iz) {
        const PoolAxis &zz = p.axis[0], &yy = p.axis[1];
        const T* slab = room.up;
        if (!trivial(zz)) {
            for (int64_t oy = 0; oy < outs_y(); ++oy) {
                const int64_t count = readers(zz, iz, z, room.up + oy * c.n, Max ? room.at_z + oy * c.n : nullptr, outs_y() * c.n);
                gather<Max, T>(room.rows, room.found, room.taps, count, c.n, room.slab + oy * c.n);
            }
            slab = room.slab;
        }
        const int64_t plane = iz - z.q0;
        for (int64_t iy = y.p0; iy < y.p1; iy += kBatch) {
            const int64_t count = least(kBatch, y.p1 - iy);
            for (int64_t i = 0; i < count; ++i) {
                T* row = room.row + i * c.pitch;
                fill<T>(row, c.before, T(0));
                if (trivial(yy)) {
                    const T* from = slab + (iy + i - y.j0) * c.n;
                    join_rows<Plus, Before::none, T>(&from, 1, c.n, row + c.before);
                } else {
                    const int64_t k = readers(yy, iy + i, y, slab, Max ? room.at_y + plane * outs_y() * c.n : nullptr, c.n);
                    gather<Max, T>(room.rows, room.found, room.taps, k, c.n, row + c.before);
                }
                fill<T>(row + c.before + c.n, c.pitch - c.before - c.n, T(0));
            }
            for (int64_t i = 0; i < count; ++i)
                row_x(room.row + i * c.pitch, Max ? room.at_x + (plane * (y.q1 - y.q0) + iy + i - y.q0) * c.pitch : nullptr,
                      result + (iz * yy.n_in + iy + i) * p.axis[2].n_in * p.inner);
        }
    }

    // The outputs that read one position, and with which tap.
    int64_t readers(const PoolAxis& a, int64_t i, const Part& part, const T* from, const Word<T>* found, int64_t pitch) {
        int64_t count = 0;
        for (int64_t m = a.kernel - 1; m >= 0; --m) {
            const int64_t at = i + a.lo - m * a.dilation;
            if (at < 0 || at % a.stride) continue;
            const int64_t j = at / a.stride - part.j0;
            if (j < 0 || j >= part.j1 - part.j0) continue;
            room.rows[count] = from + j * pitch;
            if constexpr (Max) room.found[count] = found + j * pitch;
            room.taps[count++] = Word<T>(m);
        }
        return count;
    }

    void row_x(const T* row, const Word<T>* found, S* out) {
        const PoolAxis& x = p.axis[2];
        const int64_t n = x.n_in * p.inner, shift = x.stride == 1 ? x.lo * p.inner : 0;
        const int64_t wide_n = x.stride == 1 ? n : ceil_div(x.lo + x.n_in, x.stride) * p.inner;
        T* straight = x.stride == 1 && sizeof(S) == sizeof(T) ? reinterpret_cast<T*>(out) : room.merged;
        for (int64_t r = 0; r < x.stride; ++r) {
            int64_t count = 0;
            for (int64_t m = x.kernel - 1; m >= 0; --m) {
                const int64_t at = m * x.dilation;
                if (at % x.stride != r) continue;
                room.rows[count] = row + c.before + shift - at / x.stride * p.inner;
                if constexpr (Max) room.found[count] = found + c.before + shift - at / x.stride * p.inner;
                room.taps[count++] = Word<T>(m);
            }
            gather<Max, T>(room.rows, room.found, room.taps, count, wide_n, x.stride == 1 ? straight : room.parts + r * c.parted);
        }
        const T* from = straight;
        if (x.stride > 1) {
            from = room.merged + x.lo * p.inner;
            if (p.inner == 1) merge(room.parts, x.lo + x.n_in, x.stride, c.parted, room.merged);
            else
                for (int64_t u = x.lo; u < x.lo + x.n_in; ++u)
                    __builtin_memcpy(room.merged + u * p.inner, room.parts + u % x.stride * c.parted + u / x.stride * p.inner,
                                     size_t(p.inner) * sizeof(T));
        }
        if (from == reinterpret_cast<const T*>(out)) return;
        constexpr int L = kLanes<T>;
        int64_t v = 0;
        for (; v + L <= n; v += L) write(out + v, load(from + v));
        if (v < n) write_first(out + v, load(from + v), n - v);
    }
};

template <class S, bool Max> void backward(const Pool& p, const S* x, const S* g, S* dx, char* scratch) {
    const Cut c = cut_of(p);
    Room<S> measured;
    const size_t each = measured.layout(nullptr, p, c);
    const int64_t in = p.axis[0].n_in * p.axis[1].n_in * p.axis[2].n_in * p.inner;
    const int64_t out = p.axis[0].n_out * p.axis[1].n_out * p.axis[2].n_out * p.inner;
    const int64_t pieces = p.outer * c.pieces;
    const int64_t together = most(1, least(pieces / (8 * p.threads), 8192 * c.pieces / (in + 1)));
#pragma omp parallel num_threads(int(p.threads)) if (p.threads > 1)
    {
        Room<S> room;
        room.layout(scratch + size_t(this_thread()) * each, p, c);
#pragma omp for schedule(dynamic)
        for (int64_t start = 0; start < pieces; start += together)
            for (int64_t k = start; k < least(start + together, pieces); ++k) {
                const int64_t o = k / c.pieces, from = k % c.pieces * c.own, to = least(from + c.own, p.axis[c.along].n_in);
                const Part cut = part_of(p.axis[c.along], from, to);
                const PoolAxis &z = p.axis[0], &y = p.axis[1];
                Piece<S, Max> piece{p, c, x + (Max ? o * in : 0), g + o * out, dx + o * in, room,
                                    c.along == 0 ? cut : Part{0, z.n_in, 0, z.n_out, 0, z.n_in},
                                    c.along == 1 ? cut : Part{0, y.n_in, 0, y.n_out, 0, y.n_in}};
                piece.run();
            }
    }
}

template <class S> void either(const Pool& p, const void* x, const void* g, void* dx, char* scratch) {
    if (p.join == Join::largest) backward<S, true>(p, static_cast<const S*>(x), static_cast<const S*>(g), static_cast<S*>(dx), scratch);
    else backward<S, false>(p, static_cast<const S*>(x), static_cast<const S*>(g), static_cast<S*>(dx), scratch);
}

}  // namespace

size_t pool_back_scratch(const Pool& p) {
    const Cut c = cut_of(p);
    Room<double> doubles;
    Room<float> floats;
    const size_t each = p.type == Type::float64 ? doubles.layout(nullptr, p, c) : floats.layout(nullptr, p, c);
    return each * size_t(p.threads);
}

// The gradient with respect to the input of a largest or a total without preparation; the input is not read for a total.
void pool_backward(const Pool& p, const void* x, const void* g, void* dx, char* scratch) {
    switch (p.type) {
        case Type::float32: return either<float>(p, x, g, dx, scratch);
        case Type::float64: return either<double>(p, x, g, dx, scratch);
        case Type::bfloat16: return either<BFloat16>(p, x, g, dx, scratch);
    }
}

}  // namespace NINEFOLD_NS

// Gradients of poolings. A sum's is spread over its window. A maximum's goes to its first element in memory (the last NaN, if
// there is one): found along x, then y, then z, each time as the first of the largest, which makes it the first of all.
//
// Both are gathered, not scattered: each row of the gradient is the sum of those rows of the outputs that read it, for a maximum
// where the tap that was found is the one that reads it. So every element is written once, in a fixed order, by one thread, and
// all of it is arithmetic on whole rows. What was found is made anew from the input, and lives in scratch: nothing is kept from
// the forward pass. Work is cut along the slowest axis that has windows; what neighbouring pieces share is found twice.
#include "pooling/pool.hpp"

#include "common/bump_allocator.hpp"
#include "common/simd.hpp"
#include "common/threads.hpp"
#include "pooling/planes.hpp"
#include "pooling/rows.hpp"

namespace NINEFOLD_NS {
namespace {

constexpr int64_t kPiece = 16 * 1024;  // elements of a piece's input
constexpr int64_t kSlack = 64;         // elements behind a row of scratch
constexpr int64_t kNarrow = 128;       // positions in a row that is better off as pixels
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

// to[v] = the largest of rows[m][v], at[v] = its tap; where none is larger than nothing, start[v], or the first tap without
// start. `Few` is the number of rows if it is small and known, so that they stay in registers.
template <bool Nan, int Few, class T>
void find_rows(const T* const* rows, const Word<T>* taps, int64_t many, int64_t n, const Word<T>* start, T* to, Word<T>* at) {
    constexpr int L = kLanes<T>;
    constexpr int kept = Few ? Few : 1;
    const int64_t count = Few ? Few : many;
    const T* row[kept];
    Mask<T> tap[kept];
    for (int m = 0; m < kept; ++m) row[m] = rows[m], tap[m] = Mask<T>{} + taps[m];
    for (int64_t v = 0; v < n; v += L) {  // there is room behind all of them
        Vec<T> top = load(row[0] + v);
        Mask<T> where = tap[0];
        if (start) __builtin_memcpy(&where, start + v, kBytes);
        for (int64_t m = 1; m < count; ++m) {
            const Vec<T> x = load((Few ? row[m] : rows[m]) + v);
            Mask<T> more = x > top;
            if constexpr (Nan) more |= x != x;
            where = more ? (Few ? tap[m] : Mask<T>{} + taps[m]) : where;
            top = Nan ? (more ? x : top) : larger(top, x);
        }
        store(to + v, top);
        __builtin_memcpy(at + v, &where, kBytes);
    }
}

template <bool Nan, class T>
void find(const T* const* rows, const Word<T>* taps, int64_t count, int64_t n, const Word<T>* start, T* to, Word<T>* at) {
    switch (count) {
        case 1: return find_rows<Nan, 1, T>(rows, taps, count, n, start, to, at);
        case 2: return find_rows<Nan, 2, T>(rows, taps, count, n, start, to, at);
        case 3: return find_rows<Nan, 3, T>(rows, taps, count, n, start, to, at);
        case 4: return find_rows<Nan, 4, T>(rows, taps, count, n, start, to, at);
        default: return find_rows<Nan, 0, T>(rows, taps, count, n, start, to, at);
    }
}

// to[v] = the sum of rows[m][v], for a maximum of those where found[m][v] is taps[m].
template <bool Max, int Few, class T>
void gather_rows(const T* const* rows, const Word<T>* const* found, const Word<T>* taps, int64_t many, int64_t n, T* to) {
    constexpr int L = kLanes<T>;
    constexpr int kept = Few ? Few : 1;
    const int64_t count = Few ? Few : many;
    const T* row[kept];
    const Word<T>* where[kept];
    Mask<T> tap[kept];
    for (int m = 0; m < kept && m < count; ++m) {
        row[m] = rows[m];
        if constexpr (Max) where[m] = found[m], tap[m] = Mask<T>{} + taps[m];
    }
    auto one = [&](int64_t v) {
        Vec<T> sum = {};
        for (int64_t m = 0; m < count; ++m) {
            Vec<T> g = load((Few ? row[m] : rows[m]) + v);
            if constexpr (Max) {
                Mask<T> at;
                __builtin_memcpy(&at, (Few ? where[m] : found[m]) + v, kBytes);
                g = masked<T>(g, at == (Few ? tap[m] : Mask<T>{} + taps[m]));
            }
            sum += g;
        }
        return sum;
    };
    int64_t v = 0;
    for (; v + L <= n; v += L) store(to + v, one(v));
    if (v < n) write_first(to + v, one(v), n - v);  // rows are scratch with room behind them
}

template <bool Max, class T>
void gather(const T* const* rows, const Word<T>* const* found, const Word<T>* taps, int64_t count, int64_t n, T* to) {
    switch (count) {
        case 1: return gather_rows<Max, 1, T>(rows, found, taps, count, n, to);
        case 2: return gather_rows<Max, 2, T>(rows, found, taps, count, n, to);
        case 3: return gather_rows<Max, 3, T>(rows, found, taps, count, n, to);
        case 4: return gather_rows<Max, 4, T>(rows, found, taps, count, n, to);
        default: return gather_rows<Max, 0, T>(rows, found, taps, count, n, to);
    }
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

    // A vector of zeros behind the last of some rows: the last vector of a row is read to its end.
    static void end(T* rows, int64_t elements) { store(rows + elements, Vec<T>{}); }

    // The gradient of the outputs that matter here, divided as they were.
    void widen() {
        constexpr int L = kLanes<T>;
        end(room.up, (z.j1 - z.j0) * outs_y() * c.n);
        const PoolAxis &yy = p.axis[1], &x = p.axis[2];
        int64_t begin, behind;
        x.whole(begin, behind);
        for (int64_t oz = z.j0; oz < z.j1; ++oz)
            for (int64_t oy = y.j0; oy < y.j1; ++oy) {
                const S* from = grad + (oz * yy.n_out + oy) * x.n_out * p.inner;
                T* to = room.up + ((oz - z.j0) * outs_y() + oy - y.j0) * c.n;
                const T share = T(p.share(oz, oy));
                auto divided = [&](int64_t v, int64_t until, T by) {
                    for (; v + L <= until; v += L) store(to + v, read(from + v) / broadcast<T>(by));
                    for (; v < until; ++v) to[v] = wide(from[v]) / by;
                };
                if (x.counts) {
                    auto one_by_one = [&](int64_t i) { divided(i * p.inner, (i + 1) * p.inner, share * T(x.divisor(i))); };
                    for (int64_t i = 0; i < begin; ++i) one_by_one(i);
                    divided(begin * p.inner, behind * p.inner, share * T(x.kernel));
                    for (int64_t i = behind; i < x.n_out; ++i) one_by_one(i);
                    continue;
                }
                if (share == T(1)) {
                    join_rows<Plus, Before::none, S>(&from, 1, c.n, to);
                    continue;
                }
                divided(0, c.n, share);
            }
    }

    // Find the maxima: along x for every row, then along y, then along z.
    template <bool Nan> void search() {
        const PoolAxis &zz = p.axis[0], &yy = p.axis[1];
        for (int64_t iz = z.q0; iz < z.q1; ++iz) {
            T* down = room.down + (iz - z.q0) * outs_y() * c.n;
            T* across = trivial(yy) ? down : room.across;
            for (int64_t iy = y.q0; iy < y.q1; iy += kBatch) rows_x<Nan>(iz, iy, min(kBatch, y.q1 - iy), across);
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
        const int64_t whole = round_up(c.n, kLanes<T>);  // as `find` does
        fill<T>(to, whole, -T(__builtin_inf()));
        fill<Word<T>>(at, whole, Word<T>(-1));
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
                    copy(parts + u % x.stride * c.parted + u / x.stride * p.inner, to + u * p.inner, p.inner);
        }
        for (int64_t i = 0; i < count; ++i) {
            const T* from = x.stride == 1 ? room.staged + i * c.staged : room.parts + i * x.stride * c.parted;
            for (int64_t m = 0; m < x.kernel; ++m) {
                const int64_t at = m * x.dilation;
                room.rows[m] = from + at % x.stride * c.parted + at / x.stride * p.inner;
                room.taps[m] = Word<T>(m);
            }
            const int64_t k = (iz - z.q0) * (y.q1 - y.q0) + iy + i - y.q0;
            find<Nan, T>(room.rows, room.taps, x.kernel, c.n, room.start, across + (iy + i - y.q0) * c.n,
                         room.at_x + k * c.pitch + c.before);
        }
    }

    // The gradient of one plane of the input.
    void spread(int64_t iz) {
        const PoolAxis &zz = p.axis[0], &yy = p.axis[1];
        const T* slab = room.up;
        if (!trivial(zz)) {
            for (int64_t oy = 0; oy < outs_y(); ++oy) {
                const int64_t count =
                    readers(zz, iz, z, room.up + oy * c.n, Max ? room.at_z + oy * c.n : nullptr, outs_y() * c.n);
                gather<Max, T>(room.rows, room.found, room.taps, count, c.n, room.slab + oy * c.n);
            }
            end(room.slab, outs_y() * c.n);
            slab = room.slab;
        }
        const int64_t plane = iz - z.q0;
        for (int64_t iy = y.p0; iy < y.p1; iy += kBatch) {
            const int64_t count = min(kBatch, y.p1 - iy);
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
                    copy(room.merged + u * p.inner, room.parts + u % x.stride * c.parted + u / x.stride * p.inner, p.inner);
        }
        if (from == reinterpret_cast<const T*>(out)) return;
        constexpr int L = kLanes<T>;
        int64_t v = 0;
        for (; v + L <= n; v += L) write(out + v, load(from + v));
        if (v < n) write_first(out + v, load(from + v), n - v);
    }
};

template <class S> void starts(const Pool& p, const Cut& c, Room<S>& room) {
    typedef Wide<S> T;
    typedef Word<T> At;
    const PoolAxis& x = p.axis[2];
    // what is behind staged rows and their parts: the last vector of a row of outputs is read to its end
    const int64_t width = c.staged - kSlack, parted = width / p.inner / x.stride * p.inner;
    for (int64_t i = 0; i < kBatch; ++i) fill<T>(room.staged + i * c.staged + width, kSlack, T(0));
    for (int64_t i = 0; i < kBatch * x.stride; ++i) fill<T>(room.parts + i * c.parted + parted, c.parted - parted, T(0));
    fill<At>(room.start, c.n + kSlack, 0);
    for (int64_t i = 0; i < x.n_out && i * x.stride < x.lo; ++i)
        fill<At>(room.start + i * p.inner, p.inner, At(ceil_div(x.lo - i * x.stride, x.dilation)));
}

int64_t positions_in(const Pool& p) { return p.axis[0].n_in * p.axis[1].n_in * p.axis[2].n_in; }
int64_t positions_out(const Pool& p) { return p.axis[0].n_out * p.axis[1].n_out * p.axis[2].n_out; }

template <class S, bool Max> void piece(const Pool& p, const Cut& c, const S* x, const S* g, S* dx, Room<S>& room, int64_t k) {
    const PoolAxis &z = p.axis[0], &y = p.axis[1];
    const Part cut = part_of(p.axis[c.cut_axis], k * c.own, min((k + 1) * c.own, p.axis[c.cut_axis].n_in));
    const Part all_z{0, z.n_in, 0, z.n_out, 0, z.n_in}, all_y{0, y.n_in, 0, y.n_out, 0, y.n_in};
    Piece<S, Max>{p, c, x, g, dx, room, c.cut_axis == 0 ? cut : all_z, c.cut_axis == 1 ? cut : all_y}.run();
}

template <class S, bool Max> void backward(const Pool& p, const S* x, const S* g, S* dx, char* scratch) {
    const Cut c = cut_of(p);
    Room<S> measured;
    const size_t each = measured.layout(nullptr, p, c);
    const int64_t in = positions_in(p) * p.inner, out = positions_out(p) * p.inner;
    const int64_t pieces = p.outer * c.pieces;
    const int64_t together = max(1, min(pieces / (8 * p.threads), 8192 * c.pieces / (in + 1)));
#pragma omp parallel num_threads(int(p.threads)) if (p.threads > 1)
    {
        Room<S> room;
        room.layout(scratch + size_t(this_thread()) * each, p, c);
        if constexpr (Max) starts(p, c, room);
#pragma omp for schedule(dynamic)
        for (int64_t first = 0; first < pieces; first += together)
            for (int64_t k = first; k < min(first + together, pieces); ++k) {
                const int64_t o = k / c.pieces;
                piece<S, Max>(p, c, Max ? x + o * in : x, g + o * out, dx + o * in, room, k % c.pieces);
            }
    }
}

// One image whose pixels are vectors of planes.
template <class T> Pool pixels_of(const Pool& p) {
    Pool q = p;
    q.outer = q.threads = 1;
    q.inner = kLanes<T>;
    return q;
}

template <class T> size_t pixels_scratch(const Pool& p) {
    const Pool q = pixels_of<T>(p);
    Room<T> room;
    BumpAllocator take(nullptr);
    take.allocate<T>(positions_in(p) * kLanes<T>), take.allocate<T>(positions_out(p) * kLanes<T>),
        take.allocate<T>(positions_in(p) * kLanes<T>);
    return take.bytes() + room.layout(nullptr, q, cut_of(q));
}

template <class T, bool Max> void backward_as_pixels(const Pool& p, const T* x, const T* g, T* dx, char* scratch) {
    const Pool q = pixels_of<T>(p);
    const Cut c = cut_of(q);
    const size_t each = pixels_scratch<T>(p);
    const int64_t in = positions_in(p), out = positions_out(p);
#pragma omp parallel num_threads(int(p.threads)) if (p.threads > 1)
    {
        char* mine = scratch + size_t(this_thread()) * each;
        BumpAllocator take(mine);
        T *from = take.allocate<T>(in * kLanes<T>), *up = take.allocate<T>(out * kLanes<T>),
          *to = take.allocate<T>(in * kLanes<T>);
        Room<T> room;
        room.layout(mine + take.bytes(), q, c);
        if constexpr (Max) starts(q, c, room);
#pragma omp for schedule(dynamic)
        for (int64_t o = 0; o < p.outer; o += kLanes<T>) {
            const int64_t count = min(kLanes<T>, p.outer - o);
            if constexpr (Max) to_pixels(x + o * in, in, count, in, from);
            to_pixels(g + o * out, out, count, out, up);
            for (int64_t k = 0; k < c.pieces; ++k) piece<T, Max>(q, c, from, up, to, room, k);
            to_planes(to, in, count, in, dx + o * in);
        }
    }
}

template <class S, bool Max> void layout(const Pool& p, const void* x, const void* g, void* dx, char* scratch) {
    const S *in = static_cast<const S*>(x), *up = static_cast<const S*>(g);
    if constexpr (sizeof(S) == sizeof(Wide<S>))
        if (as_pixels(p, kLanes<S>, sizeof(S), kNarrow))
            return backward_as_pixels<S, Max>(p, in, up, static_cast<S*>(dx), scratch);
    backward<S, Max>(p, in, up, static_cast<S*>(dx), scratch);
}

template <class S> void either(const Pool& p, const void* x, const void* g, void* dx, char* scratch) {
    if (p.join == Join::largest) layout<S, true>(p, x, g, dx, scratch);
    else layout<S, false>(p, x, g, dx, scratch);
}

template <class T> size_t scratch_of(const Pool& p) {
    if (as_pixels(p, kLanes<T>, sizeof(T), kNarrow)) return pixels_scratch<T>(p);
    Room<T> room;  // for bfloat16, too: what is read in it is smaller
    return room.layout(nullptr, p, cut_of(p));
}

}  // namespace

size_t pool_backward_scratch(const Pool& p) {
    return size_t(p.threads) * (p.type == Type::float64 ? scratch_of<double>(p) : scratch_of<float>(p));
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

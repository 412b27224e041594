// The stages of a pooling's gradient: the outputs' gradient divided, maxima found along x, y, z, and gathered along z, y, x.
//
//     gradient --divide--> up          input --x--> across, at_x --y--> down, at_y --z--> at_z
//     up --at_z--> slab --at_y--> row --at_x--> gradient with respect to the input
//
// A sum has the second line without what was found.
#pragma once
#include "pooling/backward_piece.hpp"

namespace NINEFOLD_NS {
namespace {

// A part of the work: positions that it owns along z and y.
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
};

// A vector of zeros behind the last of some rows: the last vector of a row is read to its end.
template <class T> NINEFOLD_INLINE void end(T* rows, int64_t elements) { store(rows + elements, Vec<T>{}); }

// The gradient of the outputs that matter here, divided as they were.
template <class S, bool Max>
inline void divide_gradient(Piece<S, Max>& q) {
    typedef Wide<S> T;
    const Pool& p = q.p;
    constexpr int L = kLanes<T>;
    end(q.room.up, (q.z.j1 - q.z.j0) * q.outs_y() * q.c.n);
    const PoolAxis &yy = p.axis[1], &x = p.axis[2];
    int64_t begin, behind;
    x.whole(begin, behind);
    for (int64_t oz = q.z.j0; oz < q.z.j1; ++oz)
        for (int64_t oy = q.y.j0; oy < q.y.j1; ++oy) {
            const S* from = q.grad + (oz * yy.n_out + oy) * x.n_out * p.inner;
            T* to = q.room.up + ((oz - q.z.j0) * q.outs_y() + oy - q.y.j0) * q.c.n;
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
                join_rows<Plus, Before::none, S>(&from, 1, q.c.n, to);
                continue;
            }
            divided(0, q.c.n, share);
        }
}

// The rows inside that one output reads.
template <class S, bool Max>
inline int64_t rows_read(Piece<S, Max>& q, const PoolAxis& a, int64_t j, int64_t q0, const Wide<S>* from, int64_t pitch) {
    typedef Wide<S> T;
    int64_t count = 0;
    for (int64_t m = 0; m < a.kernel; ++m) {
        const int64_t at = j * a.stride - a.lo + m * a.dilation;
        if (at < 0 || at >= a.n_in) continue;
        q.room.rows[count] = from + (at - q0) * pitch;
        q.room.taps[count++] = Word<T>(m);
    }
    return count;
}

template <bool Nan, class S, bool Max>
inline void find_or_nothing(Piece<S, Max>& q, int64_t count, Wide<S>* to, Word<Wide<S>>* at) {
    typedef Wide<S> T;
    if (count) return find<Nan, T>(q.room.rows, q.room.taps, count, q.c.n, nullptr, to, at);
    const int64_t whole = round_up(q.c.n, kLanes<T>);  // as `find` does
    fill<T>(to, whole, -T(__builtin_inf()));
    fill<Word<T>>(at, whole, Word<T>(-1));
}

// Stage some rows with nothing around them, then find the maxima along x.
template <bool Nan, class S, bool Max>
inline void find_x(Piece<S, Max>& q, int64_t iz, int64_t iy, int64_t count, Wide<S>* across) {
    typedef Wide<S> T;
    const Pool& p = q.p;
    const PoolAxis& x = p.axis[2];
    const int64_t in_row = x.n_in * p.inner, lo = x.lo * p.inner, width = q.c.staged - kSlack;
    for (int64_t i = 0; i < count; ++i) {
        T* to = q.room.staged + i * q.c.staged;
        const S* from = q.input(iz, iy + i);
        fill<T>(to, lo, -T(__builtin_inf()));
        join_rows<Plus, Before::none, S>(&from, 1, in_row, to + lo);
        fill<T>(to + lo + in_row, width - lo - in_row, -T(__builtin_inf()));
        if (x.stride == 1) continue;
        T* parts = q.room.parts + i * x.stride * q.c.parted;
        if (p.inner == 1) split(to, width, x.stride, q.c.parted, parts);
        else
            for (int64_t u = 0; u < width / p.inner; ++u)
                copy(parts + u % x.stride * q.c.parted + u / x.stride * p.inner, to + u * p.inner, p.inner);
    }
    for (int64_t i = 0; i < count; ++i) {
        const T* from = x.stride == 1 ? q.room.staged + i * q.c.staged : q.room.parts + i * x.stride * q.c.parted;
        for (int64_t m = 0; m < x.kernel; ++m) {
            const int64_t at = m * x.dilation;
            q.room.rows[m] = from + at % x.stride * q.c.parted + at / x.stride * p.inner;
            q.room.taps[m] = Word<T>(m);
        }
        const int64_t k = (iz - q.z.q0) * (q.y.q1 - q.y.q0) + iy + i - q.y.q0;
        find<Nan, T>(q.room.rows, q.room.taps, x.kernel, q.c.n, q.room.start, across + (iy + i - q.y.q0) * q.c.n,
                     q.room.at_x + k * q.c.pitch + q.c.before);
    }
}

// Find the maxima: along x for every row, then along y, then along z.
template <bool Nan, class S, bool Max>
inline void find_maxima(Piece<S, Max>& q) {
    typedef Wide<S> T;
    const Pool& p = q.p;
    const PoolAxis &zz = p.axis[0], &yy = p.axis[1];
    for (int64_t iz = q.z.q0; iz < q.z.q1; ++iz) {
        T* down = q.room.down + (iz - q.z.q0) * q.outs_y() * q.c.n;
        T* across = trivial(yy) ? down : q.room.across;
        for (int64_t iy = q.y.q0; iy < q.y.q1; iy += kBatch) find_x<Nan>(q, iz, iy, min(kBatch, q.y.q1 - iy), across);
        if (trivial(yy)) continue;
        for (int64_t oy = q.y.j0; oy < q.y.j1; ++oy) {
            const int64_t count = rows_read(q, yy, oy, q.y.q0, across, q.c.n), to = (iz - q.z.q0) * q.outs_y() + oy - q.y.j0;
            find_or_nothing<Nan>(q, count, q.room.down + to * q.c.n, q.room.at_y + to * q.c.n);
        }
    }
    for (int64_t oz = q.z.j0; oz < q.z.j1 && !trivial(zz); ++oz)
        for (int64_t oy = 0; oy < q.outs_y(); ++oy) {
            const int64_t count = rows_read(q, zz, oz, q.z.q0, q.room.down + oy * q.c.n, q.outs_y() * q.c.n);
            find_or_nothing<Nan>(q, count, q.room.across, q.room.at_z + ((oz - q.z.j0) * q.outs_y() + oy) * q.c.n);
        }
}

// The outputs that read one position, and with which tap.
template <class S, bool Max>
inline int64_t readers(Piece<S, Max>& q, const PoolAxis& a, int64_t i, const Part& part, const Wide<S>* from,
                       const Word<Wide<S>>* found, int64_t pitch) {
    typedef Wide<S> T;
    int64_t count = 0;
    for (int64_t m = a.kernel - 1; m >= 0; --m) {
        const int64_t at = i + a.lo - m * a.dilation;
        if (at < 0 || at % a.stride) continue;
        const int64_t j = at / a.stride - part.j0;
        if (j < 0 || j >= part.j1 - part.j0) continue;
        q.room.rows[count] = from + j * pitch;
        if constexpr (Max) q.room.found[count] = found + j * pitch;
        q.room.taps[count++] = Word<T>(m);
    }
    return count;
}

template <class S, bool Max>
inline void gather_x(Piece<S, Max>& q, const Wide<S>* row, const Word<Wide<S>>* found, S* out) {
    typedef Wide<S> T;
    const Pool& p = q.p;
    const PoolAxis& x = p.axis[2];
    const int64_t n = x.n_in * p.inner, shift = x.stride == 1 ? x.lo * p.inner : 0;
    const int64_t wide_n = x.stride == 1 ? n : ceil_div(x.lo + x.n_in, x.stride) * p.inner;
    T* straight = x.stride == 1 && sizeof(S) == sizeof(T) ? reinterpret_cast<T*>(out) : q.room.merged;
    for (int64_t r = 0; r < x.stride; ++r) {
        int64_t count = 0;
        for (int64_t m = x.kernel - 1; m >= 0; --m) {
            const int64_t at = m * x.dilation;
            if (at % x.stride != r) continue;
            q.room.rows[count] = row + q.c.before + shift - at / x.stride * p.inner;
            if constexpr (Max) q.room.found[count] = found + q.c.before + shift - at / x.stride * p.inner;
            q.room.taps[count++] = Word<T>(m);
        }
        gather<Max, T>(q.room.rows, q.room.found, q.room.taps, count, wide_n,
                       x.stride == 1 ? straight : q.room.parts + r * q.c.parted);
    }
    const T* from = straight;
    if (x.stride > 1) {
        from = q.room.merged + x.lo * p.inner;
        if (p.inner == 1) merge(q.room.parts, x.lo + x.n_in, x.stride, q.c.parted, q.room.merged);
        else
            for (int64_t u = x.lo; u < x.lo + x.n_in; ++u)
                copy(q.room.merged + u * p.inner, q.room.parts + u % x.stride * q.c.parted + u / x.stride * p.inner, p.inner);
    }
    if (from == reinterpret_cast<const T*>(out)) return;
    constexpr int L = kLanes<T>;
    int64_t v = 0;
    for (; v + L <= n; v += L) write(out + v, load(from + v));
    if (v < n) write_first(out + v, load(from + v), n - v);
}

// The gradient of one plane of the input.
template <class S, bool Max>
inline void gather_plane(Piece<S, Max>& q, int64_t iz) {
    typedef Wide<S> T;
    const Pool& p = q.p;
    const PoolAxis &zz = p.axis[0], &yy = p.axis[1];
    const T* slab = q.room.up;
    if (!trivial(zz)) {
        for (int64_t oy = 0; oy < q.outs_y(); ++oy) {
            const int64_t count =
                readers(q, zz, iz, q.z, q.room.up + oy * q.c.n, Max ? q.room.at_z + oy * q.c.n : nullptr, q.outs_y() * q.c.n);
            gather<Max, T>(q.room.rows, q.room.found, q.room.taps, count, q.c.n, q.room.slab + oy * q.c.n);
        }
        end(q.room.slab, q.outs_y() * q.c.n);
        slab = q.room.slab;
    }
    const int64_t plane = iz - q.z.q0;
    for (int64_t iy = q.y.p0; iy < q.y.p1; iy += kBatch) {
        const int64_t count = min(kBatch, q.y.p1 - iy);
        for (int64_t i = 0; i < count; ++i) {
            T* row = q.room.row + i * q.c.pitch;
            fill<T>(row, q.c.before, T(0));
            if (trivial(yy)) {
                const T* from = slab + (iy + i - q.y.j0) * q.c.n;
                join_rows<Plus, Before::none, T>(&from, 1, q.c.n, row + q.c.before);
            } else {
                const int64_t k =
                    readers(q, yy, iy + i, q.y, slab, Max ? q.room.at_y + plane * q.outs_y() * q.c.n : nullptr, q.c.n);
                gather<Max, T>(q.room.rows, q.room.found, q.room.taps, k, q.c.n, row + q.c.before);
            }
            fill<T>(row + q.c.before + q.c.n, q.c.pitch - q.c.before - q.c.n, T(0));
        }
        for (int64_t i = 0; i < count; ++i)
            gather_x(q, q.room.row + i * q.c.pitch,
                     Max ? q.room.at_x + (plane * (q.y.q1 - q.y.q0) + iy + i - q.y.q0) * q.c.pitch : nullptr,
                     q.result + (iz * yy.n_in + iy + i) * p.axis[2].n_in * p.inner);
    }
}

template <class S, bool Max>
NINEFOLD_INLINE void run(Piece<S, Max>& q) {
    const Pool& p = q.p;
    divide_gradient(q);
    if constexpr (Max) {
        bool nan = false;
        for (int64_t iz = q.z.q0; iz < q.z.q1; ++iz)
            nan |= any_nan(q.input(iz, q.y.q0), (q.y.q1 - q.y.q0) * p.axis[2].n_in * p.inner);
        nan ? find_maxima<true>(q) : find_maxima<false>(q);
    }
    for (int64_t iz = q.z.p0; iz < q.z.p1; ++iz) gather_plane(q, iz);
}

}  // namespace
}  // namespace NINEFOLD_NS

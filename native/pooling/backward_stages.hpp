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

// A part of the work: positions that it owns along z and y. Its stages are members: as functions on a reference they were up to
// a quarter slower with AVX-512.
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
        divide_gradient();
        if constexpr (Max) {
            bool nan = false;
            for (int64_t iz = z.q0; iz < z.q1; ++iz) nan |= any_nan(input(iz, y.q0), (y.q1 - y.q0) * p.axis[2].n_in * p.inner);
            nan ? find_maxima<true>() : find_maxima<false>();
        }
        for (int64_t iz = z.p0; iz < z.p1; ++iz) gather_plane(iz);
    }

    // A vector of zeros behind the last of some rows: the last vector of a row is read to its end.
    static void end(T* rows, int64_t elements) { store(rows + elements, Vec<T>{}); }

    // The gradient of the outputs that matter here, divided as they were.
    void divide_gradient() {
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
    template <bool Nan> void find_maxima() {
        const PoolAxis &zz = p.axis[0], &yy = p.axis[1];
        for (int64_t iz = z.q0; iz < z.q1; ++iz) {
            T* down = room.down + (iz - z.q0) * outs_y() * c.n;
            T* across = trivial(yy) ? down : room.across;
            for (int64_t iy = y.q0; iy < y.q1; iy += kBatch) find_x<Nan>(iz, iy, min(kBatch, y.q1 - iy), across);
            if (trivial(yy)) continue;
            for (int64_t oy = y.j0; oy < y.j1; ++oy) {
                const int64_t count = rows_read(yy, oy, y.q0, across, c.n), to = (iz - z.q0) * outs_y() + oy - y.j0;
                find_or_nothing<Nan>(count, room.down + to * c.n, room.at_y + to * c.n);
            }
        }
        for (int64_t oz = z.j0; oz < z.j1 && !trivial(zz); ++oz)
            for (int64_t oy = 0; oy < outs_y(); ++oy) {
                const int64_t count = rows_read(zz, oz, z.q0, room.down + oy * c.n, outs_y() * c.n);
                find_or_nothing<Nan>(count, room.across, room.at_z + ((oz - z.j0) * outs_y() + oy) * c.n);
            }
    }

    // The rows inside that one output reads.
    int64_t rows_read(const PoolAxis& a, int64_t j, int64_t q0, const T* from, int64_t pitch) {
        int64_t count = 0;
        for (int64_t m = 0; m < a.kernel; ++m) {
            const int64_t at = j * a.stride - a.lo + m * a.dilation;
            if (at < 0 || at >= a.n_in) continue;
            room.rows[count] = from + (at - q0) * pitch;
            room.taps[count++] = Word<T>(m);
        }
        return count;
    }

    template <bool Nan> void find_or_nothing(int64_t count, T* to, Word<T>* at) {
        if (count) return find<Nan, T>(room.rows, room.taps, count, c.n, nullptr, to, at);
        const int64_t whole = round_up(c.n, kLanes<T>);  // as `find` does
        fill<T>(to, whole, -T(__builtin_inf()));
        fill<Word<T>>(at, whole, Word<T>(-1));
    }

    // Stage some rows with nothing around them, then find the maxima along x.
    template <bool Nan> void find_x(int64_t iz, int64_t iy, int64_t count, T* across) {
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
    void gather_plane(int64_t iz) {
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
                gather_x(room.row + i * c.pitch, Max ? room.at_x + (plane * (y.q1 - y.q0) + iy + i - y.q0) * c.pitch : nullptr,
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

    void gather_x(const T* row, const Word<T>* found, S* out) {
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

}  // namespace
}  // namespace NINEFOLD_NS

// The stages of a forward pooling: rows joined along z, then y, then x, and the outputs stored.
//
//     planes --z--> joined rows --y--> staged rows --x--> row of outputs --divide, root--> output
//
// Each function makes its stage for the rows of one piece.
#pragma once
#include "pooling/forward_piece.hpp"
#include "pooling/fused_passes.hpp"

namespace NINEFOLD_NS {
namespace {

// --- along x, and the outputs ---

// Many taps are joined in two steps: groups of about their root, then the groups, and what is left.
template <class S>
int64_t group_size(Piece<S>& q) {
    const Pool& p = q.p;
    int64_t size = 1;
    while (size * size < p.axis[2].kernel) ++size;
    return size;
}

template <class Op, class S>
void join_groups(Piece<S>& q, const Wide<S>* row, int64_t n, Wide<S>* fewer) {
    typedef Wide<S> T;
    const Pool& p = q.p;
    const PoolAxis& x = p.axis[2];
    const int64_t size = group_size(q), step = x.dilation * p.inner;
    for (int64_t m = 0; m < size; ++m) q.room.taps[m] = row + m * step;
    join_rows<Op, Before::none, T>(q.room.taps, size, n + (x.kernel / size - 1) * size * step, fewer);
}

template <class Op, class S>
void join_shifted(Piece<S>& q, const Wide<S>* row, int64_t n, const Wide<S>* fewer, Wide<S>* to) {
    typedef Wide<S> T;
    const Pool& p = q.p;
    const PoolAxis& x = p.axis[2];
    const int64_t step = x.dilation * p.inner;
    int64_t taken = 0, done = 0;
    if (x.kernel >= kManyTaps)
        for (const int64_t size = group_size(q); done + size <= x.kernel; done += size)
            q.room.taps[taken++] = fewer + done * step;
    for (; done < x.kernel; ++done) q.room.taps[taken++] = row + done * step;
    join_rows<Op, Before::none, T>(q.room.taps, taken, n, to);
}

template <class S>
void split_by_residue(Piece<S>& q, const Wide<S>* row, Wide<S>* parts) {
    const Pool& p = q.p;
    const PoolAxis& x = p.axis[2];
    const int64_t n = span(x, q.i1 - q.i0);
    if (p.inner == 1) return split(row, n, x.stride, q.cut.pitch, parts);
    for (int64_t u = 0; u < n; ++u) copy(parts + u % x.stride * q.cut.pitch + u / x.stride * p.inner, row + u * p.inner, p.inner);
}

// Divide, take the root, write.
template <class S>
void finish(Piece<S>& q, const Wide<S>* row, int64_t n, int64_t oz, int64_t j, S* out) {
    typedef Wide<S> T;
    const Pool& p = q.p;
    constexpr int L = kLanes<T>;
    const T share = T(p.share(oz, j));
    const bool each = p.axis[2].counts, root = p.after == After::root;
    const bool all = each || share != T(1);
    const Vec<T> whole = broadcast<T>(share);
    int64_t v = 0;
    auto made = [&](int64_t at, Vec<T> y) {
        if (all) y = y / (each ? load(q.room.divide + at) * whole : whole);
        if (root) y = square_root<T>(y);
        return y;
    };
    for (; v + L <= n; v += L) write(out + v, made(v, load(row + v)));
    if (v < n) write_first(out + v, made(v, read_first(row + v, n - v)), n - v);
}

// Join staged rows along x and write the outputs.
template <class Op, class Rows, class S>
void join_x(Piece<S>& q, Rows row, int64_t oz, int64_t j, int64_t count) {
    typedef Wide<S> T;
    const Pool& p = q.p;
    const PoolAxis& x = p.axis[2];
    const int64_t n = (q.i1 - q.i0) * p.inner;
    const bool split_up = x.stride > 1 && p.inner < kLanes<T>, grouped = x.stride == 1 && x.kernel >= kManyTaps;
    for (int64_t i = 0; i < count && split_up; ++i) split_by_residue(q, row(i), q.room.parts + i * x.stride * q.cut.pitch);
    for (int64_t i = 0; i < count && grouped; ++i) join_groups<Op>(q, row(i), n, q.room.fewer + i * q.cut.row);
    for (int64_t i = 0; i < count; ++i) {
        S* out = q.output(oz, j + i);
        T* to = q.finishing() ? q.room.out : reinterpret_cast<T*>(out);
        if (trivial(x)) {
            to = const_cast<T*>(row(i));
        } else if (x.stride == 1) {
            join_shifted<Op>(q, row(i), n, q.room.fewer + i * q.cut.row, to);
        } else if (split_up) {
            for (int64_t m = 0; m < x.kernel; ++m) {
                const int64_t at = m * x.dilation;
                q.room.taps[m] = q.room.parts + (i * x.stride + at % x.stride) * q.cut.pitch + at / x.stride * p.inner;
            }
            join_rows<Op, Before::none, T>(q.room.taps, x.kernel, n, to);
        } else {
            join_pixels<Op, T>(row(i), x.stride * p.inner, x.dilation * p.inner, x.kernel, q.i1 - q.i0, p.inner, to);
        }
        if (q.finishing()) finish(q, to, n, oz, j + i, out);
    }
}

template <class S>
void expand_divisors(Piece<S>& q) {
    typedef Wide<S> T;
    const Pool& p = q.p;
    if (!p.axis[2].counts) return;
    fill<T>(q.room.divide, q.cut.out, T(1));
    int64_t begin, end;
    p.axis[2].whole(begin, end);
    const T whole = T(p.axis[2].kernel);
    for (int64_t i = 0; i < q.i1 - q.i0; ++i) {
        const int64_t j = q.i0 + i;
        fill<T>(q.room.divide + i * p.inner, p.inner, j >= begin && j < end ? whole : T(p.axis[2].divisor(j)));
    }
}

// --- along y ---

template <class From, class S>
const From** picks(Piece<S>& q) {
    if constexpr (sizeof(From) == sizeof(S)) return q.room.picked;
    else return q.room.taps;
}

template <class Op, Before B, class From, class S>
void join_y(Piece<S>& q, const From* const* taps, int64_t shared, Wide<S>* const* to) {
    const Pool& p = q.p;
    const PoolAxis& y = p.axis[1];
    if (shared == 8) return slide_rows<Op, B, 8, From>(taps, y.kernel, q.inside(), to);
    if (shared == 4) return slide_rows<Op, B, 4, From>(taps, y.kernel, q.inside(), to);
    if (shared == 2) return slide_rows<Op, B, 2, From>(taps, y.kernel, q.inside(), to);
    if (y.dilation == 1) return join_rows<Op, B, From>(taps, y.kernel, q.inside(), to[0]);
    const From** picked = picks<From>(q);
    for (int64_t m = 0; m < y.kernel; ++m) picked[m] = taps[m * y.dilation];
    join_rows<Op, B, From>(picked, y.kernel, q.inside(), to[0]);
}

template <class Op, class S>
void fused(Piece<S>& q, int64_t oz, const Wide<S>* const* rows) {
    typedef Wide<S> T;
    const Pool& p = q.p;
    const PoolAxis& y = p.axis[1];
    const int64_t n = q.i1 - q.i0, pad = q.first - q.left;
    const bool pairs = y.stride == 1 && y.dilation == 1 && y.kernel > 1;
    for (int64_t j = q.j0; j < q.j1;) {
        const T* const* taps = rows + (j - q.j0) * y.stride;
        const int64_t made = pairs && j + 1 < q.j1 ? 2 : 1;
        T* to[2];
        for (int64_t i = 0; i < made; ++i)
            to[i] = q.finishing() ? q.room.twice + i * q.cut.out : reinterpret_cast<T*>(q.output(oz, j + i));
        if (made == 2) {
            fused_rows<Op, 2, T>(p.axis[2], taps, y.kernel, q.inside(), pad, n, to);
        } else {
            for (int64_t m = 0; m < y.kernel; ++m) q.room.taps[m] = taps[m * y.dilation];
            fused_rows<Op, 1, T>(p.axis[2], q.room.taps, y.kernel, q.inside(), pad, n, to);
        }
        for (int64_t i = 0; i < made && q.finishing(); ++i) finish(q, to[i], n, oz, j + i, q.output(oz, j + i));
        j += made;
    }
}

// Join along y, several rows at once where they overlap, then along x. A batch of rows is staged before any is read again, as
// reads at other shifts than those just written wait until the writes have left the core.
template <class Op, Before B, class From, class S>
void band(Piece<S>& q, int64_t oz, const From* const* rows) {
    typedef Wide<S> T;
    const Pool& p = q.p;
    const PoolAxis &y = p.axis[1], &x = p.axis[2];
    if constexpr (sizeof(From) == 4 && B == Before::none && !Op::nan)  // of what is common only: it takes long to compile
        if (p.inner == 1 && q.inside() >= kLanes<T> && can_fuse(x)) return fused<Op>(q, oz, rows);
    const bool along_x = !trivial(x), ends = along_x || q.finishing();
    T* to[kMostShared];
    const int64_t pad = (q.first - q.left) * p.inner;  // less than a window, as windows start before the end of the input
    for (int64_t i = 0; i < q.cut.batch && along_x; ++i) {
        fill<T>(q.room.staged + i * q.cut.row, pad, nothing<Op, T>());
        fill<T>(q.room.staged + i * q.cut.row + pad + q.inside(), span(x, q.i1 - q.i0) * p.inner - pad - q.inside(),
                nothing<Op, T>());
    }
    for (int64_t j = q.j0; j < q.j1; j += q.cut.batch) {
        const int64_t count = min(q.cut.batch, q.j1 - j);
        const From* const* taps = rows + (j - q.j0) * y.stride;
        if constexpr (sizeof(From) == sizeof(T) && B == Before::none)
            if (y.kernel == 1 && along_x && q.inside() == span(x, q.i1 - q.i0) * p.inner) {
                join_x<Op>(q, [&](int64_t i) { return taps[i * y.stride]; }, oz, j, count);
                continue;
            }
        for (int64_t i = 0; i < count;) {
            int64_t shared = 1;
            if (y.stride == 1 && y.dilation == 1)
                while (2 * shared <= kMostShared && 2 * shared <= y.kernel && i + 2 * shared <= count) shared *= 2;
            for (int64_t k = 0; k < shared; ++k)
                to[k] = ends ? q.room.staged + (i + k) * q.cut.row + pad : reinterpret_cast<T*>(q.output(oz, j + i + k));
            join_y<Op, B, From>(q, taps + i * y.stride, shared, to);
            i += shared;
        }
        if (ends) join_x<Op>(q, [&](int64_t i) { return q.room.staged + i * q.cut.row; }, oz, j, count);
    }
}

// --- along z ---

// Whether a NaN stands where this plane of outputs reads; every element is looked at once, when it is first read.
template <class S>
bool has_nan(Piece<S>& q, int64_t oz) {
    const Pool& p = q.p;
    const PoolAxis &z = p.axis[0], &y = p.axis[1];
    const int64_t from = max(0, oz * z.stride - z.lo), to = min(z.n_in, oz * z.stride - z.lo + extent(z));
    const int64_t top = max(0, q.j0 * y.stride - y.lo), end = min(y.n_in, (q.j1 - 1) * y.stride - y.lo + extent(y));
    for (int64_t k = max(from, q.scanned); k < to; ++k) {
        bool any = false;
        if (q.inside() == p.axis[2].n_in * p.inner && top < end) any = any_nan(q.row(k, top), (end - top) * q.inside());
        else
            for (int64_t i = top; i < end; ++i) any |= any_nan(q.row(k, i), q.inside());
        if (any) q.last_nan = k;
    }
    q.scanned = max(q.scanned, to);
    return q.last_nan >= from;
}

template <class Op, Before B, class S>
void join_z(Piece<S>& q, int64_t oz) {
    typedef Wide<S> T;
    const Pool& p = q.p;
    const PoolAxis &z = p.axis[0], &y = p.axis[1];
    const int64_t height = span(y, q.j1 - q.j0), top = q.j0 * y.stride - y.lo;
    if (!q.cut.deep) {
        const int64_t at = oz * z.stride - z.lo;
        for (int64_t t = 0; t < height; ++t)
            q.room.rows[t] = at >= 0 && at < z.n_in && top + t >= 0 && top + t < y.n_in ? q.row(at, top + t) : q.room.none;
        band<Op, B, S>(q, oz, q.room.rows);
        return;
    }
    for (int64_t t = 0; t < height; ++t) {
        q.room.joined[t] = q.room.no_row;
        if (top + t < 0 || top + t >= y.n_in) continue;
        int64_t count = 0;
        for (int64_t m = 0; m < z.kernel; ++m) {
            const int64_t at = oz * z.stride - z.lo + m * z.dilation;
            if (at >= 0 && at < z.n_in) q.room.picked[count++] = q.row(at, top + t);
        }
        if (!count) continue;
        T* to = q.room.planes + t * q.cut.row;
        join_rows<Op, B, S>(q.room.picked, count, q.inside(), to);
        q.room.joined[t] = to;
    }
    band<Op, Before::none, T>(q, oz, q.room.joined);
}

template <class Op, Before B, class S>
void run(Piece<S>& q) {
    const Pool& p = q.p;
    for (int64_t oz = 0; oz < p.axis[0].n_out; ++oz) {
        if constexpr (Op::largest) {
            if (has_nan(q, oz)) {
                join_z<LargerOrNaN, B>(q, oz);
                continue;
            }
        }
        join_z<Op, B>(q, oz);
    }
}

}  // namespace
}  // namespace NINEFOLD_NS

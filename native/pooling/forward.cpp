// Poolings forward: the elements of a window are joined along z, then y, then x.
//
// Work is cut into bands of output rows, small enough that what they read stays in the second-level cache, and, where rows are
// long, into chunks of columns. Along z and y whole rows are joined, so that any stride and dilation is a list of rows; windows
// that overlap share partial results (`slide_rows`). The joined row lies in the first-level cache with the border around it; it
// is split by the residue of its positions modulo the stride, after which every tap along x is one more shifted row.
#include "pooling/pool.hpp"

#include "common/bump_allocator.hpp"
#include "common/simd.hpp"
#include "common/threads.hpp"
#include "pooling/fused_passes.hpp"
#include "pooling/planes.hpp"
#include "pooling/rows.hpp"

namespace NINEFOLD_NS {
namespace {

constexpr int64_t kLongRow = 2048;    // elements that are staged at once along x
constexpr int64_t kBand = 48 * 1024;  // elements that a band reads
constexpr int64_t kSlack = 64;        // elements behind a row of scratch
constexpr int64_t kStaged = 2048;     // elements of a batch of staged rows
constexpr int64_t kManyTaps = 8;      // taps along x from which they are joined in two steps

NINEFOLD_INLINE int64_t extent(const PoolAxis& a) { return (a.kernel - 1) * a.dilation + 1; }
NINEFOLD_INLINE int64_t span(const PoolAxis& a, int64_t outputs) { return (outputs - 1) * a.stride + extent(a); }
NINEFOLD_INLINE bool trivial(const PoolAxis& a) { return a.kernel == 1 && a.stride == 1 && a.lo == 0 && a.n_in == a.n_out; }

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

    // Whether a NaN stands where this plane of outputs reads; every element is looked at once, when it is first read.
    bool nan(int64_t oz) {
        const PoolAxis &z = p.axis[0], &y = p.axis[1];
        const int64_t from = max(0, oz * z.stride - z.lo), to = min(z.n_in, oz * z.stride - z.lo + extent(z));
        const int64_t top = max(0, j0 * y.stride - y.lo), end = min(y.n_in, (j1 - 1) * y.stride - y.lo + extent(y));
        for (int64_t k = max(from, scanned); k < to; ++k) {
            bool any = false;
            if (inside() == p.axis[2].n_in * p.inner && top < end) any = any_nan(row(k, top), (end - top) * inside());
            else
                for (int64_t i = top; i < end; ++i) any |= any_nan(row(k, i), inside());
            if (any) last_nan = k;
        }
        scanned = max(scanned, to);
        return last_nan >= from;
    }

    template <class Op, Before B> void run() {
        for (int64_t oz = 0; oz < p.axis[0].n_out; ++oz) {
            if constexpr (Op::largest) {
                if (nan(oz)) {
                    plane<LargerOrNaN, B>(oz);
                    continue;
                }
            }
            plane<Op, B>(oz);
        }
    }

    template <class Op, Before B> void plane(int64_t oz) {
        const PoolAxis &z = p.axis[0], &y = p.axis[1];
        const int64_t height = span(y, j1 - j0), top = j0 * y.stride - y.lo;
        if (!cut.deep) {
            const int64_t at = oz * z.stride - z.lo;
            for (int64_t t = 0; t < height; ++t)
                room.rows[t] = at >= 0 && at < z.n_in && top + t >= 0 && top + t < y.n_in ? row(at, top + t) : room.none;
            band<Op, B, S>(oz, room.rows);
            return;
        }
        for (int64_t t = 0; t < height; ++t) {
            room.joined[t] = room.no_row;
            if (top + t < 0 || top + t >= y.n_in) continue;
            int64_t count = 0;
            for (int64_t m = 0; m < z.kernel; ++m) {
                const int64_t at = oz * z.stride - z.lo + m * z.dilation;
                if (at >= 0 && at < z.n_in) room.picked[count++] = row(at, top + t);
            }
            if (!count) continue;
            T* to = room.planes + t * cut.row;
            join_rows<Op, B, S>(room.picked, count, inside(), to);
            room.joined[t] = to;
        }
        band<Op, Before::none, T>(oz, room.joined);
    }

    // Join along y, several rows at once where they overlap, then along x. A batch of rows is staged before any is read again, as
    // reads at other shifts than those just written wait until the writes have left the core.
    template <class Op, Before B, class From> void band(int64_t oz, const From* const* rows) {
        const PoolAxis &y = p.axis[1], &x = p.axis[2];
        if constexpr (sizeof(From) == 4 && B == Before::none && !Op::nan)  // of what is common only: it takes long to compile
            if (p.inner == 1 && inside() >= kLanes<T> && can_fuse(x)) return fused<Op>(oz, rows);
        const bool along_x = !trivial(x), ends = along_x || finishing();
        T* to[kMostShared];
        const int64_t pad = (first - left) * p.inner;  // less than a window, as windows start before the end of the input
        for (int64_t i = 0; i < cut.batch && along_x; ++i) {
            fill<T>(room.staged + i * cut.row, pad, nothing<Op, T>());
            fill<T>(room.staged + i * cut.row + pad + inside(), span(x, i1 - i0) * p.inner - pad - inside(), nothing<Op, T>());
        }
        for (int64_t j = j0; j < j1; j += cut.batch) {
            const int64_t count = min(cut.batch, j1 - j);
            const From* const* taps = rows + (j - j0) * y.stride;
            if constexpr (sizeof(From) == sizeof(T) && B == Before::none)
                if (y.kernel == 1 && along_x && inside() == span(x, i1 - i0) * p.inner) {
                    across<Op>([&](int64_t i) { return taps[i * y.stride]; }, oz, j, count);
                    continue;
                }
            for (int64_t i = 0; i < count;) {
                int64_t shared = 1;
                if (y.stride == 1 && y.dilation == 1)
                    while (2 * shared <= kMostShared && 2 * shared <= y.kernel && i + 2 * shared <= count) shared *= 2;
                for (int64_t k = 0; k < shared; ++k)
                    to[k] = ends ? room.staged + (i + k) * cut.row + pad : reinterpret_cast<T*>(output(oz, j + i + k));
                down<Op, B, From>(taps + i * y.stride, shared, to);
                i += shared;
            }
            if (ends) across<Op>([&](int64_t i) { return room.staged + i * cut.row; }, oz, j, count);
        }
    }

    template <class Op> void fused(int64_t oz, const T* const* rows) {
        const PoolAxis& y = p.axis[1];
        const int64_t n = i1 - i0, pad = first - left;
        const bool pairs = y.stride == 1 && y.dilation == 1 && y.kernel > 1;
        for (int64_t j = j0; j < j1;) {
            const T* const* taps = rows + (j - j0) * y.stride;
            const int64_t made = pairs && j + 1 < j1 ? 2 : 1;
            T* to[2];
            for (int64_t i = 0; i < made; ++i)
                to[i] = finishing() ? room.twice + i * cut.out : reinterpret_cast<T*>(output(oz, j + i));
            if (made == 2) {
                fused_rows<Op, 2, T>(p.axis[2], taps, y.kernel, inside(), pad, n, to);
            } else {
                for (int64_t m = 0; m < y.kernel; ++m) room.taps[m] = taps[m * y.dilation];
                fused_rows<Op, 1, T>(p.axis[2], room.taps, y.kernel, inside(), pad, n, to);
            }
            for (int64_t i = 0; i < made && finishing(); ++i) finish(to[i], n, oz, j + i, output(oz, j + i));
            j += made;
        }
    }

    template <class Op, Before B, class From> void down(const From* const* taps, int64_t shared, T* const* to) {
        const PoolAxis& y = p.axis[1];
        if (shared == 8) return slide_rows<Op, B, 8, From>(taps, y.kernel, inside(), to);
        if (shared == 4) return slide_rows<Op, B, 4, From>(taps, y.kernel, inside(), to);
        if (shared == 2) return slide_rows<Op, B, 2, From>(taps, y.kernel, inside(), to);
        if (y.dilation == 1) return join_rows<Op, B, From>(taps, y.kernel, inside(), to[0]);
        const From** picked = picks<From>();
        for (int64_t m = 0; m < y.kernel; ++m) picked[m] = taps[m * y.dilation];
        join_rows<Op, B, From>(picked, y.kernel, inside(), to[0]);
    }

    template <class From> const From** picks() {
        if constexpr (sizeof(From) == sizeof(S)) return room.picked;
        else return room.taps;
    }

    bool finishing() const { return sizeof(S) != sizeof(T) || p.after != After::none || p.divides(); }
    S* output(int64_t oz, int64_t j) const { return result + ((oz * p.axis[1].n_out + j) * p.axis[2].n_out + i0) * p.inner; }

    // Join staged rows along x and write the outputs.
    template <class Op, class Rows> void across(Rows row, int64_t oz, int64_t j, int64_t count) {
        const PoolAxis& x = p.axis[2];
        const int64_t n = (i1 - i0) * p.inner;
        const bool split_up = x.stride > 1 && p.inner < kLanes<T>, grouped = x.stride == 1 && x.kernel >= kManyTaps;
        for (int64_t i = 0; i < count && split_up; ++i) parted(row(i), room.parts + i * x.stride * cut.pitch);
        for (int64_t i = 0; i < count && grouped; ++i) groups<Op>(row(i), n, room.fewer + i * cut.row);
        for (int64_t i = 0; i < count; ++i) {
            S* out = output(oz, j + i);
            T* to = finishing() ? room.out : reinterpret_cast<T*>(out);
            if (trivial(x)) {
                to = const_cast<T*>(row(i));
            } else if (x.stride == 1) {
                shifted<Op>(row(i), n, room.fewer + i * cut.row, to);
            } else if (split_up) {
                for (int64_t m = 0; m < x.kernel; ++m) {
                    const int64_t at = m * x.dilation;
                    room.taps[m] = room.parts + (i * x.stride + at % x.stride) * cut.pitch + at / x.stride * p.inner;
                }
                join_rows<Op, Before::none, T>(room.taps, x.kernel, n, to);
            } else {
                join_pixels<Op, T>(row(i), x.stride * p.inner, x.dilation * p.inner, x.kernel, i1 - i0, p.inner, to);
            }
            if (finishing()) finish(to, n, oz, j + i, out);
        }
    }

    // Many taps are joined in two steps: groups of about their root, then the groups, and what is left.
    int64_t group() const {
        int64_t size = 1;
        while (size * size < p.axis[2].kernel) ++size;
        return size;
    }

    template <class Op> void groups(const T* row, int64_t n, T* fewer) {
        const PoolAxis& x = p.axis[2];
        const int64_t size = group(), step = x.dilation * p.inner;
        for (int64_t m = 0; m < size; ++m) room.taps[m] = row + m * step;
        join_rows<Op, Before::none, T>(room.taps, size, n + (x.kernel / size - 1) * size * step, fewer);
    }

    template <class Op> void shifted(const T* row, int64_t n, const T* fewer, T* to) {
        const PoolAxis& x = p.axis[2];
        const int64_t step = x.dilation * p.inner;
        int64_t taken = 0, done = 0;
        if (x.kernel >= kManyTaps)
            for (const int64_t size = group(); done + size <= x.kernel; done += size) room.taps[taken++] = fewer + done * step;
        for (; done < x.kernel; ++done) room.taps[taken++] = row + done * step;
        join_rows<Op, Before::none, T>(room.taps, taken, n, to);
    }

    void parted(const T* row, T* parts) {
        const PoolAxis& x = p.axis[2];
        const int64_t n = span(x, i1 - i0);
        if (p.inner == 1) return split(row, n, x.stride, cut.pitch, parts);
        for (int64_t u = 0; u < n; ++u)
            copy(parts + u % x.stride * cut.pitch + u / x.stride * p.inner, row + u * p.inner, p.inner);
    }

    // Divide, take the root, write.
    void finish(const T* row, int64_t n, int64_t oz, int64_t j, S* out) {
        constexpr int L = kLanes<T>;
        const T share = T(p.share(oz, j));
        const bool each = p.axis[2].counts, root = p.after == After::root;
        const bool all = each || share != T(1);
        const Vec<T> whole = broadcast<T>(share);
        int64_t v = 0;
        auto made = [&](int64_t at, Vec<T> y) {
            if (all) y = y / (each ? load(room.divide + at) * whole : whole);
            if (root) y = square_root<T>(y);
            return y;
        };
        for (; v + L <= n; v += L) write(out + v, made(v, load(row + v)));
        if (v < n) write_first(out + v, made(v, read_first(row + v, n - v)), n - v);
    }

    void expand_divisors() {
        if (!p.axis[2].counts) return;
        fill<T>(room.divide, cut.out, T(1));
        int64_t begin, end;
        p.axis[2].whole(begin, end);
        const T whole = T(p.axis[2].kernel);
        for (int64_t i = 0; i < i1 - i0; ++i) {
            const int64_t j = i0 + i;
            fill<T>(room.divide + i * p.inner, p.inner, j >= begin && j < end ? whole : T(p.axis[2].divisor(j)));
        }
    }
};

template <class S> void run(Piece<S>& piece) {
    piece.expand_divisors();
    const Before before = piece.p.before;
    if (piece.p.join == Join::largest) return piece.template run<Larger, Before::none>();
    switch (before) {
        case Before::none: return piece.template run<Plus, Before::none>();
        case Before::absolute: return piece.template run<Plus, Before::absolute>();
        case Before::square: return piece.template run<Plus, Before::square>();
    }
}

template <class S> void start(const Pool& p, const Cut& cut, Room<S>& room) {
    typedef Wide<S> T;
    const T none = p.join == Join::largest ? -T(__builtin_inf()) : T(0);
    fill<T>(room.no_row, cut.row, none);
    for (int64_t k = 0; k < cut.row; ++k) narrow(none, room.none + k);
}

int64_t positions_in(const Pool& p) { return p.axis[0].n_in * p.axis[1].n_in * p.axis[2].n_in; }
int64_t positions_out(const Pool& p) { return p.axis[0].n_out * p.axis[1].n_out * p.axis[2].n_out; }

template <class S> void pool(const Pool& p, const S* x, S* z, char* scratch) {
    const Cut cut = cut_of(p);
    Room<S> measured;
    const size_t each = measured.layout(nullptr, p, cut);
    const int64_t in = positions_in(p) * p.inner, out = positions_out(p) * p.inner;
    const int64_t pieces = p.outer * cut.bands * cut.chunks;
    const int64_t together = max(1, min(pieces / (8 * p.threads), 8192 * cut.bands * cut.chunks / (in + 1)));
#pragma omp parallel num_threads(int(p.threads)) if (p.threads > 1)
    {
        Room<S> room;
        room.layout(scratch + size_t(this_thread()) * each, p, cut);
        start(p, cut, room);
#pragma omp for schedule(dynamic)
        for (int64_t first = 0; first < pieces; first += together)
            for (int64_t k = first; k < min(first + together, pieces); ++k) {
                const int64_t o = k / (cut.bands * cut.chunks), rest = k % (cut.bands * cut.chunks);
                Piece<S> piece(p, cut, x + o * in, z + o * out, room, rest / cut.chunks, rest % cut.chunks);
                run(piece);
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
    take.allocate<T>(positions_in(p) * kLanes<T>), take.allocate<T>(positions_out(p) * kLanes<T>);
    return take.bytes() + room.layout(nullptr, q, cut_of(q));
}

template <class T> void pool_as_pixels(const Pool& p, const T* x, T* z, char* scratch) {
    const Pool q = pixels_of<T>(p);
    const Cut cut = cut_of(q);
    const size_t each = pixels_scratch<T>(p);
    const int64_t in = positions_in(p), out = positions_out(p);
#pragma omp parallel num_threads(int(p.threads)) if (p.threads > 1)
    {
        char* mine = scratch + size_t(this_thread()) * each;
        BumpAllocator take(mine);
        T *from = take.allocate<T>(in * kLanes<T>), *to = take.allocate<T>(out * kLanes<T>);
        Room<T> room;
        room.layout(mine + take.bytes(), q, cut);
        start(q, cut, room);
#pragma omp for schedule(dynamic)
        for (int64_t o = 0; o < p.outer; o += kLanes<T>) {
            const int64_t count = min(kLanes<T>, p.outer - o);
            to_pixels(x + o * in, in, count, in, from);
            for (int64_t k = 0; k < cut.bands * cut.chunks; ++k) {
                Piece<T> piece(q, cut, from, to, room, k / cut.chunks, k % cut.chunks);
                run(piece);
            }
            to_planes(to, out, count, out, z + o * out);
        }
    }
}

// Rows up to this long are better off as pixels.
int64_t widest(const Pool& p, int64_t lanes) { return p.type == Type::float32 && can_fuse(p.axis[2]) ? 2 * lanes : 128; }

template <class T> size_t scratch_of(const Pool& p) {
    if (as_pixels(p, kLanes<T>, sizeof(T), widest(p, kLanes<T>))) return pixels_scratch<T>(p);
    Room<T> room;  // for bfloat16, too: what is read in it is smaller
    return room.layout(nullptr, p, cut_of(p));
}

template <class T> void pool_either(const Pool& p, const void* x, void* z, char* scratch) {
    if (as_pixels(p, kLanes<T>, sizeof(T), widest(p, kLanes<T>)))
        return pool_as_pixels(p, static_cast<const T*>(x), static_cast<T*>(z), scratch);
    pool(p, static_cast<const T*>(x), static_cast<T*>(z), scratch);
}

}  // namespace

size_t pool_scratch(const Pool& p) {
    return size_t(p.threads) * (p.type == Type::float64 ? scratch_of<double>(p) : scratch_of<float>(p));
}

void pool_forward(const Pool& p, const void* x, void* z, char* scratch) {
    switch (p.type) {
        case Type::float32: return pool_either<float>(p, x, z, scratch);
        case Type::float64: return pool_either<double>(p, x, z, scratch);
        case Type::bfloat16: return pool(p, static_cast<const BFloat16*>(x), static_cast<BFloat16*>(z), scratch);
    }
}

}  // namespace NINEFOLD_NS

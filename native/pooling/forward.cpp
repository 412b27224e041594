// Forward pooling: the elements of a window are joined along z, then y, then x.
//
// Work is cut into bands of output rows whose input stays in the L2 cache. Long rows are cut into chunks of columns, too.
// Along z and y whole rows are joined: any stride and dilation is a list of rows. Windows that overlap share partial results
// (slide_rows). The joined row lies in the L1 cache with the border around it. It is split by the residue of its positions modulo
// the stride: every tap along x is then one more shifted row.
#include "pooling/pool.hpp"

#include "common/threads.hpp"
#include "pooling/forward_stages.hpp"
#include "pooling/planes.hpp"

namespace NINEFOLD_NS {
namespace {

template <class S> void run(Piece<S>& piece) {
    expand_divisors(piece);
    const Before before = piece.p.before;
    if (piece.p.join == Join::largest) return run<Larger, Before::none>(piece);
    switch (before) {
        case Before::none: return run<Plus, Before::none>(piece);
        case Before::absolute: return run<Plus, Before::absolute>(piece);
        case Before::square: return run<Plus, Before::square>(piece);
    }
}

template <class S> void start(const Pool& p, const Cut& cut, Room<S>& room) {
    typedef Wide<S> T;
    const T none = p.join == Join::largest ? -T(__builtin_inf()) : T(0);
    fill<T>(room.no_row, cut.row, none);
    for (int64_t k = 0; k < cut.row; ++k) narrow(none, room.none + k);
}

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

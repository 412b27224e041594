// Gradients of poolings.
//
// The gradient of a sum is spread over its window. That of a maximum goes to its first element in memory, or to the last NaN.
// The first element is found along x, then y, then z, each time as the first of the largest.
//
// Both are gathered: a row of the gradient is the sum of those rows of outputs that read it. For a maximum, only outputs whose
// tap was found count. So every element is written once, in a fixed order, by one thread. What was found is made anew from the
// input: nothing is kept from the forward pass. Work is cut along the slowest axis that has windows. What neighbouring pieces
// share is found twice.
#include "pooling/pool.hpp"

#include "common/threads.hpp"
#include "pooling/backward_stages.hpp"
#include "pooling/planes.hpp"

namespace NINEFOLD_NS {
namespace {

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

template <class S, bool Max>
void piece(const Pool& p, const Cut& c, const S* x, const S* g, S* dx, Room<S>& room, int64_t k) {
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

#include "common/arena.hpp"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

namespace ninefold {
namespace {

constexpr size_t kKept = size_t{16} << 20;  // more than this is returned after each call
constexpr size_t kAlign = 4096;
enum class Poison { none, nan, denormal };
std::atomic<Poison> poison{Poison::none};

char* allocate(size_t bytes) {
    size_t rounded = (bytes + kAlign - 1) / kAlign * kAlign;
    void* p = std::aligned_alloc(kAlign, rounded ? rounded : kAlign);
    if (p == nullptr) throw std::bad_alloc();
    return static_cast<char*>(p);
}

struct Kept {
    char* data = nullptr;
    size_t size = 0;
    bool busy = false;
    ~Kept() { std::free(data); }
};
thread_local Kept kept;

}  // namespace

void poison_scratch(bool on, bool denormal) { poison = !on ? Poison::none : denormal ? Poison::denormal : Poison::nan; }

Scratch::Scratch(size_t bytes) : data_(nullptr), kept_(false) {
    if (const Poison with = poison; with != Poison::none) {
        // not rounded up, so that AddressSanitizer sees the first byte too many
        void* p = nullptr;
        if (posix_memalign(&p, 64, bytes ? bytes : 64) != 0) throw std::bad_alloc();
        data_ = static_cast<char*>(p);
        std::memset(data_, 0xff, bytes);  // NaN in every floating-point type
        const uint16_t least = 1;         // over and over: denormal in every one, of 16, 32 and 64 bits
        if (with == Poison::denormal)
            for (size_t k = 0; k + sizeof least <= bytes; k += sizeof least) std::memcpy(data_ + k, &least, sizeof least);
        return;
    }
    if (bytes > kKept || kept.busy) {
        data_ = allocate(bytes);
        return;
    }
    if (kept.size < bytes) {
        std::free(kept.data);
        kept.data = nullptr;
        kept.size = 0;
        kept.data = allocate(bytes);
        kept.size = bytes;
    }
    kept.busy = kept_ = true;
    data_ = kept.data;
}

Scratch::~Scratch() {
    if (kept_) {
        kept.busy = false;
    } else {
        std::free(data_);
    }
}

}  // namespace ninefold

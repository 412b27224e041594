// Arrays out of one block of scratch, aligned; with a null block it only counts the bytes.
#pragma once
#include <cstddef>
#include <cstdint>

#include "common/simd.hpp"

namespace NINEFOLD_NS {

class BumpAllocator {
public:
    explicit BumpAllocator(char* at) : base_(at), used_(0) {}
    template <class T> T* allocate(int64_t count) {
        T* p = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
        used_ += (size_t(count) * sizeof(T) + 63) / 64 * 64;
        return p;
    }
    size_t bytes() const { return used_; }

private:
    char* base_;
    size_t used_;
};

}  // namespace NINEFOLD_NS

// Scratch memory of the calling thread: kept while it is small, so that a call costs no page faults.
#pragma once
#include <cstddef>

namespace ninefold {

// Aligned scratch for the duration of one call.
class Scratch {
public:
    explicit Scratch(size_t bytes);
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    char* data() const { return data_; }

private:
    char* data_;
    bool kept_;
};

// From now on every scratch is exactly as large as asked for, is not kept, and holds NaN, or numbers that are denormal in every
// type: for tests.
void poison_scratch(bool on, bool denormal);

}  // namespace ninefold

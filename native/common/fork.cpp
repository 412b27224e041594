#include "common/fork.hpp"

#if __has_include(<pthread.h>)
#include <pthread.h>
#endif

namespace ninefold {
namespace {

bool forked = false;

#if __has_include(<pthread.h>)
const int registered = pthread_atfork(nullptr, nullptr, [] { forked = true; });
#endif

}  // namespace

bool after_fork() { return forked; }

}  // namespace ninefold

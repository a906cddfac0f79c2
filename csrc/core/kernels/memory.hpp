// Part of kernels_body.hpp: memory asked for ahead, and stores past the caches.

// Asks for memory some batches ahead of `at`, where a batch takes `bytes`. Drawing takes so long that the processor does
// not run ahead by itself, and a store to a line that is not in the cache first waits for it: 10^6 labels of 8 bytes in
// arrays outside the cache took 0.97 ns each without, 0.55 with (copying them: 0.5); as many new labels of 8 bytes from
// single bytes 0.92 and 0.38. Addresses behind the array do no harm.
template <bool to_write>
inline void prefetch(const void* at, std::size_t bytes) {
    const auto from = reinterpret_cast<std::uintptr_t>(at) + kBatchesAhead * bytes;
    for (std::size_t line = 0; line < bytes; line += 64) {
        __builtin_prefetch(reinterpret_cast<const void*>(from + line), to_write);
    }
}

// Copies a batch past the caches. Lines that lie only partly within `to` are written through them, and asked for some
// batches ahead: waiting for two of 33 lines took longer than all else.
template <std::size_t bytes>
inline void stream_batch(const char* from, char* to) {
    __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(to) + kBatchesAhead * bytes), 1);
    const std::size_t head = (0 - reinterpret_cast<std::uintptr_t>(to)) % 64, lines = (bytes - head) / 64;
    std::memcpy(to, from, head);
    for (std::size_t at = head; at < head + lines * 64; at += sizeof(Wide)) stream(to + at, loaded<Wide>(from + at));
    std::memcpy(to + head + lines * 64, from + head + lines * 64, bytes - head - lines * 64);
}

//! Architectures as data, shared blocks, the decoder and its key-value cache.

//! Run plumbing.

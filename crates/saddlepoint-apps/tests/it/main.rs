//! Whole problems through the public interface.

mod sachs;
mod tables;

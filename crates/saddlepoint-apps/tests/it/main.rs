//! Whole problems through the public interface.

mod any_data;
mod sachs;
mod tables;

//! The library's tests, one binary.

mod config;

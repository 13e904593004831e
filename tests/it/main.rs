//! The one test binary of the library.

mod config;
mod embedded;
mod layers;
mod support;
mod testing;

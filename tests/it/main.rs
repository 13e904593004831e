//! The one test binary of the library.

mod embedded;
mod layers;
mod support;
mod testing;

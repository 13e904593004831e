//! The one test binary of the library.

mod embedded;
mod support;
mod testing;

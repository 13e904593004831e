//! Supabase Realtime: the wire format, which the hub shares, and a client.
//!
//! Nothing that comes over Realtime is a promise: the server delivers at most once, and changes that are
//! committed before it says `Subscribed to PostgreSQL` are not delivered at all. So it is a wake-up and no
//! more. Who uses it looks for itself after every [`Event::Joined`], every [`Event::Subscribed`], every
//! [`Event::Missed`], and from time to time regardless.

#[cfg(feature = "remote")]
mod client;
pub mod wire;

#[cfg(feature = "remote")]
pub use client::{Channel, Client, Content, Error, Event, Options, Retry, State, Status, UrlError};

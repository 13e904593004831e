//! Realtime's wire format, and the client against a scripted server.

mod client;
mod replay;
mod server;

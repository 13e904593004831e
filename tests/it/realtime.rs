//! Realtime's wire format, and the client against a scripted server.

mod client;
mod outside;
mod replay;
mod server;

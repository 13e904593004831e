//! Realtime's wire format, and the client against a scripted server.

mod replay;

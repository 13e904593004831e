//! Supabase Realtime: the wire format, which the hub shares, and a client.

pub mod wire;

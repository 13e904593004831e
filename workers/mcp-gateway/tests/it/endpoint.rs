//! `/mcp`, over real connections: from clients to tools and back.

mod clients;
mod http;
mod sessions;
mod tasks;
mod wire;
mod ws;

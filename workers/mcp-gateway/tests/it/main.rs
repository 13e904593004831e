//! The gateway against real MCP servers that nobody here wrote, and against a sick one.

mod api;
mod catalogue;
mod demo;
mod endpoint;
mod fallback;
mod handler;
mod live;
mod mesh;
mod platform;
mod policies;
mod real;
mod remote_env;
mod sick;
mod sick_http;
mod support;
mod tls;
mod toolsets;

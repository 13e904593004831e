//! What the hub knows of tool calls: four words. The library knows nothing of MCP; but which routes there are, and what
//! they are called, is the product's, and these count and list messages of this intent. What a call is, how it is made
//! and what its payload means is the gateway's alone (`workers/mcp-gateway`), whose tests hold these to its own.

/// The intent of messages that call a tool. The service of such a message is the toolset.
pub(crate) const INTENT: &str = "mcp.call";
/// What the types of their events begin with.
pub(crate) const EVENTS: &str = "mcp_call_";
/// Where their payload names the tool.
pub(crate) const TOOL: &str = "tool";
/// Where a worker names the toolsets that it offers, in what it says of itself.
pub(crate) const TOOLSETS: &str = "toolsets";

//! Calls over the bus, from the hub to a tool and back: a hub, machines that come and go, real servers.

mod calls;
mod figures;
mod http;
mod pins;
pub(crate) mod site;
mod tasks;

//! How many files a process may have open, connections among them, and what that leaves for a hub's clients.

use cogo::hub::{self, CONNECTIONS_MAX};

use crate::output::note;

/// What a hub has open beside its clients' connections: pools, files, tools' servers, sockets of `/mcp/ws`.
const OWN: usize = 1024;

/// Lets this process, and what it starts, have so many files open, as far as it may. Gives how many it may have; none where
/// there is no such limit.
pub(crate) fn raise(count: u64) -> Option<u64> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let now = getrlimit(Resource::Nofile);
        let current = now.current?;
        if current >= count {
            return Some(current);
        }
        let wanted = now.maximum.map_or(count, |maximum| maximum.min(count));
        match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: now.maximum }) {
            Ok(()) => Some(wanted),
            Err(error) => {
                tracing::warn!(%error, "Could not raise the limit of open files");
                Some(current)
            }
        }
    }
    #[cfg(not(unix))]
    {
        let _no_such_limit = count;
        None
    }
}

/// Has room for all the connections that `options` allow a hub. Where the process may not have as many open files, both those
/// over HTTP and the Realtime's sockets are fewer, so that who opens many does not leave the hub without a file for itself. Gives
/// how many connections over HTTP there may be.
pub(crate) fn make_room(options: &mut hub::Options) -> usize {
    let sockets = options.realtime.max_connections;
    let wanted = OWN + CONNECTIONS_MAX + sockets;
    let allowed =
        raise(wanted as u64).map_or(wanted, |allowed| usize::try_from(allowed).unwrap_or(wanted));
    if allowed >= wanted {
        return CONNECTIONS_MAX;
    }
    let (connections, sockets) = shares(allowed, sockets);
    options.realtime.max_connections = sockets;
    note(&format!(
        "This process may have {allowed} open files, and {wanted} are wanted: it holds at most {connections} connections and \
         {sockets} Realtime sockets. Raise the limit (`ulimit -Hn`, LimitNOFILE= of a service)."
    ));
    connections
}

/// What `allowed` files leave for connections, and for as many as `sockets` beside them.
fn shares(allowed: usize, sockets: usize) -> (usize, usize) {
    let left = allowed - OWN.min(allowed / 4);
    let connections = CONNECTIONS_MAX.min(left / 2).max(1);
    (connections, sockets.min(left - connections).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_out_is_never_more_than_there_is() {
        for allowed in [64, 1024, 4096, 10_000, 13_000] {
            for sockets in [1, 200, 10_000] {
                let (connections, given) = shares(allowed, sockets);
                assert!(
                    connections + given + OWN.min(allowed / 4) <= allowed,
                    "{allowed}, {sockets}"
                );
                assert!(connections > 0 && given > 0 && given <= sockets);
            }
        }
        assert_eq!(shares(1024, 10_000), (384, 384));
        assert_eq!(shares(10_000, 10_000), (2048, 6928));
    }
}

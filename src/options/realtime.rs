//! How the hub's Realtime is configured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::options::{InvalidOptions, within};

/// How the hub's Realtime is configured; the table in [`crate::hub`] has the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The most sockets at once, from 1 to 1000000. Each takes a file descriptor.
    pub max_connections: usize,
    /// The most sockets at once with one API key, from 1 to 1000000.
    pub max_connections_per_key: usize,
    /// The most channels that one socket may join, from 1 to 1000.
    pub max_channels: usize,
    /// Joins a second with one API key, from 1 to 100000; as many more at once.
    pub joins_per_second: u32,
    /// Broadcasts and presence calls a second of one socket, or of one API key over HTTP, from 1 to 100000; as
    /// many more at once.
    pub events_per_second: u32,
    /// The largest frame that a client may send, from 1024 to 16 MiB.
    pub max_frame_bytes: usize,
    /// The largest row that is told whole, from 1024 to 16 MiB; of a larger one only the short values are.
    pub max_record_bytes: usize,
    /// Frames that may wait for a slow socket before it is dropped, from 8 to 65536.
    pub queue_frames: usize,
    /// Bytes that may wait for a slow socket before it is dropped, from 4096 to 256 MiB.
    pub queue_bytes: usize,
    /// Bytes that may wait for all sockets together, from 1 MiB to 64 GiB; past it, those go that let more than
    /// their share wait.
    pub queue_bytes_all: usize,
    /// After how many seconds a silent socket is closed, from 5 to 3600.
    pub silence_s: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_connections_per_key: 2_000,
            // Supabase's own limits, from here on.
            max_channels: 100,
            joins_per_second: 500,
            events_per_second: 100,
            // What the hub takes as a request's body, too.
            max_frame_bytes: 1024 * 1024,
            max_record_bytes: 1024 * 1024,
            // Some seconds of a busy bus.
            queue_frames: 1024,
            queue_bytes: 4 * 1024 * 1024,
            queue_bytes_all: 256 * 1024 * 1024,
            silence_s: 60,
        }
    }
}

impl Options {
    /// Checks every field.
    pub(crate) fn validate(&self) -> Result<(), InvalidOptions> {
        const MIB: u64 = 1024 * 1024;
        let Self { max_connections, max_connections_per_key, max_channels, .. } = self;
        within("realtime.max_connections", *max_connections as u64, 1, 1_000_000)?;
        within("realtime.max_connections_per_key", *max_connections_per_key as u64, 1, 1_000_000)?;
        within("realtime.max_channels", *max_channels as u64, 1, 1000)?;
        within("realtime.joins_per_second", self.joins_per_second.into(), 1, 100_000)?;
        within("realtime.events_per_second", self.events_per_second.into(), 1, 100_000)?;
        within("realtime.max_frame_bytes", self.max_frame_bytes as u64, 1024, 16 * MIB)?;
        within("realtime.max_record_bytes", self.max_record_bytes as u64, 1024, 16 * MIB)?;
        within("realtime.queue_frames", self.queue_frames as u64, 8, 65_536)?;
        within("realtime.queue_bytes", self.queue_bytes as u64, 4096, 256 * MIB)?;
        within("realtime.queue_bytes_all", self.queue_bytes_all as u64, MIB, 65_536 * MIB)?;
        within("realtime.silence_s", self.silence_s.into(), 5, 3600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_a_broken_rule_names_its_field() {
        assert_eq!(Options::default().validate(), Ok(()));
        for field in ["max_connections", "max_channels", "queue_frames", "silence_s"] {
            let json = format!("{{\"{field}\":0}}");
            let options: Options = serde_json::from_str(&json).expect("well-formed options");
            let error = options.validate().expect_err(field).to_string();
            assert!(error.starts_with(&format!("realtime.{field}: must be from ")), "{error}");
        }
        assert!(serde_json::from_str::<Options>(r#"{"max_sockets":1}"#).is_err());
    }
}

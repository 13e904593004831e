//! The bus over HTTPS: `POST /rest/v1/rpc/bus_*` and `GET /rest/v1/<table>`, of a hub or of hosted Supabase.
//!
//! For machines with nothing but outbound HTTPS. Wake-ups come over a WebSocket (`wakeups.rs`); without it the
//! bus works as well, only slower.

mod artifacts;
mod batches;
mod error;
mod http;
mod key;
mod options;
mod rows;
mod tables;
mod transport;
mod wakeups;

use std::sync::Arc;

use futures_util::future::FutureExt as _;
use serde::Serialize;

pub use key::Key;
pub use options::Options;

use self::http::Http;
use self::key::Keyring;
use self::wakeups::Wakeups;
use crate::bus::error::Error;
use crate::bus::transport::Answer;
use crate::bus::wake::Wake;
use crate::error::Code;
use crate::identity::Claims;
use crate::shutdown::Tasks;

/// A server of `/rest/v1` and `/realtime/v1`.
#[derive(Debug)]
pub(crate) struct Rest {
    http: Arc<Http>,
    wakeups: Wakeups,
}

impl Rest {
    /// Looks at the options, and connects to nothing yet.
    pub(crate) fn new(options: Options, wake: &Wake) -> Result<Self, Error> {
        let url = options::parse(&options.url)?;
        let keys = Keyring::open(options.key, options.api_key)?;
        Tasks::new().spawn(keys.clone().follow(wake.closed()));
        let http = Arc::new(Http::new(url.clone(), keys.clone(), options.net.clone())?);
        let wakeups = Wakeups::new(&url, &keys, &options.net, http.doubt(), wake);
        Ok(Self { http, wakeups })
    }

    /// What the key says of itself.
    pub(crate) fn claims(&self) -> Option<Claims> {
        self.http.keys().claims()
    }

    /// `call` with `arguments`, and its answer as `read` takes it.
    fn rpc<'a, A: Serialize, T: Send + 'a>(
        &'a self,
        call: &'static str,
        arguments: A,
        read: fn(&'static str, &[u8]) -> Result<T, Error>,
    ) -> Answer<'a, T> {
        let arguments = serde_json::to_string(&arguments).map_err(|error| Error::Refused {
            code: Code::InvalidArgument,
            message: format!("{call}: {error}"),
        });
        async move { read(call, &self.http.rpc(call, arguments?).await?) }.boxed()
    }
}

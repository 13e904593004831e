//! Artifacts at a hub: `PUT` and `GET /mcp/artifacts/<tenant>/<sha256>`, with the key of the bus.

use futures_util::future::{BoxFuture, FutureExt as _};
use reqwest::header::{CONTENT_TYPE, HeaderValue};

use crate::artifact::{Artifact, Digest, Error, OCTETS, Remote};
use crate::bus;
use crate::bus::rest::http::Http;
use crate::error::Code;

const PUT: &str = "put an artifact";
const GET: &str = "get an artifact";

impl Remote for Http {
    fn put<'a>(
        &'a self,
        tenant: &'a str,
        sha256: Digest,
        bytes: Vec<u8>,
        mime: &'a str,
    ) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            let mime =
                HeaderValue::from_str(mime).unwrap_or_else(|_| HeaderValue::from_static(OCTETS));
            let digest = sha256.to_string();
            let path = ["mcp", "artifacts", tenant, &digest];
            self.put_bytes(PUT, &path, mime, bytes).await.map_err(|error| told(&error))
        }
        .boxed()
    }

    fn get<'a>(
        &'a self,
        tenant: &'a str,
        sha256: Digest,
    ) -> BoxFuture<'a, Result<Artifact, Error>> {
        async move {
            let digest = sha256.to_string();
            let path = ["mcp", "artifacts", tenant, &digest];
            let (headers, bytes) = match self.get_bytes(GET, &path).await {
                Err(error) if error.code() == Code::NotFound => {
                    return Err(Error::Missing { tenant: tenant.to_owned(), sha256 });
                }
                answer => answer.map_err(|error| told(&error))?,
            };
            let mime = headers.get(CONTENT_TYPE).and_then(|mime| mime.to_str().ok());
            Ok(Artifact { mime: mime.unwrap_or(OCTETS).to_owned(), bytes })
        }
        .boxed()
    }
}

fn told(error: &bus::Error) -> Error {
    Error::Hub { code: error.code(), message: error.to_string() }
}

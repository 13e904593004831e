//! What stands before the routes.

mod audit;
mod cors;
mod guesses;
mod headers;
mod leaks;
mod policies;
mod rates;
mod session;
mod slow;

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::request::Builder;

use crate::hub::{Answer, TestHub, request};

/// A request that comes from an address.
fn from(address: &str, method: &str, path: &str) -> Result<Builder> {
    let address: IpAddr = address.parse()?;
    Ok(request(method, path).extension(ConnectInfo(SocketAddr::new(address, 4711))))
}

impl TestHub {
    async fn bare(&self, request: Builder) -> Result<Answer> {
        self.send(request.body(Body::empty())?).await
    }
}

/// A path that a route's pattern matches.
fn path_of(pattern: &str) -> String {
    let part = |part: &str| if part.starts_with('{') { "x".to_owned() } else { part.to_owned() };
    pattern.split('/').map(part).collect::<Vec<_>>().join("/")
}

//! Wake-ups over Realtime.

use reqwest::Url;

use crate::bus::rest::key::Keyring;
use crate::bus::transport::{Pace, Want};
use crate::bus::wake::Wake;
use crate::net;

#[derive(Debug)]
pub(super) struct Wakeups {}

impl Wakeups {
    pub(super) fn new(_url: &Url, _keys: &Keyring, _net: &net::Options, _wake: &Wake) -> Self {
        Self {}
    }
    pub(super) fn pace(&self) -> Pace {
        Pace::far(false, false)
    }
    pub(super) fn want(&self, _want: Want) {}
}

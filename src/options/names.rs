//! Names of machines and of pages, as the configuration may have them.

use std::net::{IpAddr, Ipv6Addr};

use http::Uri;

/// An address as a host's name may be one, in brackets or not.
pub(crate) fn address(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match bare {
        Some(bare) => bare.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse().ok(),
    }
    .map(|ip| ip.to_canonical())
}

/// Whether `name` can stand in `allowed_hosts`.
pub(super) fn is_name(name: &str) -> bool {
    let host = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.';
    address(name).is_some()
        || (1..=253).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(host)
}

/// Whether `text` can stand in `allowed_origins`: as a browser would send it, or `*`.
pub(crate) fn is_origin(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return false };
    matches!(scheme, "http" | "https")
        && !authority.as_str().contains('@')
        && text.eq_ignore_ascii_case(&format!("{scheme}://{authority}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_browser_would_send_can_be_allowed() {
        for good in ["*", "https://a.example", "http://localhost:3000", "http://[::1]:3000"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "",
            "a.example",
            "https://a.example/",
            "https://a.example/x",
            "ftp://a",
            "https://u@a",
            "https://*.a b",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}

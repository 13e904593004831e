//! Where messages wait.

use std::fmt;
use std::str::FromStr;

use crate::message::name::{InvalidName, check_name};

/// Where a message waits: the worker role that handles it, and the service within that role
/// (for the MCP gateway the toolset). Written `role/service`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic {
    role: String,
    service: String,
}

impl Topic {
    /// The topic of a service within a worker role.
    ///
    /// # Errors
    /// When either does not fit [`NAME_RULE`](super::NAME_RULE).
    pub fn new(role: impl Into<String>, service: impl Into<String>) -> Result<Self, InvalidName> {
        let (role, service) = (role.into(), service.into());
        check_name("role", &role)?;
        check_name("service", &service)?;
        Ok(Self { role, service })
    }

    /// The worker role.
    #[must_use]
    pub fn role(&self) -> &str {
        &self.role
    }

    /// The service within the role.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.role, self.service)
    }
}

impl FromStr for Topic {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (role, service) = text.split_once('/').ok_or_else(|| InvalidName {
            field: "topic",
            value: text.to_owned(),
            rule: "of the form role/service",
        })?;
        Self::new(role, service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_read_as_it_is_written() {
        let topic: Topic = "mcp-gateway/demo".parse().expect("a good topic");
        assert_eq!((topic.role(), topic.service()), ("mcp-gateway", "demo"));
        assert_eq!(topic.to_string(), "mcp-gateway/demo");
        assert!("demo".parse::<Topic>().is_err());
        assert!("a/b/c".parse::<Topic>().is_err());
    }
}

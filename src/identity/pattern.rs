//! Which topics a token is for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::message::{InvalidName, Topic, valid_name};

/// The rule that patterns follow, in words.
pub const PATTERN_RULE: &str = "`role/service`, `role/*` or `*`";

/// One topic, all topics of a worker role, or all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    /// `*`
    All,
    /// `role/*`
    Role(String),
    /// `role/service`
    Topic(Topic),
}

impl Pattern {
    /// Whether it covers a topic.
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        match self {
            Self::All => true,
            Self::Role(role) => role == topic.role(),
            Self::Topic(one) => one == topic,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Role(role) => write!(f, "{role}/*"),
            Self::Topic(topic) => topic.fmt(f),
        }
    }
}

impl FromStr for Pattern {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "*" {
            return Ok(Self::All);
        }
        let found = match text.split_once('/') {
            Some((role, "*")) if valid_name(role) => Some(Self::Role(role.to_owned())),
            Some((role, service)) => Topic::new(role, service).ok().map(Self::Topic),
            None => None,
        };
        found.ok_or_else(|| InvalidName {
            field: "topic",
            value: text.to_owned(),
            rule: PATTERN_RULE,
        })
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_its_topics_and_no_other() {
        let topics =
            ["a/x", "a/y", "ab/x", "A/x"].map(|text| text.parse::<Topic>().expect("a topic"));
        for (pattern, covered) in [
            ("*", [true, true, true, true]),
            ("a/*", [true, true, false, false]),
            ("a/x", [true, false, false, false]),
            ("ab/*", [false, false, true, false]),
            ("a/z", [false; 4]),
        ] {
            let pattern: Pattern = pattern.parse().expect("a pattern");
            assert_eq!(topics.each_ref().map(|topic| pattern.matches(topic)), covered, "{pattern}");
            let json = serde_json::to_string(&pattern).expect("JSON");
            assert_eq!(serde_json::from_str::<Pattern>(&json).expect("a pattern"), pattern);
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_the_rule() {
        let long = format!("{}/*", "a".repeat(65));
        for bad in [
            "", "a", "/", "a/", "/x", "*/x", "*/*", "**", "a/**", "a/x*", "a/*/b", "a /x", "a/x\n",
            " *", "-a/x", "a/x/y", "ä/x", &long,
        ] {
            let refused = bad.parse::<Pattern>().expect_err(bad);
            assert_eq!((refused.rule, refused.value.as_str()), (PATTERN_RULE, bad));
            assert!(serde_json::from_value::<Pattern>(bad.into()).is_err(), "{bad}");
        }
    }
}

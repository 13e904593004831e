//! Joining a channel.

use std::sync::{Arc, PoisonError};

use crate::hub::realtime::Inner;
use crate::hub::realtime::binding::{self, BINDINGS_MAX, SOCKET_BYTES_MAX};
use crate::hub::realtime::channel::{Channel, New, REF_MAX, TOPIC_MAX};
use crate::hub::realtime::connection::Connection;
use crate::hub::realtime::handshake::word;
use crate::hub::realtime::policy::{self, Action};
use crate::hub::realtime::presence::KEY_MAX;
use crate::hub::realtime::scope::{self, RESERVED};
use crate::hub::realtime::subscribe;
use crate::hub::realtime::topics::{Member, Name};
use crate::identity::{self, Verified};
use crate::realtime::wire::{self, Join, JoinReply, Reply, System, TOPIC_PREFIX, event};
use crate::secret::Secret;

/// Why a join is refused: a word for the metric, and what the client is told.
pub(crate) struct Refused(pub(crate) &'static str, pub(crate) String);

/// A token, read: the connection's own where none is given, or one that is no token.
pub(crate) fn read_token(
    connection: &Connection,
    given: Option<&Secret>,
) -> Result<(Secret, Arc<Verified>), identity::Error> {
    match given.filter(|token| !token.is_empty() && !token.expose().starts_with("sb_")) {
        None => {
            connection.verified.claims.check_time(crate::clock::utc_now())?;
            Ok((connection.token.clone(), Arc::clone(&connection.verified)))
        }
        Some(token) if *token == connection.token => {
            connection.verified.claims.check_time(crate::clock::utc_now())?;
            Ok((token.clone(), Arc::clone(&connection.verified)))
        }
        Some(token) => Ok((token.clone(), Arc::new(connection.inner.keys.verify(token.expose())?))),
    }
}

/// What Realtime says of a token that is not good.
pub(crate) fn said_of_token(error: &identity::Error) -> String {
    match error {
        identity::Error::Expired { seconds } => {
            format!("InvalidJWTToken: Token has expired {seconds} seconds ago")
        }
        identity::Error::BadSignature => format!("JwtSignatureError: {error}"),
        identity::Error::MissingClaim(_) | identity::Error::BadClaim { .. } => {
            format!("InvalidJWTToken: {error}")
        }
        _ => format!("MalformedJWT: {error}"),
    }
}

/// What is said where a policy does not let somebody in.
pub(crate) fn unauthorized(topic: &str) -> String {
    format!("Unauthorized: You do not have permissions to read from this Channel topic: {topic}")
}

/// Joins a channel, and answers.
pub(crate) async fn join(connection: &mut Connection, frame: &wire::Frame) -> Result<(), Refused> {
    let inner = Arc::clone(&connection.inner);
    let topic = frame.topic.strip_prefix(TOPIC_PREFIX).unwrap_or_default();
    let (join, complaints) = match frame.json() {
        Ok(payload) => Join::read(payload),
        Err(_) => (Join::default(), vec!["the payload must be JSON".to_owned()]),
    };
    if !complaints.is_empty() {
        tracing::debug!("A join is taken with defaults: {}", complaints.join("; "));
    }
    if [&frame.join_ref, &frame.reference].into_iter().flatten().any(|text| text.len() > REF_MAX) {
        let text = format!("InvalidRequest: ref and join_ref have at most {REF_MAX} bytes");
        return Err(Refused("ref", text));
    }
    let (token, verified, name) = admit(connection, topic, &join).await?;
    let replicates = join.config.broadcast.replication_ready;
    let channel = Channel::new(
        &inner,
        New {
            line: Arc::clone(&connection.line),
            join_ref: frame.join_ref.clone().or_else(|| frame.reference.clone()),
            topic: frame.topic.clone(),
            name,
            token,
            verified,
            config: join.config,
        },
    );
    enter(&inner, &channel);
    let ids = channel.bindings.iter().map(|binding| (binding, binding::id(binding)));
    let reply = Reply::ok_with(&JoinReply::granting(ids)).unwrap_or_else(|_| Reply::ok());
    channel.push(frame.reference.as_deref(), event::REPLY, &reply);
    if channel.presence {
        inner.topics.watch_presence(&channel.name, channel.id);
    }
    let channel = connection.channels.entry(frame.topic.clone()).insert_entry(channel).into_mut();
    if replicates {
        // There is nothing to wait for: broadcasts come from this hub.
        let said = System {
            message: "Replication connection established".to_owned(),
            status: "ok".to_owned(),
            extension: "system".to_owned(),
            channel: channel.name.topic.to_string(),
        };
        channel.push(None, event::SYSTEM, &said);
    }
    subscribe::begin(&inner, channel);
    Ok(())
}

/// Makes a channel hear what is said in its topic.
pub(crate) fn enter(inner: &Inner, channel: &Channel) {
    let line = Arc::clone(&channel.line);
    let member = Member { channel: channel.id, line, presence: channel.presence };
    inner.topics.join(&channel.name, member);
}

async fn admit(
    connection: &Connection,
    topic: &str,
    join: &Join,
) -> Result<(Secret, Arc<Verified>, Name), Refused> {
    let inner = &connection.inner;
    if topic.is_empty() || topic.len() > TOPIC_MAX {
        let text = format!("TopicNameRequired: a topic has 1 to {TOPIC_MAX} bytes");
        return Err(Refused("topic", text));
    }
    if connection.channels.len() >= inner.options.max_channels {
        return Err(Refused("channels", "ChannelRateLimitReached: Too many channels".to_owned()));
    }
    {
        let mut rates = connection.place.rates.lock().unwrap_or_else(PoisonError::into_inner);
        if !rates.joins.take(1) {
            let text = "ClientJoinRateLimitReached: Too many joins per second";
            return Err(Refused("rate", text.to_owned()));
        }
    }
    let config = &join.config;
    if config.postgres_changes.len() > BINDINGS_MAX {
        let text = format!("InvalidRequest: at most {BINDINGS_MAX} subscriptions to changes");
        return Err(Refused("bindings", text));
    }
    let kept: usize = connection.channels.values().map(|channel| channel.weight).sum();
    if kept + binding::weight(&config.postgres_changes) > SOCKET_BYTES_MAX {
        let text = format!(
            "InvalidRequest: the subscriptions of one connection have at most {SOCKET_BYTES_MAX} bytes"
        );
        return Err(Refused("bindings", text));
    }
    if config.presence.key.len() > KEY_MAX {
        let text = format!("InvalidRequest: a presence key has at most {KEY_MAX} bytes");
        return Err(Refused("presence", text));
    }
    let (token, verified) = read_token(connection, join.access_token.as_ref())
        .map_err(|error| Refused(word(&error), said_of_token(&error)))?;
    let private = config.private;
    if topic.starts_with(RESERVED) && !private {
        let text = "PrivateOnly: channels that begin with `cogo:` are private";
        return Err(Refused("private_only", text.to_owned()));
    }
    if private {
        match policy::allows(inner, &verified, topic, Action::Join).await {
            Ok(true) => {}
            Ok(false) => return Err(Refused("policy", unauthorized(topic))),
            Err(error) => {
                tracing::warn!("Could not ask about a private channel: {error}");
                let text = "UnableToConnectToProject: the database does not answer; try again";
                return Err(Refused("database", text.to_owned()));
            }
        }
    }
    let space = scope::space(&verified.claims, private, topic);
    Ok((token, verified, Name { space, private, topic: topic.into() }))
}

//! What all transports share: which calls are on the wire, and how a frame becomes a message.
//!
//! rmcp keeps neither whether a request was written nor the reply as it came: it drops members that
//! it does not know. Both matter here (DESIGN, invariant 10; the tool's result, and what it says of itself, go on
//! unchanged), so a [`Probe`] travels with each call, each request for the list of tools and each ping, in the
//! request's extensions, which are never serialized.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use rmcp::model::{
    ClientJsonRpcMessage, ClientRequest, CustomResult, ErrorCode, ErrorData, JsonRpcMessage,
    RequestId, ServerJsonRpcMessage, ServerNotification, ServerResult,
};
use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// What is known of one request, from the side of the transport.
#[derive(Debug, Default)]
pub(super) struct Probe {
    way: AtomicU8,
    raw: Mutex<Option<Value>>,
    fault: OnceLock<String>,
}

/// Where a request is: it waits to be written, it may have reached the server, or it must not be written.
const WAITING: u8 = 0;
const SENT: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Probe {
    /// Whether the request may be written now; from then on it may have reached the server.
    fn begin(&self) -> bool {
        let before = self.way.compare_exchange(WAITING, SENT, Ordering::AcqRel, Ordering::Acquire);
        before != Err(WITHDRAWN)
    }

    /// Says that the request surely did not arrive.
    pub(super) fn arrived_not(&self) {
        self.way.store(WAITING, Ordering::Release);
    }

    /// Takes the request back, and says whether that came in time. One that waits in a queue must not be
    /// written after its caller was told that it was not sent, and perhaps sent it again.
    pub(super) fn withdraw(&self) -> bool {
        let before =
            self.way.compare_exchange(WAITING, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire);
        before != Err(SENT)
    }

    /// What the server did that the protocol does not allow, if it did.
    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.get().map(String::as_str)
    }

    pub(super) fn set_fault(&self, fault: String) {
        let _already_at_fault = self.fault.set(fault);
    }

    /// The reply's `result` as it came, if the transport could not pass it on.
    pub(super) fn take_raw(&self) -> Option<Value> {
        lock(&self.raw).take()
    }

    pub(super) fn set_raw(&self, result: Value) {
        *lock(&self.raw) = Some(result);
    }
}

/// The probe that travels with `message`, if it is a tool call, asks for the list of tools or is a ping. Of the
/// handshake nothing has one.
pub(super) fn probe_of(message: &ClientJsonRpcMessage) -> Option<(i64, Arc<Probe>)> {
    let JsonRpcMessage::Request(request) = message else { return None };
    let extensions = match &request.request {
        ClientRequest::CallToolRequest(call) => &call.extensions,
        ClientRequest::ListToolsRequest(list) => &list.extensions,
        ClientRequest::PingRequest(ping) => &ping.extensions,
        ClientRequest::DiscoverRequest(ping) => &ping.extensions,
        _ => return None,
    };
    let RequestId::Number(id) = request.id else { return None };
    extensions.get::<Arc<Probe>>().map(|probe| (id, Arc::clone(probe)))
}

/// One connection, as its transport sees it. Shared by the transport and the connection's owner.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// Calls that were written and not answered, by JSON-RPC id. An entry whose call was given up
    /// goes when its late reply comes, or when the map is next swept.
    pending: Mutex<HashMap<i64, Weak<Probe>>>,
    /// How many progress reports came.
    reports: AtomicU64,
    ended: OnceLock<String>,
    closed: CancellationToken,
    retired: CancellationToken,
}

/// How many calls may be given up before the map of pending ones is swept.
const SWEEP_AT: usize = 4096;

impl Wire {
    /// Notes a message that may be a progress report. One that rmcp cannot read is none: it is never passed on, and
    /// each later reply would wait for it.
    pub(super) fn note_report(&self, message: &Value) {
        if message.get("method").and_then(Value::as_str) == Some("notifications/progress")
            && let Ok(JsonRpcMessage::Notification(report)) =
                ServerJsonRpcMessage::deserialize(message)
            && matches!(report.notification, ServerNotification::ProgressNotification(_))
        {
            self.reports.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// How many progress reports have come.
    pub(super) fn reports(&self) -> u64 {
        self.reports.load(Ordering::Acquire)
    }

    /// Cancelled once nothing more will come.
    pub(super) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Says that nothing more will come, and why. The first reason stays.
    pub(super) fn end(&self, reason: impl Into<String>) {
        let _ended_before = self.ended.set(reason.into());
        self.retired.cancel();
        self.closed.cancel();
    }

    /// Cancelled once a new connection should take over; what is in flight here may still end.
    pub(super) fn retired(&self) -> &CancellationToken {
        &self.retired
    }

    /// Says that a new connection should take over, and why.
    pub(super) fn retire(&self, reason: impl Into<String>) {
        let _ended_before = self.ended.set(reason.into());
        self.retired.cancel();
    }

    /// Why nothing more will come.
    pub(super) fn reason(&self) -> &str {
        self.ended.get().map_or("the connection was closed", String::as_str)
    }

    /// Notes that `message` is about to be written; false when it must not be, since nobody wants it any more.
    pub(super) fn sending(&self, message: &ClientJsonRpcMessage) -> bool {
        probe_of(message).is_none_or(|(id, probe)| self.note(id, &probe))
    }

    /// Notes that the call `id` is about to be written; false when it must not be.
    pub(super) fn note(&self, id: i64, probe: &Arc<Probe>) -> bool {
        if !probe.begin() {
            return false;
        }
        let mut pending = lock(&self.pending);
        if pending.len() >= SWEEP_AT {
            pending.retain(|_, probe| probe.strong_count() > 0);
        }
        pending.insert(id, Arc::downgrade(probe));
        true
    }

    /// The server sent more than is accepted. The frame was not read, so its id is unknown; but when
    /// one call alone is in flight, it is that call's reply. The connection ends in any case.
    pub(super) fn oversized(&self, limit: usize) {
        let fault = format!("the server sent more than max_frame_bytes ({limit}) in one message");
        let pending: Vec<_> = lock(&self.pending).values().filter_map(Weak::upgrade).collect();
        if let [only] = pending.as_slice() {
            only.set_fault(fault.clone());
        }
        self.end(fault);
    }

    /// The messages in one frame: one, none if it cannot be read, several if it is a batch
    /// (MCP 2025-03-26 allowed those). A reply that cannot be read becomes an error reply.
    pub(super) fn read(&self, frame: &[u8]) -> Vec<ServerJsonRpcMessage> {
        let read = serde_json::from_slice(frame).or_else(|error| match mended(frame) {
            Some(whole) => serde_json::from_slice(&whole),
            None => Err(error),
        });
        match read {
            Ok(Value::Array(batch)) => batch.into_iter().filter_map(|m| self.message(m)).collect(),
            Ok(message) => self.message(message).into_iter().collect(),
            Err(error) => {
                if let Some(id) = answered(frame)
                    && let Some(probe) = self.settled(id)
                {
                    return vec![unreadable(id, &probe, &error)];
                }
                // Not the text: it may hold anything.
                tracing::warn!(bytes = frame.len(), %error, "Skipped a frame that is no JSON");
                Vec::new()
            }
        }
    }

    /// The probe of the request `id`, which waits for no other answer from now on.
    fn settled(&self, id: i64) -> Option<Arc<Probe>> {
        lock(&self.pending).remove(&id).and_then(|weak| weak.upgrade())
    }

    fn message(&self, message: Value) -> Option<ServerJsonRpcMessage> {
        let answers = message.get("method").is_none();
        if !answers {
            self.note_report(&message);
        }
        match message.get("id").and_then(number).filter(|_| answers) {
            Some(id) => match self.settled(id) {
                Some(probe) => Some(reply(id, &probe, message)),
                None => typed(message), // of the handshake; or late, or a second one
            },
            None => typed(message),
        }
    }
}

/// The reply to a request with a probe. What does not fit the protocol becomes an error reply, so that the
/// call ends now and not by its timeout.
fn reply(id: i64, probe: &Probe, mut message: Value) -> ServerJsonRpcMessage {
    let error = match (message.get_mut("result").map(Value::take), message.get_mut("error")) {
        (Some(result @ Value::Object(_)), None) => {
            let result = ServerResult::CustomResult(CustomResult::new(result));
            return JsonRpcMessage::response(result, RequestId::Number(id));
        }
        (None, Some(error)) => serde_json::from_value(error.take())
            .map_err(|_| "the reply's error is none of JSON-RPC 2.0 (section 5.1)"),
        (Some(_), None) => Err("the reply's result is no object"),
        (Some(_), Some(_)) => Err("the reply has both a result and an error"),
        (None, None) => Err("the reply has neither a result nor an error"),
    };
    match error {
        Ok(error) => JsonRpcMessage::error(error, Some(RequestId::Number(id))),
        Err(fault) => at_fault(id, probe, fault.to_owned()),
    }
}

/// The reply to a request with a probe that is no JSON, or none that can be read.
pub(super) fn unreadable(
    id: i64,
    probe: &Probe,
    error: &serde_json::Error,
) -> ServerJsonRpcMessage {
    at_fault(id, probe, format!("the reply is no JSON that can be read: {error}"))
}

fn at_fault(id: i64, probe: &Probe, fault: String) -> ServerJsonRpcMessage {
    probe.set_fault(fault.clone());
    let error = ErrorData::new(ErrorCode::INVALID_REQUEST, fault, None);
    JsonRpcMessage::error(error, Some(RequestId::Number(id)))
}

/// `frame` with U+FFFD for each half of a surrogate pair that stands alone as an escape, if one does. JavaScript writes
/// these where it cut a text within a character; they stand for nothing (RFC 8259, section 8.2).
pub(super) fn mended(frame: &[u8]) -> Option<Vec<u8>> {
    let mut whole = frame.to_vec();
    let (mut at, mut alone) = (0, false);
    while let Some(rest) = whole.get(at..).filter(|rest| !rest.is_empty()) {
        at += match (escape(rest), rest.get(6..).and_then(escape)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                whole[at + 2..at + 6].copy_from_slice(b"fffd");
                alone = true;
                6
            }
            (Some(_), _) => 6,
            // What is escaped is skipped with its backslash, which may be one itself.
            (None, _) => 1 + usize::from(rest[0] == b'\\'),
        };
    }
    alone.then_some(whole)
}

/// The UTF-16 code unit whose escape `text` begins with.
fn escape(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The id of the request that `frame` answers, though it is no JSON that can be read. Only its shape is looked at: a
/// whole object with an id and an outcome. One with a `method` has an id of the server's own.
pub(super) fn answered(frame: &[u8]) -> Option<i64> {
    if !frame.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    let (mut at, mut depth, mut id, mut outcome) = (0, 0_usize, None, false);
    while let Some(byte) = frame.get(at) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b'"' => {
                let text = &frame[at + 1..];
                let text = &text[..closing_quote(text)?];
                at += text.len() + 1;
                let after = frame[at + 1..].trim_ascii_start().strip_prefix(b":");
                if let (1, Some(value)) = (depth, after) {
                    match text {
                        b"method" => return None,
                        b"id" => id = number_at(value.trim_ascii_start()),
                        b"result" | b"error" => outcome = true,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        at += 1;
    }
    id.filter(|_| outcome && depth == 0)
}

/// Where the string ends whose text `text` begins with.
fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|byte| {
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    })
}

/// The number, or the number in a string, that `value` begins with.
fn number_at(value: &[u8]) -> Option<i64> {
    let value = value.strip_prefix(b"\"").unwrap_or(value);
    let end = value.iter().position(|byte| b"\",} \t\r\n".contains(byte))?;
    std::str::from_utf8(&value[..end]).ok()?.parse().ok()
}

fn typed(message: Value) -> Option<ServerJsonRpcMessage> {
    match serde_json::from_value(message) {
        Ok(message) => Some(message),
        Err(error) => {
            tracing::warn!(%error, "Skipped a message that is none of JSON-RPC 2.0");
            None
        }
    }
}

/// A JSON-RPC id of ours: a number, which some servers give back as a string.
pub(super) fn number(id: &Value) -> Option<i64> {
    id.as_i64().or_else(|| id.as_str()?.parse().ok())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner) // nothing in here panics half-way
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_either_withdrawn_or_written_and_never_both() {
        let (wire, written) = (Wire::default(), Arc::new(Probe::default()));
        assert!(wire.note(1, &written) && !written.withdraw());
        let withdrawn = Arc::new(Probe::default());
        assert!(withdrawn.withdraw() && !wire.note(2, &withdrawn));
        assert!(withdrawn.withdraw(), "and stays so");
        // What the server refused to read was not written after all.
        written.arrived_not();
        assert!(written.withdraw() && !wire.note(1, &written));
        // However the two meet.
        for _ in 0..1000 {
            let probe = Arc::new(Probe::default());
            let (writer, wire) = (Arc::clone(&probe), Arc::new(Wire::default()));
            let writing = std::thread::spawn(move || wire.note(1, &writer));
            let taken_back = probe.withdraw();
            assert_ne!(writing.join().expect("no panics"), taken_back);
        }
    }

    #[test]
    fn half_a_character_is_mended_and_a_whole_one_left() {
        let mend = |text: &str| {
            mended(text.as_bytes()).map(|text| String::from_utf8(text).expect("ASCII"))
        };
        assert_eq!(mend(r#""\ud83d""#).as_deref(), Some(r#""\ufffd""#));
        assert_eq!(
            mend(r#""\ude00\ud83d\ude00\uD83Dx""#).as_deref(),
            Some(r#""\ufffd\ud83d\ude00\ufffdx""#)
        );
        for whole in [r#""\ud83d\ude00""#, r#""\\ud83d""#, r#""\u00fc\"""#, r#""\u12"#, "\\", ""] {
            assert_eq!(mend(whole), None, "{whole}");
        }
    }

    #[test]
    fn an_unreadable_reply_is_known_by_its_id_alone() {
        for (frame, id) in [
            (r#"{"jsonrpc":"2.0","id":7,"result":{"x":NaN}}"#, Some(7)),
            (r#" {"result": {"id": 8, "x": 1e400}, "id" : "7" }"#, Some(7)),
            (r#"{"a":"\"id\":8,{","error":{"x":Infinity},"id":7}"#, Some(7)),
            (r#"{"id":7,"method":"sampling/createMessage","params":{"result":NaN}}"#, None),
            (r#"{"id":7,"level":NaN}"#, None),
            (r#"{"result":{"id":7,"x":NaN}}"#, None),
            (r#"{"id":7,"result":{"x":"#, None),
            (r#"{"id":"7a","result":NaN}"#, None),
            (r#"[{"id":7,"result":NaN}]"#, None),
            (r#"{"id":7,"result":}]"#, None),
            ("{\"half\":", None),
            ("nonsense", None),
        ] {
            assert_eq!(answered(frame.as_bytes()), id, "{frame}");
        }
    }

    #[test]
    fn only_progress_that_can_be_passed_on_is_waited_for() {
        let wire = Wire::default();
        for params in [
            r#"{"progressToken":1,"progress":"50%"}"#,
            r#"{"progressToken":1}"#,
            r#"{"progress":1}"#,
            r#"{"progressToken":1,"progress":1,"total":"all"}"#,
        ] {
            let report = format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{params}}}"#
            );
            wire.read(report.as_bytes());
            assert_eq!(wire.reports(), 0, "{params}");
        }
        let report = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":0.5}}"#;
        assert_eq!((wire.read(report.as_bytes()).len(), wire.reports()), (1, 1));
    }
}

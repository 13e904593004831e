use serde_json::json;

use super::*;

fn text(vsn: Vsn, sent: &str) -> Result<Frame, Error> {
    Frame::decode_text(vsn, sent)
}

#[test]
fn a_frame_that_cannot_be_read_says_what_is_wrong_and_quotes_nothing() {
    for (vsn, sent, said) in [
        (Vsn::V1, "", "not JSON"),
        (Vsn::V1, "{\"topic\":\"secret\"", "not JSON"),
        (Vsn::V1, "[]", "version 1.0.0 is an object"),
        (Vsn::V1, "\"secret\"", "version 1.0.0 is an object"),
        (Vsn::V1, r#"{"event":"secret"}"#, "`topic` must be a string"),
        (Vsn::V1, r#"{"topic":"secret","event":["secret"]}"#, "`event` must be a string"),
        (Vsn::V1, r#"{"topic":"a","event":"b","ref":{"secret":1}}"#, "`ref` must be"),
        (Vsn::V1, r#"{"topic":"a","event":"b","join_ref":true}"#, "`join_ref` must be"),
        (Vsn::V1, r#"{"topic":"a","topic":"b","event":"c"}"#, "version 1.0.0 is an object"),
        (Vsn::V2, "secret", "not JSON"),
        (Vsn::V2, "{}", "version 2.0.0 is an array"),
        (Vsn::V2, r#"[null,null,"secret","e"]"#, "version 2.0.0 is an array"),
        (Vsn::V2, r#"[null,null,"secret","e",{},1]"#, "version 2.0.0 is an array"),
        (Vsn::V2, r#"[null,null,null,"secret",{}]"#, "`topic` must be a string"),
        (Vsn::V2, r#"[null,null,"\ud800","secret",{}]"#, "`topic` must be a string"),
    ] {
        let error = text(vsn, sent).expect_err(sent).to_string();
        assert!(error.contains(said), "{sent}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn a_payload_of_another_shape_is_refused_by_the_name_of_its_field() {
    let of = |payload: serde_json::Value| {
        Frame::new("realtime:t", event::POSTGRES_CHANGES, &payload).expect("a frame")
    };
    for (payload, path) in [
        (json!({"ids": ["secret"], "data": {}}), "ids[0]"),
        (json!({"ids": [1], "data": {"schema": "public"}}), "data"),
        (json!("secret"), "."),
    ] {
        let error = of(payload).read::<Change<ChangeData>>().expect_err("refused");
        assert_eq!(error, Error::Payload { path: path.to_owned() });
    }
    assert!(of(json!({"ids": [1], "data": {"any": 1}})).read::<Change>().is_ok());
}

#[test]
fn references_may_be_absent_null_text_or_numbers() {
    let frame = text(Vsn::V1, r#"{"topic":"phoenix","event":"heartbeat"}"#).expect("a frame");
    assert_eq!((frame.join_ref.as_deref(), frame.reference.as_deref()), (None, None));
    assert_eq!(frame.json().expect("JSON").get(), "null");
    let frame = text(Vsn::V2, r#"[7,"8","phoenix","heartbeat",{}]"#).expect("a frame");
    assert_eq!((frame.join_ref.as_deref(), frame.reference.as_deref()), (Some("7"), Some("8")));
}

#[test]
fn an_answer_repeats_the_references_and_a_heartbeat_without_one_gets_null() {
    let frame = text(Vsn::V1, r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":null}"#);
    let reply = frame.expect("a frame").reply(&Reply::ok()).expect("a reply");
    let sent = reply.encode(Vsn::V1, Side::Server).expect("text");
    let whole = r#"{"topic":"phoenix","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":null}"#;
    assert_eq!(sent, Encoded::Text(whole.to_owned()));
}

fn broadcast(name: &str, encoding: Encoding, payload: &[u8]) -> Frame {
    Frame {
        join_ref: Some("1".to_owned()),
        reference: Some("2".to_owned()),
        topic: "realtime:t".to_owned(),
        event: event::BROADCAST.to_owned(),
        payload: Payload::UserBroadcast(UserBroadcast {
            event: name.to_owned(),
            metadata: String::new(),
            encoding,
            payload: payload.to_vec(),
        }),
    }
}

#[test]
fn names_over_255_bytes_are_refused_by_name() {
    let fits = broadcast(&"é".repeat(127), Encoding::Json, b"{}");
    assert!(fits.encode(Vsn::V2, Side::Client).is_ok());
    let long = broadcast(&"é".repeat(128), Encoding::Json, b"{}");
    let refused = long.encode(Vsn::V2, Side::Client);
    assert_eq!(refused, Err(Error::TooLong { field: "user_event", length: 256 }));
    let mut long = broadcast("e", Encoding::Json, b"{}");
    long.topic = "t".repeat(256);
    let refused = long.encode(Vsn::V2, Side::Server);
    assert_eq!(refused, Err(Error::TooLong { field: "topic", length: 256 }));
    assert!(long.encode(Vsn::V1, Side::Server).is_ok(), "text has no such limit");
}

#[test]
fn a_broadcast_that_only_says_to_be_json_is_refused_for_version_1() {
    for payload in [&b"{"[..], b"\xff", b""] {
        let frame = broadcast("e", Encoding::Json, payload);
        let refused = frame.encode(Vsn::V1, Side::Server);
        assert!(matches!(refused, Err(Error::Field { field: "payload", .. })), "{refused:?}");
    }
    let bytes = broadcast("e", Encoding::Binary, b"{}");
    assert_eq!(bytes.encode(Vsn::V1, Side::Server), Err(Error::BytesInText));
}

#[test]
fn a_text_broadcast_of_version_1_is_one_of_version_2() {
    let sent = r#"{"topic":"realtime:t","event":"broadcast","payload":{"type":"broadcast","event":"x","payload":{"n":1.50}},"ref":null}"#;
    let frame = text(Vsn::V1, sent).expect("a frame");
    let whole = r#"[null,null,"realtime:t","broadcast",{"type":"broadcast","event":"x","payload":{"n":1.50}}]"#;
    assert_eq!(frame.encode(Vsn::V2, Side::Server), Ok(Encoded::Text(whole.to_owned())));
}

#[test]
fn binary_frames_of_every_kind_come_out_as_they_went_in() {
    let frames: &[(Side, &[u8])] = &[
        (Side::Client, b"\x00\x01\x01\x02\x0112tte\xff"),
        (Side::Server, b"\x00\x01\x02\x011tte\xff"),
        (Side::Server, b"\x01\x01\x01\x02\x0212ttok\xff"),
        (Side::Server, b"\x02\x02\x01tte\xff"),
        (Side::Client, b"\x03\x01\x01\x02\x01\x02\x0112tte{}\xff"),
        (Side::Server, b"\x04\x02\x01\x02\x00tte{}\xff"),
    ];
    for (from, bytes) in frames {
        let frame = Frame::decode_binary(*from, bytes).expect("a frame");
        let again = frame.encode(Vsn::V2, *from);
        assert_eq!(again, Ok(Encoded::Binary(bytes.to_vec())), "{frame:?}");
        // Wherever it is cut, it is said to be cut; a payload may have any length.
        for length in 0..bytes.len() - 1 {
            let cut = Frame::decode_binary(*from, &bytes[..length]).expect_err("cut");
            assert!(matches!(cut, Error::Truncated { .. } | Error::Empty), "{cut:?}");
        }
    }
    for (from, bytes) in
        [(Side::Server, &[3, 0, 0][..]), (Side::Client, &[4, 0]), (Side::Client, &[5])]
    {
        let kind = Frame::decode_binary(from, bytes).expect_err("not its kind");
        assert!(matches!(kind, Error::Kind { .. }), "{kind:?}");
    }
    let odd = Frame::decode_binary(Side::Server, b"\x04\x00\x00\x00\x02");
    assert!(matches!(odd, Err(Error::Field { field: "encoding", .. })));
    let not_text = Frame::decode_binary(Side::Server, b"\x04\x01\x00\x00\x00\xff");
    assert!(matches!(not_text, Err(Error::NotUtf8 { field: "topic" })));
}

#[test]
fn no_bytes_make_the_codec_panic() {
    use rand::{RngExt, SeedableRng};
    let mut rng = rand::rngs::StdRng::seed_from_u64(0x5EED);
    let whole = r#"{"topic":"realtime:é","event":"phx_join","payload":{"config":{"broadcast":{"ack":"true"}}},"ref":"1","join_ref":null}"#;
    let array = r#"["1","2","realtime:é","presence_diff",{"joins":{"a":{"metas":[{}]}}}]"#;
    let try_all = |bytes: &[u8]| {
        for side in [Side::Client, Side::Server] {
            if let Ok(frame) = Frame::decode_binary(side, bytes) {
                for (vsn, to) in [(Vsn::V1, Side::Server), (Vsn::V2, side)] {
                    let _ = frame.encode(vsn, to);
                }
            }
        }
        let sent = String::from_utf8_lossy(bytes);
        for vsn in [Vsn::V1, Vsn::V2] {
            if let Ok(frame) = text(vsn, &sent) {
                let _ = frame.json().map(Join::read);
                let _ = (frame.read::<Reply>(), frame.read::<PresenceDiff>());
                assert!(frame.encode(vsn, Side::Client).is_ok());
            }
        }
    };
    for base in [whole, array] {
        for length in 0..=base.len() {
            try_all(&base.as_bytes()[..length]);
        }
    }
    for round in 0..20_000_usize {
        let mut bytes: Vec<u8> = match round % 3 {
            0 => whole.into(),
            1 => array.into(),
            _ => (0..rng.random_range(0..64)).map(|_| rng.random()).collect(),
        };
        if let Some(kind) = bytes.first_mut().filter(|_| round % 3 == 2) {
            *kind %= 6;
        }
        for _ in 0..rng.random_range(0..4) {
            if !bytes.is_empty() {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
        }
        try_all(&bytes);
    }
    let deep = format!("[null,null,\"t\",\"e\",{}", "[".repeat(100_000));
    assert!(text(Vsn::V2, &deep).is_err());
    let deep = format!("[null,null,\"t\",\"e\",{}{}]", "[".repeat(9_999), "]".repeat(9_999));
    let _ = text(Vsn::V2, &deep).map(|frame| frame.read::<Reply>().is_err());
}

#[test]
fn a_join_is_read_as_realtime_reads_it() {
    let read = |payload: serde_json::Value| Join::read(&to_raw_value(&payload).expect("JSON"));
    let (join, complaints) = read(json!({"config": {
        "broadcast": {"ack": "true", "self": "FALSE"},
        "presence": {"key": "worker-1"},
        "postgres_changes": [null, {"event": "insert", "table": "agent_messages"}],
    }}));
    assert_eq!(complaints, Vec::<String>::new());
    assert!(join.config.broadcast.ack && !join.config.broadcast.own && !join.config.private);
    let presence = JoinPresence { key: "worker-1".to_owned(), enabled: true };
    assert_eq!(join.config.presence, presence);
    let [binding] = &join.config.postgres_changes[..] else { panic!("{join:?}") };
    assert_eq!((binding.kind(), binding.schema.as_str()), (Some(ChangeKind::Insert), "public"));

    for empty in [
        json!({}),
        json!(null),
        json!({"config": null}),
        json!({"config": {
            "postgres_changes": null, "broadcast": null, "presence": null, "private": null,
        }}),
    ] {
        let (join, complaints) = read(empty);
        assert_eq!((join, complaints), (Join::default(), Vec::new()));
    }

    let (join, complaints) = read(json!({"access_token": 1, "config": {
        "broadcast": {"ack": "perhaps", "replay": {"since": "secret"}}, "presence": [],
        "private": 1, "postgres_changes": ["secret", {"event": 1, "select": "secret"}],
    }}));
    let config = &join.config;
    assert!(!config.private && !config.broadcast.ack && config.broadcast.replay.is_none());
    assert_eq!(config.postgres_changes.len(), 1);
    assert_eq!(config.postgres_changes[0].kind(), None);
    for field in ["access_token", "ack", "replay.since", "presence", "private", "event", "select"] {
        assert!(complaints.iter().any(|complaint| complaint.contains(field)), "{complaints:?}");
    }
    assert!(!complaints.concat().contains("secret"), "{complaints:?}");
    for payload in
        [json!([]), json!("x"), json!({"config": 1}), json!({"config": {"postgres_changes": 1}})]
    {
        assert_eq!(read(payload).1.len(), 1);
    }
}

#[test]
fn a_binding_that_we_made_is_granted_as_it_was_sent() {
    let binding = Binding::new(ChangeKind::All, "bus_events").filtered("role=eq.planner");
    let sent = json!({"event": "*", "schema": "public", "table": "bus_events", "filter": "role=eq.planner", "id": 9});
    assert_eq!(binding.granted(9), sent);
    let reply = JoinReply::granting([(&binding, 9)]);
    assert_eq!(serde_json::to_value(reply).expect("JSON"), json!({"postgres_changes": [sent]}));
}

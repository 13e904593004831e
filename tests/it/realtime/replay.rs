//! Every frame that the real clients sent or accepted goes through the codec and comes out as it was.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use cogo::realtime::wire::{self, Encoded, Frame, Payload, Side, Vsn, event};
use serde_json::Value;

struct Recorded {
    file: String,
    vsn: Vsn,
    from: Side,
    frame: Encoded,
}

fn recordings() -> Result<Vec<Recorded>> {
    let mut found = Vec::new();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/supabase-wire");
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_none_or(|end| end != "json") {
            continue;
        }
        let file = path.file_name().context("a name")?.to_string_lossy().into_owned();
        let recording: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        let mut vsn = Vsn::default();
        for step in recording["ws"].as_array().context("no ws")? {
            let from = match step["dir"].as_str() {
                Some("open") => {
                    let query = step["query"].as_array().context("no query")?;
                    let named = query.iter().find(|pair| pair[0] == "vsn");
                    vsn = named.map_or(Ok(Vsn::V1), |pair| pair[1].as_str().unwrap().parse())?;
                    continue;
                }
                Some("c2s") => Side::Client,
                Some("s2c") => Side::Server,
                _ => continue,
            };
            let frame = match (step["text"].as_str(), step["hex"].as_str()) {
                (Some(text), _) => Encoded::Text(text.to_owned()),
                (None, Some(hex)) => Encoded::Binary(unhex(hex)?),
                _ => bail!("{file}: a frame of neither text nor bytes"),
            };
            found.push(Recorded { file: file.clone(), vsn, from, frame });
        }
    }
    Ok(found)
}

fn unhex(hex: &str) -> Result<Vec<u8>> {
    let byte = |at| Ok(u8::from_str_radix(hex.get(at..at + 2).context("odd")?, 16)?);
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn decode(recorded: &Recorded) -> Result<Frame, wire::Error> {
    match &recorded.frame {
        Encoded::Text(text) => Frame::decode_text(recorded.vsn, text),
        Encoded::Binary(bytes) => Frame::decode_binary(recorded.from, bytes),
    }
}

/// Two frames that differ in nothing that a client could see: the order of keys, and a `join_ref` that
/// is null or absent.
fn same(one: &Encoded, other: &Encoded) -> Result<bool> {
    Ok(match (one, other) {
        (Encoded::Text(one), Encoded::Text(other)) => {
            let [mut one, mut other]: [Value; 2] =
                [serde_json::from_str(one)?, serde_json::from_str(other)?];
            for frame in [&mut one, &mut other] {
                if let Some(map) = frame.as_object_mut() {
                    map.entry("join_ref").or_insert(Value::Null);
                }
            }
            one == other
        }
        (one, other) => one == other,
    })
}

#[test]
fn every_recorded_frame_is_read_and_written_again_as_it_was() -> Result<()> {
    let recordings = recordings()?;
    let binary = recordings.iter().filter(|r| matches!(r.frame, Encoded::Binary(_))).count();
    ensure!(recordings.len() > 200 && binary > 3, "only {}, {binary}", recordings.len());
    for recorded in &recordings {
        let context = || format!("{}: {:?}", recorded.file, recorded.frame);
        let frame = decode(recorded).with_context(context)?;
        let again = frame.encode(recorded.vsn, recorded.from).with_context(context)?;
        ensure!(same(&again, &recorded.frame)?, "{} became {again:?}", context());
    }
    Ok(())
}

#[test]
fn a_server_frame_of_version_1_has_exactly_four_keys() -> Result<()> {
    for recorded in recordings()? {
        if recorded.from == Side::Server && recorded.vsn == Vsn::V1 {
            let Encoded::Text(text) = decode(&recorded)?.encode(Vsn::V1, Side::Server)? else {
                bail!("version 1 is text");
            };
            let frame: Value = serde_json::from_str(&text)?;
            let keys: Vec<_> = frame.as_object().context("an object")?.keys().collect();
            assert_eq!(keys, ["topic", "event", "payload", "ref"]);
        }
    }
    Ok(())
}

/// What `T` makes of a payload equals what was read, apart from what it does not know.
fn read_again<T: serde::de::DeserializeOwned + serde::Serialize>(frame: &Frame) -> Result<()> {
    let sent: Value = frame.read()?;
    let mut again = serde_json::to_value(frame.read::<T>()?)?;
    // supabase-py says no type, and nothing is not told from null.
    for known in ["type", "errors"] {
        if sent.get(known).is_none()
            && let Some(map) = again.as_object_mut()
        {
            map.remove(known);
        }
    }
    ensure!(again == sent, "{sent} became {again}");
    Ok(())
}

#[test]
fn every_recorded_payload_is_read_as_what_its_event_carries() -> Result<()> {
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for recorded in recordings()? {
        let frame = decode(&recorded)?;
        if matches!(frame.payload, Payload::Json(_)) {
            let read = match frame.event.as_str() {
                event::JOIN => joins_as_it_was_asked(&frame),
                event::REPLY => read_again::<wire::Reply>(&frame),
                event::SYSTEM => read_again::<wire::System>(&frame),
                event::POSTGRES_CHANGES => read_again::<wire::Change<wire::ChangeData>>(&frame),
                event::BROADCAST => read_again::<wire::Broadcast>(&frame),
                event::PRESENCE => read_again::<wire::Presence>(&frame),
                event::PRESENCE_STATE => read_again::<wire::PresenceState>(&frame),
                event::PRESENCE_DIFF => read_again::<wire::PresenceDiff>(&frame),
                event::ACCESS_TOKEN => read_again::<wire::AccessToken>(&frame),
                _ => Ok(()),
            };
            read.with_context(|| format!("{}: {}", recorded.file, frame.event))?;
        }
        *seen.entry(frame.event).or_default() += 1;
    }
    ensure!(seen.len() >= 13, "some events were never seen: {seen:?}");
    Ok(())
}

/// Nothing is complained of, and each granted subscription repeats what was asked for.
fn joins_as_it_was_asked(frame: &Frame) -> Result<()> {
    let (join, complaints) = wire::Join::read(frame.json()?);
    ensure!(complaints.is_empty(), "{complaints:?}");
    let sent: Value = frame.read()?;
    let asked = sent["config"]["postgres_changes"].as_array().cloned().unwrap_or_default();
    ensure!(asked.len() == join.config.postgres_changes.len());
    for (mut asked, binding) in asked.into_iter().zip(&join.config.postgres_changes) {
        asked["id"] = 7.into();
        ensure!(binding.granted(7) == asked, "{asked} was granted as {binding:?}");
    }
    let token = join.access_token.as_ref().map(cogo::secret::Secret::expose);
    ensure!(token == sent["access_token"].as_str());
    ensure!(!format!("{join:?}").contains("eyJ"), "a token is printed");
    ensure!(Some(join.config.private) == sent["config"]["private"].as_bool());
    Ok(())
}

#[test]
fn a_recorded_binary_broadcast_reaches_version_1_as_text_unless_it_is_bytes() -> Result<()> {
    let mut said = (0, 0);
    for recorded in recordings()? {
        let frame = decode(&recorded)?;
        let Payload::UserBroadcast(broadcast) = &frame.payload else { continue };
        match frame.encode(Vsn::V1, Side::Server) {
            Ok(Encoded::Text(text)) => {
                let read = Frame::decode_text(Vsn::V1, &text)?.read::<wire::Broadcast>()?;
                assert_eq!(read.event, broadcast.event);
                let payload = read.payload.context("a payload")?;
                assert_eq!(payload.get().as_bytes(), broadcast.payload);
                said.0 += 1;
            }
            refused => {
                assert_eq!(refused, Err(wire::Error::BytesInText));
                assert_eq!(broadcast.encoding, wire::Encoding::Binary);
                said.1 += 1;
            }
        }
    }
    ensure!(said.0 > 0 && said.1 > 0, "{said:?}");
    Ok(())
}

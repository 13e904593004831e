use serde_json::json;

use super::*;
use crate::catalogue::canonical;

/// What is known of one tenant, made up.
#[derive(Default)]
struct World {
    mesh: Mesh,
    offered: Vec<Offered>,
    pins: Vec<Pin>,
    definitions: BTreeMap<String, Known>,
}

fn at(day: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(day * 86_400, 0).expect("a day")
}

impl World {
    fn new(mesh: &str) -> Self {
        Self { mesh: serde_json::from_str(mesh).expect("a section"), ..Self::default() }
    }

    /// So many machines have the tool with this description; its hash.
    fn offer(&mut self, name: &str, description: &str, online: i32, away: i32) -> String {
        let (toolset, tool) = name.split_once("__").expect("two names");
        let definition = json!({"name": tool, "description": description, "inputSchema": {}});
        let hash = canonical::hash(&canonical::text(&definition));
        let day = i64::try_from(self.definitions.len()).expect("few");
        self.definitions
            .entry(hash.clone())
            .or_insert(Known { definition: Arc::new(definition), created_at: at(day) });
        self.offered.push(Offered {
            toolset: toolset.to_owned(),
            tool: tool.to_owned(),
            hash: hash.clone(),
            online,
            away,
            workers: vec![format!("on-{description}")],
            newest: at(0),
            leaves_in_ms: None,
        });
        hash
    }

    fn pin(&mut self, name: &str, hash: Option<&str>) {
        let (toolset, tool) = name.split_once("__").expect("two names");
        self.pins.push(Pin {
            toolset: toolset.to_owned(),
            tool: tool.to_owned(),
            hash: hash.map(str::to_owned),
            pinned_at: at(1),
            pinned_by: Some("ann".to_owned()),
        });
    }

    fn see(&self) -> (Snapshot, Vec<NewPin>) {
        let Self { mesh, offered, pins, definitions } = self;
        Snapshot::build(&Sources { tenant: "acme", mesh, offered, pins, definitions })
    }
}

fn listed(snapshot: &Snapshot) -> Vec<String> {
    let line = |offer: &Arc<Offer>| {
        let description = offer.definition["description"].as_str().unwrap_or_default();
        format!("{} {description} {}", offer.name(), offer.workers)
    };
    snapshot.iter().map(line).collect()
}

fn held(snapshot: &Snapshot) -> Vec<String> {
    let line = |held: &Held| {
        let description = held.offer.definition["description"].as_str().unwrap_or_default();
        let before = held.approved.as_ref().map(|approved| {
            approved
                .definition
                .as_ref()
                .map(|d| d["description"].as_str().unwrap_or_default().to_owned())
        });
        format!("{} {description} {before:?}", held.offer.name())
    };
    snapshot.held().iter().map(line).collect()
}

#[test]
fn without_pinning_most_machines_decide_and_then_the_newest_definition() {
    let mut world = World::new("{}");
    world.offer("browser__click", "old", 1, 5);
    world.offer("browser__click", "new", 2, 0);
    world.offer("browser__type", "older", 1, 0);
    world.offer("browser__type", "newer", 1, 0);
    world.offer("browser__back", "here", 1, 0);
    world.offer("browser__back", "away", 0, 9);
    world.offer("browser__go", "both", 0, 1);
    world.pin("browser__click", Some("whatever was said when pinning was on"));
    let (snapshot, first) = world.see();
    assert_eq!(
        listed(&snapshot),
        [
            "browser__back here 1",
            "browser__click new 2",
            "browser__go both 0",
            "browser__type newer 1"
        ]
    );
    assert!(snapshot.held().is_empty() && first.is_empty());
    // What not all machines of the toolset have is called by its definition, so that the others leave it alone.
    let everywhere: Vec<_> = snapshot.iter().filter(|offer| !offer.pinned).collect();
    assert!(everywhere.len() == 1 && everywhere[0].tool == "back", "{everywhere:?}");
    assert!(snapshot.get("browser", "go").is_some() && snapshot.get("browser", "stop").is_none());
    assert_eq!(snapshot.toolset("browser").count(), 4);
    assert_eq!(snapshot.toolsets().collect::<Vec<_>>(), ["browser"]);
}

#[test]
fn a_changed_definition_is_held_and_the_approved_one_stays() {
    let mut world = World::new(r#"{"pinning": "first_use"}"#);
    let old = world.offer("browser__click", "old", 1, 0);
    let new = world.offer("browser__click", "new", 7, 0);
    world.pin("browser__click", Some(&old));
    let (snapshot, first) = world.see();
    assert_eq!(listed(&snapshot), ["browser__click old 1"]);
    assert!(snapshot.iter().all(|offer| offer.pinned));
    assert_eq!(held(&snapshot), [r#"browser__click new Some(Some("old"))"#]);
    assert_eq!(snapshot.held()[0].machines, ["on-new"]);
    assert!(first.is_empty());
    // The last machine that had it as it was approved goes.
    world.offered.remove(0);
    assert_eq!(listed(&world.see().0), Vec::<String>::new());
    world.pins[0].hash = Some(new);
    assert_eq!(listed(&world.see().0), ["browser__click new 7"]);
    world.pins[0].hash = None;
    let (snapshot, first) = world.see();
    assert!(listed(&snapshot).is_empty() && first.is_empty(), "revoked is not unknown");
    assert_eq!(held(&snapshot), ["browser__click new Some(None)"]);
}

#[test]
fn what_is_seen_first_is_approved_or_held_as_the_configuration_says() {
    let mut world = World::new(r#"{"pinning": "first_use"}"#);
    world.offer("browser__click", "rare", 1, 0);
    let common = world.offer("browser__click", "common", 2, 0);
    let (snapshot, first) = world.see();
    assert_eq!(listed(&snapshot), ["browser__click common 2"]);
    assert_eq!(held(&snapshot), ["browser__click rare None"]);
    let pin = NewPin { toolset: "browser".into(), tool: "click".into(), hash: Some(common) };
    assert_eq!(first, [pin]);
    world.mesh.pinning = Pinning::Strict;
    let (snapshot, first) = world.see();
    assert!(listed(&snapshot).is_empty() && first.is_empty());
    assert_eq!(held(&snapshot), ["browser__click common None", "browser__click rare None"]);
}

#[test]
fn what_is_denied_is_neither_listed_nor_held_nor_approved() {
    let tenants = r#"{"acme": {"deny": ["browser__click"]}}"#;
    for pinning in ["off", "first_use", "strict"] {
        let mut world = World::new(&format!(r#"{{"pinning": "{pinning}", "tenants": {tenants}}}"#));
        world.offer("browser__click", "x", 1, 0);
        let (snapshot, first) = world.see();
        assert!(listed(&snapshot).is_empty() && snapshot.held().is_empty() && first.is_empty());
    }
}

#[test]
fn what_is_not_what_it_says_is_not_offered() {
    let mut world = World::new("{}");
    world.offer("cogo__enqueue", "the hub's own name", 1, 0);
    world.offer("a__b", "whose toolset nobody could tell", 1, 0);
    world.offered[1].toolset = "a_".to_owned();
    let hash = world.offer("browser__click", "x", 1, 0);
    world.offered[2].tool = "harmless".to_owned();
    assert_eq!(listed(&world.see().0), Vec::<String>::new(), "a definition names its tool");
    world.offered[2].tool = "click".to_owned();
    assert_eq!(listed(&world.see().0), ["browser__click x 1"]);
    world.definitions.remove(&hash);
    assert_eq!(listed(&world.see().0), Vec::<String>::new(), "not told yet");
}

#[test]
fn lists_are_alike_when_their_tools_are_however_many_machines_there_are() {
    let mut world = World::new("{}");
    world.offer("browser__click", "x", 1, 0);
    let one = world.see().0;
    world.offered[0].online = 3;
    let more = world.see().0;
    assert!(one != more && one.lists_as(&more));
    world.offer("browser__click", "y", 9, 0);
    assert!(!one.lists_as(&world.see().0));
    assert!(!one.lists_as(&Snapshot::default()));
}

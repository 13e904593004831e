use std::path::Path;

use cogo::breaker;
use cogo::config::{File as _, Reload, Reloaded, Source};
use cogo::live::Live;
use cogo::retry::Policies;

const FOUR: &str = r#"{"policies": {"default": {"max_attempts": 4}}}"#;
const SEVEN: &str = r#"{"policies": {"default": {"max_attempts": 7}}}"#;
const BAD: &str = "{\"policies\": {\n\"default\": {\n\"max_attempts\": 0}}}";

/// A directory with a retry policy that is watched.
struct Files {
    dir: tempfile::TempDir,
    reload: Reload,
    retry: Live<Policies>,
}

impl Files {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        write(dir.path(), text);
        let mut reload = Reload::new(Source::with_variables(Some(dir.path().to_owned()), []));
        let retry = reload.watch::<Policies>().expect("a good file");
        Self { dir, reload, retry }
    }

    fn write(&self, text: &str) {
        write(self.dir.path(), text);
    }

    fn attempts(&self) -> u32 {
        self.retry.get().resolve("echo").max_attempts
    }

    fn reload_now(&mut self) -> Reloaded {
        one(self.reload.reload_now())
    }

    /// What the second look finds; the first finds what may be half written.
    fn look_twice(&mut self) -> Vec<(&'static str, Reloaded)> {
        assert_eq!(self.reload.look(), [], "at the first look");
        self.reload.look()
    }
}

fn write(dir: &Path, text: &str) {
    std::fs::write(dir.join(Policies::NAME), text).expect("a file");
}

#[track_caller]
fn one(mut came: Vec<(&'static str, Reloaded)>) -> Reloaded {
    assert_eq!(came.len(), 1, "{came:?}");
    let (name, reloaded) = came.remove(0);
    assert_eq!(name, Policies::NAME);
    reloaded
}

#[test]
fn a_changed_file_holds_from_then_on_for_everyone() {
    let mut files = Files::new(FOUR);
    let elsewhere = files.retry.clone();
    assert_eq!(files.reload_now(), Reloaded::Unchanged);
    files.write(SEVEN);
    assert_eq!(files.attempts(), 4, "not before it is read");
    let changes = "policies.default.max_attempts: 4 -> 7".to_owned();
    assert_eq!(files.reload_now(), Reloaded::Applied { changes });
    assert_eq!((files.attempts(), elsewhere.get().resolve("x").max_attempts), (7, 7));
}

#[test]
fn a_bad_file_is_refused_by_line_field_and_rule_and_the_old_policy_stays() {
    let mut files = Files::new(FOUR);
    files.write(BAD);
    let Reloaded::Refused { why } = files.reload_now() else { panic!("not refused") };
    let told = ":3: policies.default.max_attempts: must be from 1 to 1000";
    assert!(why.contains(Policies::NAME) && why.ends_with(told), "{why}");
    assert_eq!(files.attempts(), 4);
    files.write("{\"policies\":\n{");
    let Reloaded::Refused { why } = files.reload_now() else { panic!("not refused") };
    assert!(why.contains("retry_policy.json:2:"), "{why}");
    files.write(FOUR);
    assert_eq!(files.reload_now(), Reloaded::Unchanged, "mended");
    assert_eq!(files.attempts(), 4);
}

#[test]
fn a_look_acts_on_a_change_once_and_only_when_it_has_settled() {
    let mut files = Files::new(FOUR);
    assert_eq!(files.look_twice(), []);
    files.write(BAD);
    assert!(matches!(one(files.look_twice()), Reloaded::Refused { .. }));
    assert_eq!(files.look_twice(), [], "the same bad content is told once");
    // Caught in the middle of writing, at each look something else.
    files.write("{\"policies\"");
    assert_eq!(files.reload.look(), []);
    files.write(SEVEN);
    assert!(matches!(one(files.look_twice()), Reloaded::Applied { .. }));
    assert_eq!(files.attempts(), 7);
    // Taken away and put back, as some editors do it.
    std::fs::remove_file(files.dir.path().join(Policies::NAME)).expect("removed");
    assert_eq!(files.reload.look(), []);
    files.write(SEVEN);
    assert_eq!(files.look_twice(), []);
}

#[test]
fn a_file_that_is_gone_means_defaults_as_at_the_start() {
    let mut files = Files::new(SEVEN);
    std::fs::remove_file(files.dir.path().join(Policies::NAME)).expect("removed");
    assert!(matches!(one(files.look_twice()), Reloaded::Applied { .. }));
    assert_eq!(files.attempts(), 5);
}

#[cfg(unix)]
#[test]
fn a_symlink_that_is_turned_is_a_change() {
    use std::os::unix::fs::symlink;
    // As Kubernetes mounts a ConfigMap: the file is a link into `..data`, which is a link itself.
    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| dir.path().join(name);
    for (version, text) in [("v1", FOUR), ("v2", SEVEN)] {
        std::fs::create_dir(at(version)).expect("a directory");
        write(&at(version), text);
    }
    symlink("v1", at("..data")).expect("a link");
    symlink(format!("..data/{}", Policies::NAME), at(Policies::NAME)).expect("a link");
    let mut reload = Reload::new(Source::with_variables(Some(dir.path().to_owned()), []));
    let retry = reload.watch::<Policies>().expect("a good file");
    assert_eq!(retry.get().resolve("x").max_attempts, 4);
    symlink("v2", at("..data_tmp")).expect("a link");
    std::fs::rename(at("..data_tmp"), at("..data")).expect("turned");
    assert_eq!(reload.look(), []);
    assert!(matches!(one(reload.look()), Reloaded::Applied { .. }));
    assert_eq!(retry.get().resolve("x").max_attempts, 7);
}

#[test]
fn each_file_goes_by_itself_and_a_bad_one_ends_the_start() {
    let mut files = Files::new(BAD.replace('0', "4").as_str());
    files.reload.watch::<breaker::Policies>().expect("defaults");
    files.write(SEVEN);
    let breakers = files.dir.path().join(breaker::Policies::NAME);
    std::fs::write(breakers, "7").expect("a file");
    let came = files.reload.reload_now();
    assert!(matches!(came[0], (Policies::NAME, Reloaded::Applied { .. })), "{came:?}");
    assert!(matches!(came[1], (breaker::Policies::NAME, Reloaded::Refused { .. })), "{came:?}");
    assert_eq!(files.attempts(), 7);
    let source = Source::with_variables(Some(files.dir.path().to_owned()), []);
    assert!(Reload::new(source).watch::<breaker::Policies>().is_err());
}

#[tokio::test]
async fn whoever_waits_for_a_change_is_told_of_it() {
    let mut files = Files::new(FOUR);
    let mut waiting = files.retry.clone();
    files.write(SEVEN);
    files.reload_now();
    waiting.changed().await;
    assert_eq!(waiting.get().resolve("x").max_attempts, 7);
}

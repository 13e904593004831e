//! cli.md: the commands as clap knows them, exit codes and the environment.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command, CommandFactory as _};

use super::{environment, page, prose, sentence, table};
use crate::Cli;
use crate::exit;

const HEAD: &str = "\
Everything is one program, `cogo`. `cogo help` is not a command: `cogo <command> --help` says what stands here.

Data goes to stdout, everything else to stderr. Lists and single things take `--json`.";

#[test]
fn the_page_of_commands_is_what_clap_knows() {
    let mut root = Cli::command();
    root.build();
    let mut all = Vec::new();
    walk(&root, &mut all);
    let overview = table(
        ["command", "what it does"],
        all.iter().map(|(path, command)| {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            [format!("[`{path}`](#{})", path.replace(' ', "-")), prose(&about)]
        }),
    );
    let mut text = format!("{HEAD}\n\n{overview}");
    let _infallible = write!(
        text,
        "## Global options\n\nEvery command takes these.\n\n{}",
        options(root.get_arguments().filter(|arg| is_global(&root, arg)))
    );
    for (path, command) in &all {
        let _infallible = write!(text, "{}", section(path, command, &root));
    }
    text.push_str(&exit_codes());
    text.push_str(&environment::section(&root));
    page("cli.md", "The command line", &text);
}

/// All commands that are shown, with their paths; not the program itself.
fn walk<'a>(command: &'a Command, into: &mut Vec<(String, &'a Command)>) {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        into.push((below.get_bin_name().expect("a built command").to_owned(), below));
        walk(below, into);
    }
}

fn is_global(root: &Command, arg: &Arg) -> bool {
    root.get_arguments().any(|global| global.is_global_set() && global.get_id() == arg.get_id())
}

fn section(path: &str, command: &Command, root: &Command) -> String {
    let level = "#".repeat(path.split(' ').count().min(4));
    let about = command.get_long_about().or_else(|| command.get_about());
    let about = about.map(|text| paragraphs(&text.to_string())).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").lines().map(str::trim).collect::<Vec<_>>();
    let mut text = format!("{level} {path}\n\n{about}```text\n{}\n```\n\n", usage.join("\n"));
    let shown = |arg: &&Arg| !arg.is_hide_set() && !is_global(root, arg) && arg.get_id() != "help";
    let positional = command.get_positionals().filter(shown);
    let rows = positional.map(|arg| [format!("`{}`", value(arg)), meaning(arg)]);
    text.push_str(&table(["argument", "what it is"], rows));
    text.push_str(&options(
        command.get_arguments().filter(|arg| !arg.is_positional()).filter(shown),
    ));
    let after = command.get_after_long_help().or_else(|| command.get_after_help());
    text.push_str(&after.map(|text| paragraphs(&text.to_string())).unwrap_or_default());
    text
}

fn options<'a>(args: impl Iterator<Item = &'a Arg>) -> String {
    let rows = args.map(|arg| {
        let names = [
            arg.get_short().map(|short| format!("-{short}")),
            arg.get_long().map(|long| format!("--{long}")),
        ];
        let names = names.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let takes = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
        let value = if takes { format!(" {}", value(arg)) } else { String::new() };
        [format!("`{names}{value}`"), meaning(arg)]
    });
    table(["option", "what it does"], rows)
}

fn value(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    let mut text = names.iter().map(|name| format!("<{name}>")).collect::<Vec<_>>().join(" ");
    if names.is_empty() {
        text = format!("<{}>", arg.get_id());
    }
    let many = matches!(arg.get_action(), ArgAction::Append)
        || arg.get_num_args().is_some_and(|range| range.max_values() > 1);
    if many { format!("{text}…") } else { text }
}

fn meaning(arg: &Arg) -> String {
    let help =
        arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut parts = vec![sentence(&prose(&help))];
    if !arg.is_hide_possible_values_set()
        && matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
    {
        let values = arg.get_possible_values();
        let each = values.iter().filter(|value| !value.is_hide_set()).map(|value| {
            match value.get_help() {
                Some(help) => format!(
                    "`{}` ({})",
                    value.get_name(),
                    prose(&help.to_string()).trim_end_matches('.')
                ),
                None => format!("`{}`", value.get_name()),
            }
        });
        let each = each.collect::<Vec<_>>().join(", ");
        if !each.is_empty() {
            parts.push(format!("One of {each}."));
        }
    }
    let defaults =
        arg.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy()));
    let defaults = defaults.collect::<Vec<_>>().join(" ");
    if !defaults.is_empty() && matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) {
        parts.push(format!("Default: {defaults}."));
    }
    if let Some(variable) = arg.get_env() {
        parts.push(format!("Environment: `{}`.", variable.to_string_lossy()));
    }
    if arg.is_required_set() && !arg.is_positional() {
        parts.push("Required.".to_owned());
    }
    parts.join(" ")
}

/// Help as Markdown: what is indented is code, as are examples, and a line before it that ends in a colon its heading.
fn paragraphs(help: &str) -> String {
    let mut text = String::new();
    for block in help.trim_end().split("\n\n") {
        let (said, shown): (Vec<&str>, Vec<&str>) =
            block.lines().partition(|line| !line.starts_with("  "));
        let said = prose(&said.join("\n"));
        if shown.is_empty() {
            let _infallible = write!(text, "{}\n\n", sentence(&said));
            continue;
        }
        if !said.is_empty() {
            let _infallible = write!(text, "**{said}**\n\n");
        }
        let shown = shown.iter().map(|line| &line[2..]).collect::<Vec<_>>().join("\n");
        let _infallible = write!(text, "```text\n{shown}\n```\n\n");
    }
    text
}

fn exit_codes() -> String {
    let mut rows: Vec<[String; 2]> = Vec::new();
    for line in exit::HELP.lines().skip(1) {
        match (line.trim().split_once(' '), rows.last_mut()) {
            (Some((code, what)), _) if code.parse::<u8>().is_ok() => {
                rows.push([format!("`{code}`"), what.trim().to_owned()]);
            }
            (_, Some([_, what])) => *what = format!("{what} {}", line.trim()),
            _ => {}
        }
    }
    format!("## Exit codes\n\n{}", table(["code", "meaning"], rows))
}

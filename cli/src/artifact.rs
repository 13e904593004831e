//! `cogo artifact`: what is kept by content, and the files that runs left.

mod place;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use cogo::artifact::files::mime_of;
use cogo::artifact::{Artifact as Bytes, OCTETS};
use cogo::hub::ArtifactQuery;
use cogo::message::{DEFAULT_TENANT, NAME_RULE, valid_name};
use serde_json::{Value, json};

use crate::connect::Global;
use crate::exit::{Exit, Failed};
use crate::output::{Cell, Ink, Output, note};
use crate::private_file;
use place::{Named, Place};

/// List, get and put artifacts
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo artifact list
  cogo artifact list --prefix mcp/browser/ --tenant acme --json | jq -r '.artifacts[].name'
  cogo artifact get mcp/demo/20261121T093000.123Z-…/response.json
  cogo artifact get cogo://artifacts/acme/<sha256> --out page.png
  cogo artifact put page.png --tenant acme
  echo '{}' | cogo artifact put - --mime application/json --json

Without --url the store is opened here, as hub.json says that it is kept: a folder below the artifacts
directory, or a bucket, whose keys are in COGO_S3_ACCESS_KEY_ID and COGO_S3_SECRET_ACCESS_KEY. With
--url the hub is asked: for what is kept by content with the key, for lists and files as well with the
admin token, if COGO_ADMIN_TOKEN holds it.")]
pub(crate) struct Artifact {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List what is kept by content, and then the files that runs left
    List(List),
    /// Get one: to stdout, or into a file
    Get(Get),
    /// Keep a file by its content, and print its URI
    Put(Put),
}

#[derive(Debug, Args)]
struct List {
    /// What names begin with, such as mcp/demo/ or blobs/acme/
    #[arg(long, default_value = "")]
    prefix: String,
    /// Only this tenant's
    #[arg(long)]
    tenant: Option<String>,
    /// The most that are listed
    #[arg(short = 'n', long, default_value_t = 100)]
    limit: usize,
    /// The `next` of the list before
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
}

#[derive(Debug, Args)]
struct Get {
    /// A name of the list, or cogo://artifacts/<tenant>/<sha256>
    name: String,
    /// The file to write; by default stdout
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Put {
    /// The file; - reads stdin
    file: PathBuf,
    /// Whose it is; by default the key's tenant, or `default`
    #[arg(long)]
    tenant: Option<String>,
    /// Its type; by default what the end of the file's name says
    #[arg(long, value_name = "TYPE")]
    mime: Option<String>,
}

impl Artifact {
    pub(crate) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        let place = Place::of(global).await?;
        match self.command {
            Command::List(list) => list.run(&place, output).await,
            Command::Get(get) => get.run(&place, output).await,
            Command::Put(put) => put.run(&place, output).await,
        }
    }
}

impl List {
    async fn run(self, place: &Place, output: Output) -> Result<Exit> {
        let Self { prefix, tenant, limit, after } = self;
        let found =
            place.list(&ArtifactQuery { prefix, tenant, after, limit: Some(limit) }).await?;
        if output.json {
            output.value(&found)?;
            return Ok(Exit::Done);
        }
        let listed = found["artifacts"].as_array().map(Vec::as_slice).unwrap_or_default();
        if listed.is_empty() && found["next"].is_null() {
            note("There is no such artifact.");
        } else {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let row = |artifact: &Value| {
                vec![
                    Cell::plain(text(&artifact["modified_at"])),
                    Cell::new(text(&artifact["tenant"]), Ink::Faint),
                    Cell::number(artifact["bytes"].to_string()),
                    Cell::plain(text(&artifact["mime"])),
                    Cell::new(text(&artifact["name"]), Ink::Name),
                ]
            };
            let rows: Vec<_> = listed.iter().map(row).collect();
            output.table(&["AT", "TENANT", "BYTES", "TYPE", "NAME"], &rows)?;
        }
        if let Some(next) = found["next"].as_str() {
            note(&format!("There may be more: --after {next}"));
        }
        Ok(Exit::Done)
    }
}

impl Get {
    async fn run(self, place: &Place, output: Output) -> Result<Exit> {
        let named = Named::parse(&self.name)?;
        if output.json && self.out.is_none() {
            return Err(Failed::usage("--json: name a file by --out, which the bytes go to").into());
        }
        let Bytes { mime, bytes } = place.get(&named).await?;
        let Some(out) = self.out else {
            let mut to = std::io::stdout().lock();
            to.write_all(&bytes).and_then(|()| to.flush())?;
            return Ok(Exit::Done);
        };
        private_file::replace(&out, &bytes)?;
        if output.json {
            let (tenant, sha256) = named.blob().map(|(t, d)| (t.to_owned(), d)).unzip();
            output.value(&json!({
                "name": named.name(), "tenant": tenant, "sha256": sha256, "bytes": bytes.len(),
                "mime": mime, "file": out,
            }))?;
        } else {
            note(&format!("{} bytes of {mime} are in {}.", bytes.len(), out.display()));
        }
        Ok(Exit::Done)
    }
}

impl Put {
    async fn run(self, place: &Place, output: Output) -> Result<Exit> {
        let own = || place.tenant();
        let tenant = self.tenant.or_else(own).unwrap_or_else(|| DEFAULT_TENANT.to_owned());
        if !valid_name(&tenant) {
            return Err(Failed::usage(format!("--tenant {tenant:?}: must be {NAME_RULE}")).into());
        }
        let bytes = read(&self.file, place.max_bytes())?;
        let guessed =
            || self.file.file_name().map_or(OCTETS, |name| mime_of(&name.to_string_lossy()));
        let mime = self.mime.as_deref().unwrap_or_else(guessed).to_owned();
        let kept = place.put(&tenant, bytes, &mime).await?;
        if output.json {
            let (tenant, sha256) = (&kept.tenant, &kept.sha256);
            output.value(&json!({
                "uri": kept.uri(), "name": format!("blobs/{tenant}/{sha256}"),
                "href": format!("/mcp/artifacts/{tenant}/{sha256}"), "tenant": tenant,
                "sha256": sha256, "bytes": kept.bytes, "mime": kept.mime,
            }))?;
        } else {
            output.line(&kept.uri())?;
        }
        Ok(Exit::Done)
    }
}

/// No more than may be kept, or a device would never end.
fn read(file: &Path, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(most + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("reading {}", file.display()))?;
    if bytes.len() as u64 > most {
        let text = format!(
            "{}: is larger than mcp.max_artifact_bytes of hub.json, {most}",
            file.display()
        );
        return Err(Failed::usage(text).into());
    }
    Ok(bytes)
}

//! What lies in a folder of artifacts.

use std::collections::BinaryHeap;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use super::{TEMPORARY, now};
use crate::artifact::Digest;
use crate::artifact::backend::{Listed, Name, Page};

/// The name of a tenant's folder. Some file systems take `A` and `a` for the same, and tenants are not.
pub(super) fn dir_name(tenant: &str) -> String {
    tenant
        .chars()
        .flat_map(|c| [c.is_ascii_uppercase().then_some('.'), Some(c.to_ascii_lowercase())])
        .flatten()
        .collect()
}

/// The tenant whose folder bears this name, if one does.
fn tenant_of(dir: &str) -> Option<String> {
    let (mut tenant, mut upper) = (String::new(), false);
    for c in dir.chars() {
        match (upper, c) {
            (false, '.') => upper = true,
            (false, c) => tenant.push(c),
            (true, c) => {
                tenant.push(c.to_ascii_uppercase());
                upper = false;
            }
        }
    }
    (dir_name(&tenant) == dir && crate::message::valid_name(&tenant)).then_some(tenant)
}

/// Artifacts whose `<tenant>/<sha256>` begins with `prefix`, in the order of tenants' folders and then of digests. Of a
/// folder of a million, only the names that are wanted are held, and only these are looked at.
pub(super) fn list(
    root: &Path,
    prefix: &str,
    after: Option<&Name>,
    limit: usize,
) -> io::Result<Page> {
    let (tenant_prefix, digests) = match prefix.split_once('/') {
        Some((tenant, digests)) => (tenant, Some(digests)),
        None => (prefix, None),
    };
    let from = after.map(|after| dir_name(&after.tenant));
    let mut tenants: Vec<(String, String)> = Vec::new();
    for dir in entries(root)? {
        let dir = dir?;
        let Ok(name) = dir.file_name().into_string() else { continue };
        let Some(tenant) = tenant_of(&name) else { continue };
        let wanted = match digests {
            Some(_) => tenant == tenant_prefix,
            None => tenant.starts_with(tenant_prefix),
        };
        if wanted && from.as_ref().is_none_or(|from| name >= *from) && dir.file_type()?.is_dir() {
            tenants.push((name, tenant));
        }
    }
    tenants.sort();
    let mut page = Page::default();
    for (name, tenant) in tenants {
        let left = limit - page.artifacts.len();
        let after = after.filter(|after| after.tenant == tenant).map(|after| after.sha256);
        let dir = root.join(name);
        let names = smallest(&dir, digests.unwrap_or_default(), after, left + 1)?;
        if names.len() > left {
            page.more = true;
        }
        for sha256 in names.into_iter().take(left) {
            // What has just gone is not listed.
            let Ok(found) = dir.join(sha256.to_string()).symlink_metadata() else { continue };
            if found.is_file() {
                let (bytes, modified) = (found.len(), found.modified()?.into());
                page.artifacts.push(Listed { name: Name::new(&tenant, sha256), bytes, modified });
            }
        }
        if page.more {
            break;
        }
    }
    Ok(page)
}

/// The first `most` digests of a folder after one, in order.
fn smallest(
    dir: &Path,
    prefix: &str,
    after: Option<Digest>,
    most: usize,
) -> io::Result<Vec<Digest>> {
    let mut kept = BinaryHeap::new();
    for file in entries(dir)? {
        let name = file?.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with(prefix)) else { continue };
        let Some(digest) = Digest::parse(name) else { continue };
        if after.is_some_and(|after| digest <= after) {
            continue;
        }
        kept.push(digest);
        if kept.len() > most {
            kept.pop();
        }
    }
    Ok(kept.into_sorted_vec())
}

/// Takes away what was begun longer ago than this and never finished.
pub(super) fn tidy(root: &Path, age: Duration) -> io::Result<()> {
    for tenant in entries(root)? {
        for file in entries(&tenant?.path())? {
            let file = file?;
            if file.file_name().to_string_lossy().starts_with(TEMPORARY)
                && file.metadata().and_then(|found| found.modified()).is_ok_and(|modified| {
                    now().duration_since(modified).is_ok_and(|since| since > age)
                })
            {
                let _gone_already = std::fs::remove_file(file.path());
            }
        }
    }
    Ok(())
}

/// What is in a directory; nothing if it is not there, or is none.
fn entries(dir: &Path) -> io::Result<impl Iterator<Item = io::Result<std::fs::DirEntry>>> {
    let found = match std::fs::read_dir(dir) {
        Ok(found) => Some(found),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            None
        }
        Err(error) => return Err(error),
    };
    Ok(found.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_names_one_tenant_and_only_ours_names_one() {
        for tenant in ["acme", "Acme", "aCME-2_b", "0"] {
            assert_eq!(tenant_of(&dir_name(tenant)).as_deref(), Some(tenant));
        }
        for dir in ["", ".", "..", "Acme", ".-", "a.", "a.1"] {
            assert_eq!(tenant_of(dir), None, "{dir:?}");
        }
    }
}

//! What is in an overlay's directory, read once and held against what may be there, before any program sees it.
//!
//! - Plain files only, few and small: no links, so that no path leads out of the directory under another name.
//! - Every kustomization in it is parsed, and has nothing but the fields that are listed here: what fetches, runs or makes
//!   secrets is refused by name, and what is not known is refused as well.
//! - Every path that one names is a file or a directory of this tree, or the built-in base at `../../base`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::OverlayError;

/// The most files, and the most bytes of all of them.
const FILES_MAX: usize = 200;
const BYTES_MAX: u64 = 1 << 20;
/// How deep directories may lie in one another.
const DEPTH_MAX: usize = 8;

/// How a kustomization's file may be called.
const KUSTOMIZATIONS: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
/// The built-in base, as an overlay names it.
pub(super) const BASE: &str = "../../base";

/// Fields that name files or directories to take in.
const SOURCES: [&str; 3] = ["resources", "bases", "components"];
/// Fields that change what is there, and name nothing outside.
const PLAIN: [&str; 14] = [
    "apiVersion",
    "kind",
    "metadata",
    "labels",
    "commonLabels",
    "commonAnnotations",
    "images",
    "replicas",
    "namespace",
    "patches",
    "patchesStrategicMerge",
    "patchesJson6902",
    "configMapGenerator",
    "generatorOptions",
];
/// Fields that would fetch something or run something.
const RUN: [&str; 8] = [
    "helmCharts",
    "helmGlobals",
    "helmChartInflationGenerator",
    "generators",
    "transformers",
    "validators",
    "openapi",
    "configurations",
];

/// The files of an overlay, by their path within the directory, with `/` between its parts.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) files: BTreeMap<String, Vec<u8>>,
}

impl Tree {
    /// A hash of the files and their names.
    pub(super) fn sha256(&self) -> String {
        let mut hasher = Sha256::new();
        for (name, content) in &self.files {
            for part in [name.as_bytes(), content] {
                hasher.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
                hasher.update(part);
            }
        }
        crate::settings::hex(&hasher.finalize())
    }

    fn has_directory(&self, path: &str) -> bool {
        let start = if path.is_empty() { String::new() } else { format!("{path}/") };
        self.files.keys().any(|name| name.starts_with(&start))
    }

    /// The kustomization of this directory.
    fn kustomization(&self, directory: &str) -> Result<(String, Value), OverlayError> {
        let at = |name: &str| if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
        let mut found = KUSTOMIZATIONS.iter().map(|name| at(name)).filter(|name| self.files.contains_key(name));
        let place = found.next().ok_or_else(|| refused(&at(KUSTOMIZATIONS[0]), "there is none in this directory"))?;
        if let Some(second) = found.next() {
            return Err(refused(&second, "there are two kustomizations in one directory: remove one"));
        }
        let value = serde_saphyr::from_slice(&self.files[&place]).map_err(|error| refused(&place, &error))?;
        Ok((place, value))
    }
}

/// The overlay in this directory, if it is one that may be built.
pub(super) fn tree(directory: &Path) -> Result<Tree, OverlayError> {
    let mut tree = Tree { files: BTreeMap::new() };
    collect(directory, directory, 0, &mut tree)?;
    check_directory(&tree, "", 0)?;
    Ok(tree)
}

fn collect(root: &Path, directory: &Path, depth: usize, tree: &mut Tree) -> Result<(), OverlayError> {
    let unreadable = |path: &Path| {
        let path = path.display().to_string();
        move |source| OverlayError::Unreadable { path, source }
    };
    let within = |path: &Path| {
        let inner = path.strip_prefix(root).unwrap_or(path);
        let parts: Vec<_> = inner.components().map(|part| part.as_os_str().to_string_lossy()).collect();
        parts.join("/")
    };
    if depth > DEPTH_MAX {
        return Err(refused(&within(directory), &format!("it lies more than {DEPTH_MAX} directories deep")));
    }
    for entry in std::fs::read_dir(directory).map_err(unreadable(directory))? {
        let path = entry.map_err(unreadable(directory))?.path();
        let place = within(&path);
        // What an editor or a version control keeps there is not the overlay's.
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        let metadata = path.symlink_metadata().map_err(unreadable(&path))?;
        if metadata.is_dir() {
            collect(root, &path, depth + 1, tree)?;
        } else if metadata.is_file() {
            let bytes = tree.files.values().map(|content| content.len() as u64).sum::<u64>() + metadata.len();
            if bytes > BYTES_MAX || tree.files.len() >= FILES_MAX {
                let why = format!(
                    "there are more than {FILES_MAX} files, or {BYTES_MAX} bytes in them: is it the right directory?"
                );
                return Err(refused(&place, &why));
            }
            let content = std::fs::read(&path).map_err(unreadable(&path))?;
            tree.files.insert(place, content);
        } else {
            return Err(refused(&place, "it is a link or no plain file: put a copy there"));
        }
    }
    if depth == 0 && tree.files.is_empty() {
        let source = std::io::Error::new(ErrorKind::NotFound, "it has no files");
        return Err(unreadable(directory)(source));
    }
    Ok(())
}

fn check_directory(tree: &Tree, directory: &str, depth: usize) -> Result<(), OverlayError> {
    let (place, value) = tree.kustomization(directory)?;
    if depth > DEPTH_MAX {
        return Err(refused(&place, "directories take each other in, without end"));
    }
    let Value::Object(fields) = &value else { return Err(refused(&place, "it is no mapping of fields")) };
    for (field, value) in fields {
        if RUN.contains(&field.as_str()) {
            return Err(refused(
                &place,
                &format!(
                    "`{field}` would fetch or run something: write what it makes into a file, and name that under `resources`"
                ),
            ));
        }
        match field.as_str() {
            "secretGenerator" => {
                return Err(refused(
                    &place,
                    "`secretGenerator` would put a secret into the journal: make the Secret in the cluster, and name it",
                ));
            }
            "namePrefix" | "nameSuffix" => {
                return Err(refused(
                    &place,
                    &format!("`{field}` would rename what cairn has to find again: leave it out"),
                ));
            }
            field if SOURCES.contains(&field) => check_sources(tree, directory, &place, field, value, depth)?,
            field if PLAIN.contains(&field) => check_paths(tree, directory, &place, field, value)?,
            _ => {
                return Err(refused(
                    &place,
                    &format!(
                        "`{field}` is none of the fields that an overlay may use: {}, {}",
                        SOURCES.join(", "),
                        PLAIN.join(", ")
                    ),
                ));
            }
        }
    }
    Ok(())
}

fn check_sources(
    tree: &Tree,
    directory: &str,
    place: &str,
    field: &str,
    value: &Value,
    depth: usize,
) -> Result<(), OverlayError> {
    for source in value.as_array().into_iter().flatten() {
        let Some(source) = source.as_str() else {
            return Err(refused(place, &format!("`{field}` is a list of paths")));
        };
        let target = resolve(directory, source);
        if target.as_deref() == Some(BASE) {
            continue;
        }
        match target {
            Some(target) if tree.files.contains_key(&target) => {}
            Some(target) if tree.has_directory(&target) => check_directory(tree, &target, depth + 1)?,
            _ => {
                let why = format!(
                    "`{field}` names {source}, which is not in the directory: what is elsewhere is never fetched; copy it here, or take the built-in base at {BASE}"
                );
                return Err(refused(place, &why));
            }
        }
    }
    Ok(())
}

/// Paths of files in patches and generators; whatever else stands there is text.
fn check_paths(tree: &Tree, directory: &str, place: &str, field: &str, value: &Value) -> Result<(), OverlayError> {
    let mut paths: Vec<String> = Vec::new();
    for item in value.as_array().into_iter().flatten() {
        match (field, item) {
            ("patches" | "patchesJson6902", item) => paths.extend(item["path"].as_str().map(str::to_owned)),
            // A file, or the patch itself: that has lines.
            ("patchesStrategicMerge", Value::String(text)) if !text.contains('\n') => paths.push(text.clone()),
            ("configMapGenerator", item) => {
                for list in ["files", "envs"] {
                    let names = item[list].as_array().into_iter().flatten().filter_map(Value::as_str);
                    // `KEY=FILE`, or `FILE`.
                    paths.extend(names.map(|name| name.split_once('=').map_or(name, |(_, file)| file).to_owned()));
                }
                paths.extend(item["env"].as_str().map(str::to_owned));
            }
            _ => {}
        }
    }
    for path in paths {
        let target = resolve(directory, &path);
        if !target.is_some_and(|target| tree.files.contains_key(&target)) {
            return Err(refused(place, &format!("`{field}` names {path}, which is no file of the directory")));
        }
    }
    Ok(())
}

/// Where a path leads, seen from the overlay's directory; `None` if it leaves that, but for the base.
fn resolve(directory: &str, path: &str) -> Option<String> {
    let path = Path::new(path);
    let mut at: Vec<String> = Vec::new();
    let mut above = 0;
    let all: PathBuf = Path::new(directory).join(path);
    for part in all.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => at.push(name.to_str()?.to_owned()),
            Component::ParentDir if at.pop().is_none() => above += 1,
            Component::ParentDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    match above {
        0 => Some(at.join("/")),
        2 if at == ["base"] => Some(BASE.to_owned()),
        _ => None,
    }
}

fn refused(place: &str, why: &(impl ToString + ?Sized)) -> OverlayError {
    OverlayError::Refused { place: place.to_owned(), why: why.to_string() }
}

//! What a disk may hold: a model of files and names that is told each storage operation, knows what was synced, and
//! makes the images that a power cut may leave.
//!
//! - Content is durable once its file was synced, a name once its directory was. Nothing else is, in no order.
//! - What is not durable yet may be there wholly, partly, by the sector, or not at all. Names follow their order within
//!   what is kept of them, as in every file system with a journal.
//! - `sync_file_range` makes nothing durable.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
};

use anyhow::Context as _;

use crate::{shim::Record, site::Numbers};

/// What a disk writes as one.
const SECTOR_BYTES: usize = 512;

/// A file or directory. Its names are in the directories.
type Node = usize;
/// The directory that is watched.
const ROOT: Node = 0;

/// Content that is shared by the images that have it.
type Content = Arc<Vec<u8>>;

#[derive(Clone, Debug, Default)]
struct File {
    durable: Content,
    /// What was done since the last sync, each with the number of its operation.
    pending: Vec<(usize, Change)>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Content },
    Truncate { length: usize },
}

/// One change of names: a rename is two in one.
#[derive(Clone, Debug)]
struct Naming {
    operation: usize,
    changes: Vec<(Node, String, Option<Node>)>,
}

type Names = BTreeMap<(Node, String), Node>;

/// A disk, as it was told of.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    operations: usize,
    files: BTreeMap<Node, File>,
    directories: BTreeSet<Node>,
    nodes: usize,
    /// Names as the program sees them.
    live: Names,
    durable: Names,
    pending: Vec<Naming>,
}

/// What is kept of all that is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Nothing.
    Nothing,
    /// Everything.
    All,
    /// Everything but the last operation.
    AllButTheLast,
    /// Nothing but the last operation.
    OnlyTheLast,
    /// Everything, and of the last write its first half.
    HalfOfTheLast,
    /// Names up to a random one, and random sectors; more of them the larger the number is, of 8.
    Random {
        /// What the choice is made from.
        seed: u64,
        /// How many sectors of 8.
        of_eight: u64,
    },
}

/// The files of a disk, by their path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    directories: BTreeSet<String>,
    files: BTreeMap<String, Content>,
}

impl Disk {
    /// An empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self { nodes: 1, directories: [ROOT].into(), ..Self::default() }
    }

    /// The directory with what lies in `image`, all of it durable.
    #[must_use]
    pub fn holding(image: &Image) -> Self {
        let mut disk = Self::new();
        for path in &image.directories {
            disk.add(path, true);
        }
        for (path, content) in &image.files {
            let node = disk.add(path, false);
            disk.file(node).durable = Arc::clone(content);
        }
        disk.durable = disk.live.clone();
        disk.pending.clear();
        disk
    }

    /// Whether anything could be lost now.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.pending.is_empty() && self.files.values().all(|file| file.pending.is_empty())
    }

    /// Makes this operation. One that the system refused changes nothing.
    pub fn apply(&mut self, record: &Record) {
        self.operations += 1;
        if !record.done || record.path == "." && record.kind == "mkdir" {
            return;
        }
        let length = usize::try_from(record.length).unwrap_or(usize::MAX);
        match record.kind.as_str() {
            "create" => drop(self.add(&record.path, false)),
            "mkdir" => drop(self.add(&record.path, true)),
            "unlink" | "rmdir" => {
                if let Some((directory, name)) = self.place(&record.path) {
                    self.rename(vec![(directory, name, None)]);
                }
            }
            "rename" => self.renamed(record),
            "write" => {
                let bytes = if record.data.is_empty() { vec![0; length] } else { record.data.clone() };
                let offset = usize::try_from(record.offset).unwrap_or(usize::MAX);
                self.change(&record.path, Change::Write { offset, bytes: Arc::new(bytes) });
            }
            "truncate" => self.change(&record.path, Change::Truncate { length }),
            "sync" | "sync_data" => self.sync(&record.path),
            // Neither content nor names.
            _ => {}
        }
    }

    fn renamed(&mut self, record: &Record) {
        let (Some(from), Some(to)) = (self.place(&record.path), self.place(&record.to)) else { return };
        let Some(node) = self.live.get(&from).copied() else { return };
        self.rename(vec![(from.0, from.1, None), (to.0, to.1, Some(node))]);
    }

    fn change(&mut self, path: &str, change: Change) {
        let operation = self.operations;
        if let Some(node) = self.find(path) {
            self.file(node).pending.push((operation, change));
        }
    }

    fn sync(&mut self, path: &str) {
        let Some(node) = self.find(path) else { return };
        if !self.directories.contains(&node) {
            let file = self.file(node);
            if !file.pending.is_empty() {
                let mut content = file.durable.as_ref().clone();
                file.pending.drain(..).for_each(|(_, change)| change.apply(&mut content));
                file.durable = Arc::new(content);
            }
            return;
        }
        let (durable, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|naming| naming.changes.iter().any(|(directory, ..)| *directory == node));
        self.pending = rest;
        durable.iter().for_each(|naming| naming.apply(&mut self.durable));
    }

    /// What the disk may hold if the power fails now.
    #[must_use]
    pub fn image(&self, kept: Kept) -> Image {
        let last = self.pending.iter().map(|naming| naming.operation);
        let last =
            last.chain(self.files.values().flat_map(|file| file.pending.iter().map(|(number, _)| *number))).max();
        let mut chance = match kept {
            Kept::Random { seed, .. } => Numbers::of(seed),
            _ => Numbers::of(0),
        };
        let is_kept = |operation: usize| match kept {
            Kept::Nothing => false,
            Kept::All | Kept::HalfOfTheLast | Kept::Random { .. } => true,
            Kept::AllButTheLast => Some(operation) != last,
            // Without its name nobody would find it.
            Kept::OnlyTheLast => Some(operation) == last,
        };
        let names_kept = match kept {
            Kept::Random { .. } => usize::try_from(chance.below(self.pending.len() as u64 + 1)).unwrap_or(0),
            _ => self.pending.len(),
        };
        let mut names = self.durable.clone();
        for naming in &self.pending[..names_kept] {
            if is_kept(naming.operation) || kept == Kept::OnlyTheLast {
                naming.apply(&mut names);
            }
        }
        let mut contents: BTreeMap<Node, Content> = BTreeMap::new();
        for (node, file) in &self.files {
            if file.pending.is_empty() {
                contents.insert(*node, Arc::clone(&file.durable));
                continue;
            }
            let mut content = file.durable.as_ref().clone();
            for (operation, change) in file.pending.iter().filter(|(operation, _)| is_kept(*operation)) {
                match kept {
                    Kept::HalfOfTheLast if Some(*operation) == last => change.half().apply(&mut content),
                    Kept::Random { of_eight, .. } => change.sectors(&mut content, &mut chance, of_eight),
                    _ => change.apply(&mut content),
                }
            }
            contents.insert(*node, Arc::new(content));
        }
        self.gather(&names, &contents)
    }

    fn gather(&self, names: &Names, contents: &BTreeMap<Node, Content>) -> Image {
        let mut image = Image::default();
        let mut left = vec![(ROOT, String::new())];
        while let Some((directory, path)) = left.pop() {
            for ((_, name), node) in names.range((directory, String::new())..(directory + 1, String::new())) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                if self.directories.contains(node) {
                    image.directories.insert(path.clone());
                    left.push((*node, path));
                } else {
                    image.files.insert(path, contents.get(node).cloned().unwrap_or_default());
                }
            }
        }
        image
    }

    fn add(&mut self, path: &str, is_directory: bool) -> Node {
        let node = self.nodes;
        self.nodes += 1;
        if is_directory {
            self.directories.insert(node);
        } else {
            self.files.insert(node, File::default());
        }
        if let Some((directory, name)) = self.place(path) {
            self.rename(vec![(directory, name, Some(node))]);
        }
        node
    }

    fn rename(&mut self, changes: Vec<(Node, String, Option<Node>)>) {
        let naming = Naming { operation: self.operations, changes };
        naming.apply(&mut self.live);
        self.pending.push(naming);
    }

    /// The directory of a path, and the name in it.
    fn place(&self, path: &str) -> Option<(Node, String)> {
        let (directory, name) = path.rsplit_once('/').unwrap_or((".", path));
        Some((self.find(directory)?, name.to_owned()))
    }

    fn find(&self, path: &str) -> Option<Node> {
        let names = path.split('/').filter(|name| !name.is_empty() && *name != ".");
        names.into_iter().try_fold(ROOT, |directory, name| self.live.get(&(directory, name.to_owned())).copied())
    }

    fn file(&mut self, node: Node) -> &mut File {
        self.files.entry(node).or_default()
    }
}

impl Naming {
    fn apply(&self, names: &mut Names) {
        for (directory, name, node) in &self.changes {
            let place = (*directory, name.clone());
            match node {
                Some(node) => drop(names.insert(place, *node)),
                None => drop(names.remove(&place)),
            }
        }
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => put(content, *offset, bytes),
            Self::Truncate { length } => content.resize(*length, 0),
        }
    }

    fn half(&self) -> Self {
        match self {
            Self::Write { offset, bytes } => {
                Self::Write { offset: *offset, bytes: Arc::new(bytes[..bytes.len() / 2].to_vec()) }
            }
            Self::Truncate { .. } => self.clone(),
        }
    }

    /// Some of its sectors. Where one is missing, what was there before is.
    fn sectors(&self, content: &mut Vec<u8>, chance: &mut Numbers, of_eight: u64) {
        let mut is_kept = || chance.below(8) < of_eight;
        match self {
            Self::Write { offset, bytes } => {
                let (mut from, end) = (*offset, offset + bytes.len());
                while from < end {
                    let to = ((from / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
                    if is_kept() {
                        put(content, from, &bytes[from - offset..to - offset]);
                    }
                    from = to;
                }
            }
            Self::Truncate { .. } => {
                if is_kept() {
                    self.apply(content);
                }
            }
        }
    }
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

impl Image {
    /// What lies in `directory`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(directory: &Path) -> anyhow::Result<Self> {
        let mut image = Self::default();
        let mut left = vec![String::new()];
        while let Some(path) = left.pop() {
            for entry in fs::read_dir(directory.join(&path))? {
                let entry = entry?;
                let name = entry.file_name().into_string().ok().context("names are plain")?;
                let path = if path.is_empty() { name } else { format!("{path}/{name}") };
                if entry.file_type()?.is_dir() {
                    image.directories.insert(path.clone());
                    left.push(path);
                } else {
                    image.files.insert(path, Arc::new(fs::read(entry.path())?));
                }
            }
        }
        Ok(image)
    }

    /// Puts all of it into `directory`, which is made.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn write(&self, directory: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(directory)?;
        // A directory sorts before what is in it.
        for path in &self.directories {
            fs::create_dir(directory.join(path))?;
        }
        for (path, content) in &self.files {
            fs::write(directory.join(path), content.as_slice())?;
        }
        Ok(())
    }

    /// A file's content.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(|content| content.as_slice())
    }

    /// Takes a file out.
    pub fn take(&mut self, path: &str) -> Option<Content> {
        self.files.remove(path)
    }

    /// Puts another content in place of a file's.
    pub fn put(&mut self, path: &str, content: Vec<u8>) {
        self.files.insert(path.to_owned(), Arc::new(content));
    }

    /// The files' paths, in order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// What lies under this directory as `other` has it, all else as here.
    #[must_use]
    pub fn with(&self, directory: &str, other: &Self) -> Self {
        let below = |path: &String| path == directory || path.starts_with(&format!("{directory}/"));
        let mut mixed = self.clone();
        mixed.directories.retain(|path| !below(path));
        mixed.files.retain(|path, _| !below(path));
        mixed.directories.extend(other.directories.iter().filter(|path| below(path)).cloned());
        mixed.files.extend(
            other.files.iter().filter(|(path, _)| below(path)).map(|(path, content)| (path.clone(), content.clone())),
        );
        mixed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: &str, path: &str) -> Record {
        let (offset, length) = (0, 0);
        Record {
            kind: kind.to_owned(),
            done: true,
            offset,
            length,
            path: path.to_owned(),
            to: String::new(),
            data: vec![],
        }
    }

    fn write(path: &str, offset: u64, data: &[u8]) -> Record {
        Record { offset, length: data.len() as u64, data: data.to_vec(), ..record("write", path) }
    }

    fn disk(records: &[Record]) -> Disk {
        let mut disk = Disk::new();
        records.iter().for_each(|record| disk.apply(record));
        disk
    }

    #[test]
    fn what_was_not_synced_may_be_lost_and_what_was_is_not() {
        let mut disk = disk(&[record("create", "a"), write("a", 0, b"one"), record("sync", "a"), record("sync", ".")]);
        assert!(disk.is_durable());
        disk.apply(&write("a", 3, b"two!"));
        let content = |disk: &Disk, kept| disk.image(kept).file("a").map(<[u8]>::to_vec);
        assert_eq!(content(&disk, Kept::Nothing), Some(b"one".to_vec()));
        assert_eq!(content(&disk, Kept::All), Some(b"onetwo!".to_vec()));
        assert_eq!(content(&disk, Kept::HalfOfTheLast), Some(b"onetw".to_vec()));
        assert_eq!(content(&disk, Kept::AllButTheLast), Some(b"one".to_vec()));
        disk.apply(&write("a", 0, b"ONE"));
        assert_eq!(content(&disk, Kept::OnlyTheLast), Some(b"ONE".to_vec()));
        assert_eq!(content(&disk, Kept::AllButTheLast), Some(b"onetwo!".to_vec()));
        disk.apply(&record("sync_data", "a"));
        assert_eq!(content(&disk, Kept::Nothing), Some(b"ONEtwo!".to_vec()));
    }

    #[test]
    fn a_name_is_durable_once_its_directory_was_synced() {
        let mut disk = disk(&[record("mkdir", "d"), record("create", "d/new"), write("d/new", 0, b"x")]);
        disk.apply(&record("sync", "d/new"));
        disk.apply(&Record { to: "d/b".to_owned(), ..record("rename", "d/new") });
        assert_eq!(disk.image(Kept::Nothing), Image::default());
        disk.apply(&record("sync", "d"));
        // The directory itself is not in its own yet.
        assert_eq!(disk.image(Kept::Nothing), Image::default());
        disk.apply(&record("sync", "."));
        let image = disk.image(Kept::Nothing);
        assert_eq!((image.file("d/b"), image.file("d/new")), (Some(&b"x"[..]), None));
        disk.apply(&Record { to: "e".to_owned(), ..record("rename", "d") });
        assert_eq!(disk.image(Kept::All).file("e/b"), Some(&b"x"[..]));
        assert_eq!(disk.image(Kept::Nothing).file("d/b"), Some(&b"x"[..]));
    }

    #[test]
    fn random_sectors_are_those_of_before_or_of_after_and_the_same_for_the_same_seed() {
        let (before, after) = (vec![1; 4 * SECTOR_BYTES], vec![2; 4 * SECTOR_BYTES]);
        let mut disk = disk(&[record("create", "a"), write("a", 0, &before), record("sync", "a"), record("sync", ".")]);
        disk.apply(&write("a", 0, &after));
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let kept = Kept::Random { seed, of_eight: 4 };
            let image = disk.image(kept);
            assert_eq!(image, disk.image(kept));
            let content = image.file("a").expect("it is there");
            let sectors: Vec<u8> = content.chunks(SECTOR_BYTES).map(|sector| sector[0]).collect();
            assert!(content.chunks(SECTOR_BYTES).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
            seen.insert(sectors);
        }
        assert_eq!(seen.len(), 16, "every mix of four sectors is met");
    }
}

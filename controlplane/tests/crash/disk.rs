//! A model of a disk with a volatile cache: it takes the record of the shim, and
//! says what a power loss may leave.
//!
//! Durable is only what was synced: data by a sync of the file, names by a sync
//! of their directory. `sync_file_range` counts for nothing: it writes pages but
//! neither the file's length nor the drive's cache.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rand::RngExt;
use rand::rngs::SmallRng;

/// A torn write tears at these.
const PAGE: usize = 4096;

/// One recorded operation.
#[derive(Debug)]
pub enum Op {
    Open {
        fd: u32,
        path: PathBuf,
        created: bool,
        truncated: bool,
    },
    Write {
        fd: u32,
        at: usize,
        data: Vec<u8>,
    },
    Truncate {
        fd: u32,
        length: usize,
    },
    Sync {
        fd: u32,
    },
    RangeSync,
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Unlink {
        path: PathBuf,
    },
    MakeDir {
        path: PathBuf,
    },
    Close {
        fd: u32,
    },
    /// Something the process has said on its standard output.
    Print {
        text: String,
    },
}

/// Reads the shim's record. A killed process may leave half an operation at the
/// end.
pub fn parse(mut bytes: &[u8]) -> Vec<Op> {
    let mut ops = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<24>() {
        let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
        let (op, fd, at) = (word(0), word(4), u64::from_le_bytes(head[8..16].try_into().unwrap()) as usize);
        let Some((a, rest)) = rest.split_at_checked(word(16) as usize) else { break };
        let Some((b, rest)) = rest.split_at_checked(word(20) as usize) else { break };
        let path = |bytes: &[u8]| PathBuf::from(std::str::from_utf8(bytes).unwrap());
        ops.push(match op {
            1 => Op::Open { fd, path: path(a), created: at & 1 != 0, truncated: at & 2 != 0 },
            2 => Op::Write { fd, at, data: a.to_vec() },
            3 => Op::Truncate { fd, length: at },
            4 => Op::Sync { fd },
            5 => Op::RangeSync,
            6 => Op::Rename { from: path(a), to: path(b) },
            7 => Op::Unlink { path: path(a) },
            8 => Op::MakeDir { path: path(a) },
            9 => Op::Close { fd },
            10 => Op::Print { text: String::from_utf8_lossy(a).into_owned() },
            other => panic!("operation {other} in the record"),
        });
        bytes = rest;
    }
    ops
}

/// What of the unsynced operations survives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Survives {
    Nothing,
    /// All up to a random one.
    Prefix,
    /// A random subset, and of a write a random subset of its pages. Names of one
    /// directory survive in order: file systems log them.
    Subset,
}

type Node = usize;
const ROOT: Node = 0;

#[derive(Clone, Debug)]
enum Content {
    File(Vec<u8>),
    Dir(BTreeMap<String, Node>),
}

#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, data: Vec<u8> },
    Truncate { length: usize },
    Link { name: String, node: Node },
    Unlink { name: String },
    Rename { from: String, to: String },
}

/// See the file's comment.
pub struct Disk {
    root: PathBuf,
    durable: Vec<Content>,
    /// The directories as the process sees them, to find what a path means.
    live: BTreeMap<Node, BTreeMap<String, Node>>,
    /// What is not synced, in order.
    pending: Vec<(Node, Change)>,
    open: BTreeMap<u32, (Node, PathBuf)>,
    /// Syncs of what has this in its path do nothing: to see that the tests would
    /// notice.
    pub syncs_that_lie: Option<&'static str>,
}

impl Disk {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            durable: vec![Content::Dir(BTreeMap::new())],
            live: BTreeMap::from([(ROOT, BTreeMap::new())]),
            pending: Vec::new(),
            open: BTreeMap::new(),
            syncs_that_lie: None,
        }
    }

    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Open { fd, path, created, truncated } => {
                if *created {
                    self.create(path, Content::File(Vec::new()));
                }
                let node = self.find(path).unwrap_or_else(|| panic!("{} was never made", path.display()));
                if *truncated && !*created {
                    self.pending.push((node, Change::Truncate { length: 0 }));
                }
                self.open.insert(*fd, (node, path.clone()));
            }
            Op::Write { fd, at, data } => {
                self.pending.push((self.open[fd].0, Change::Write { at: *at, data: data.clone() }));
            }
            Op::Truncate { fd, length } => {
                self.pending.push((self.open[fd].0, Change::Truncate { length: *length }));
            }
            Op::Sync { fd } => {
                let (node, path) = &self.open[fd];
                if !self.syncs_that_lie.is_some_and(|part| path.to_str().unwrap().contains(part)) {
                    self.sync(*node);
                }
            }
            Op::RangeSync | Op::Print { .. } => {}
            Op::Rename { from, to } => self.rename(from, to),
            Op::Unlink { path } => {
                let (dir, name) = self.place(path);
                self.live.get_mut(&dir).unwrap().remove(&name);
                self.pending.push((dir, Change::Unlink { name }));
            }
            Op::MakeDir { path } => {
                let node = self.create(path, Content::Dir(BTreeMap::new()));
                self.live.insert(node, BTreeMap::new());
            }
            Op::Close { fd } => _ = self.open.remove(fd),
        }
    }

    fn create(&mut self, path: &Path, content: Content) -> Node {
        let (dir, name) = self.place(path);
        self.durable.push(content);
        let node = self.durable.len() - 1;
        self.live.get_mut(&dir).unwrap().insert(name.clone(), node);
        self.pending.push((dir, Change::Link { name, node }));
        node
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        let ((dir, from), (same, to)) = (self.place(from), self.place(to));
        assert_eq!(dir, same, "the store renames within a directory");
        let names = self.live.get_mut(&dir).unwrap();
        let node = names.remove(&from).unwrap();
        names.insert(to.clone(), node);
        self.pending.push((dir, Change::Rename { from, to }));
    }

    fn sync(&mut self, node: Node) {
        let pending = std::mem::take(&mut self.pending);
        let (now, later): (Vec<_>, _) = pending.into_iter().partition(|(changed, _)| *changed == node);
        now.into_iter().for_each(|(node, change)| change.apply(&mut self.durable[node]));
        self.pending = later;
    }

    fn find(&self, path: &Path) -> Option<Node> {
        let below = path.strip_prefix(&self.root).unwrap();
        below.iter().try_fold(ROOT, |node, name| self.live.get(&node)?.get(name.to_str()?).copied())
    }

    fn place(&self, path: &Path) -> (Node, String) {
        let dir =
            self.find(path.parent().unwrap()).unwrap_or_else(|| panic!("no place for {}", path.display()));
        (dir, path.file_name().unwrap().to_str().unwrap().to_owned())
    }

    /// Writes to `target` what a power loss now may leave.
    pub fn crash(&self, survives: Survives, random: &mut SmallRng, target: &Path) {
        let mut left = self.durable.clone();
        match survives {
            Survives::Nothing => {}
            Survives::Prefix => {
                let kept = random.random_range(0..=self.pending.len());
                self.pending[..kept].iter().for_each(|(node, change)| change.apply(&mut left[*node]));
            }
            Survives::Subset => self.keep_subset(&mut left, random),
        }
        write_out(&left, ROOT, target);
    }

    fn keep_subset(&self, left: &mut [Content], random: &mut SmallRng) {
        let probability = [0.2, 0.5, 0.8][random.random_range(0..3)];
        let mut names_end = BTreeMap::<Node, bool>::new();
        for (node, change) in &self.pending {
            match change {
                Change::Write { at, data } => {
                    let mut from = 0;
                    while from < data.len() {
                        let to = ((at + from) / PAGE * PAGE + PAGE - at).min(data.len());
                        if random.random_bool(probability) {
                            let page = Change::Write { at: at + from, data: data[from..to].to_vec() };
                            page.apply(&mut left[*node]);
                        }
                        from = to;
                    }
                }
                Change::Truncate { .. } if random.random_bool(probability) => change.apply(&mut left[*node]),
                Change::Truncate { .. } => {}
                Change::Link { .. } | Change::Unlink { .. } | Change::Rename { .. } => {
                    let ended = names_end.entry(*node).or_default();
                    *ended = *ended || random.random_bool(1.0 - probability);
                    if !*ended {
                        change.apply(&mut left[*node]);
                    }
                }
            }
        }
    }
}

impl Change {
    fn apply(&self, content: &mut Content) {
        match (self, content) {
            (Change::Write { at, data }, Content::File(bytes)) => {
                let end = at + data.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[*at..end].copy_from_slice(data);
            }
            (Change::Truncate { length }, Content::File(bytes)) => bytes.resize(*length, 0),
            (Change::Link { name, node }, Content::Dir(names)) => _ = names.insert(name.clone(), *node),
            (Change::Unlink { name }, Content::Dir(names)) => _ = names.remove(name),
            (Change::Rename { from, to }, Content::Dir(names)) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
            (change, content) => panic!("{change:?} of {content:?}"),
        }
    }
}

/// Leaves holes for zeros: sled's files are mostly that.
fn write_out(contents: &[Content], node: Node, target: &Path) {
    match &contents[node] {
        Content::Dir(names) => {
            fs::create_dir_all(target).unwrap();
            names.iter().for_each(|(name, node)| write_out(contents, *node, &target.join(name)));
        }
        Content::File(bytes) => {
            let file = File::create(target).unwrap();
            file.set_len(bytes.len() as u64).unwrap();
            for (at, block) in
                bytes.chunks(PAGE).enumerate().filter(|(_, block)| block != &&[0; PAGE][..block.len()])
            {
                file.write_all_at(block, (at * PAGE) as u64).unwrap();
            }
        }
    }
}

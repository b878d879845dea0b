//! A disk in memory that counts, fails on demand, and gives every image that a crash may leave.
//!
//! What a crash may do: of each file's writes since its last sync any may be missing, in any order, and each may be
//! torn between sectors; its length may be the old or a new one; of the names' changes since the last sync of the
//! directory any may be missing.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{Disk, File};

const SECTOR_BYTES: usize = 512;

/// The calls that a disk is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Create,
    Rename,
    Remove,
    SyncDir,
    Write,
    Sync,
    SetLen,
    Reserve,
}

/// Which calls fail: the `at`th of those that change anything, and with `for_ever` all after it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) at: usize,
    pub(crate) kind: io::ErrorKind,
    pub(crate) for_ever: bool,
    /// Only calls of this kind, if it says one.
    pub(crate) only: Option<Call>,
}

impl Failure {
    fn hits(&self, number: usize, call: Call) -> bool {
        let is_now = self.at == number || (self.for_ever && self.at < number);
        is_now && self.only.is_none_or(|only| only == call)
    }
}

#[derive(Clone, Default)]
struct State {
    files: Vec<FileState>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    name_changes: Vec<NameChange>,
    calls: Vec<Call>,
    failure: Option<Failure>,
    images: Option<Vec<Image>>,
    noted: usize,
}

#[derive(Clone, Default)]
struct FileState {
    now: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Clone)]
enum NameChange {
    Set(String, usize),
    Remove(String),
    Rename { from: String, to: String, file: usize },
}

/// What the disk was when a call came, and what the run had noted by then.
#[derive(Clone)]
pub(crate) struct Image {
    state: Box<State>,
    /// The last number given to [`MemoryDisk::note`].
    pub(crate) noted: usize,
}

/// The disk; clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct MemoryDisk(Arc<Mutex<State>>);

struct MemoryFile {
    disk: MemoryDisk,
    file: usize,
}

impl MemoryDisk {
    /// Takes an image before every call from now on.
    pub(crate) fn take_images(&self) {
        self.0.lock().unwrap().images = Some(Vec::new());
    }

    /// The images taken.
    pub(crate) fn images(&self) -> Vec<Image> {
        self.0.lock().unwrap().images.take().unwrap_or_default()
    }

    /// What later images say was promised by then.
    pub(crate) fn note(&self, number: usize) {
        self.0.lock().unwrap().noted = number;
    }

    pub(crate) fn fail(&self, failure: Option<Failure>) {
        self.0.lock().unwrap().failure = failure;
    }

    /// The calls so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.0.lock().unwrap().calls.clone()
    }

    /// The bytes of a file, to damage them.
    pub(crate) fn edit(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.0.lock().unwrap();
        let file = state.names[name];
        edit(&mut state.files[file].now);
        state.files[file].durable = state.files[file].now.clone();
        state.files[file].changes.clear();
    }

    /// A copy of what a process that was killed leaves: the page cache is whole.
    pub(crate) fn copy(&self) -> Self {
        self.0.lock().unwrap().killed()
    }

    /// What a power cut may leave.
    pub(crate) fn after_power_cut(&self, random: &mut StdRng) -> Self {
        let mut random = StdRng::seed_from_u64(random.next_u64());
        self.0.lock().unwrap().reopened(|state| state.cut(&mut random))
    }
}

impl Image {
    /// What a power cut at this moment may leave.
    pub(crate) fn after_power_cut(&self, random: &mut StdRng) -> MemoryDisk {
        self.state.reopened(|state| state.cut(random))
    }

    /// What is left where only the process ended.
    pub(crate) fn after_kill(&self) -> MemoryDisk {
        self.state.killed()
    }
}

impl State {
    fn reopened(
        &self,
        contents: impl FnOnce(&Self) -> (BTreeMap<String, usize>, Vec<Vec<u8>>),
    ) -> MemoryDisk {
        let (names, files) = contents(self);
        let files = files
            .into_iter()
            .map(|bytes| FileState { now: bytes.clone(), durable: bytes, changes: Vec::new() })
            .collect();
        let state = Self { files, durable_names: names.clone(), names, ..Self::default() };
        MemoryDisk(Arc::new(Mutex::new(state)))
    }

    /// The page cache is whole, and what of it is not on the disk still is not.
    fn killed(&self) -> MemoryDisk {
        let state = Self { calls: Vec::new(), failure: None, images: None, ..self.clone() };
        MemoryDisk(Arc::new(Mutex::new(state)))
    }

    fn cut(&self, random: &mut StdRng) -> (BTreeMap<String, usize>, Vec<Vec<u8>>) {
        let mut names = self.durable_names.clone();
        for change in &self.name_changes {
            if random.random_bool(0.5) {
                continue;
            }
            match change {
                NameChange::Set(name, file) => drop(names.insert(name.clone(), *file)),
                NameChange::Remove(name) => drop(names.remove(name)),
                NameChange::Rename { from, to, file } => {
                    names.remove(from);
                    names.insert(to.clone(), *file);
                }
            }
        }
        (names, self.files.iter().map(|file| file.cut(random)).collect())
    }

    fn call(&mut self, call: Call) -> io::Result<()> {
        if let Some(mut images) = self.images.take() {
            let mut state = Box::new(self.clone());
            state.calls.clear();
            images.push(Image { state, noted: self.noted });
            self.images = Some(images);
        }
        let number = self.calls.len();
        self.calls.push(call);
        match self.failure {
            Some(failure) if failure.hits(number, call) => Err(failure.kind.into()),
            _ => Ok(()),
        }
    }
}

impl FileState {
    fn change(&mut self, change: Change) {
        apply(&mut self.now, &change);
        self.changes.push(change);
    }

    fn cut(&self, random: &mut StdRng) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let keep = [0.0, 0.5, 0.9, 1.0][random.random_range(0..4)];
        for change in &self.changes {
            match change {
                Change::Write { at, bytes: written } => {
                    for (sector_at, sector) in sectors(*at, written) {
                        if random.random_bool(keep) {
                            apply(
                                &mut bytes,
                                &Change::Write { at: sector_at, bytes: sector.to_vec() },
                            );
                        }
                    }
                }
                Change::SetLen(_) if random.random_bool(keep) => apply(&mut bytes, change),
                Change::SetLen(_) => {}
            }
        }
        bytes
    }
}

/// Cuts a write where sectors end.
fn sectors(mut at: usize, mut bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let mut sectors = Vec::new();
    while !bytes.is_empty() {
        let (sector, rest) = bytes.split_at((SECTOR_BYTES - at % SECTOR_BYTES).min(bytes.len()));
        sectors.push((at, sector));
        at += sector.len();
        bytes = rest;
    }
    sectors
}

fn apply(contents: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { at, bytes } => {
            let end = at + bytes.len();
            if contents.len() < end {
                contents.resize(end, 0);
            }
            contents[*at..end].copy_from_slice(bytes);
        }
        Change::SetLen(len) => contents.resize(*len, 0),
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = *self.0.lock().unwrap().names.get(name).ok_or_else(not_found)?;
        Ok(Arc::new(MemoryFile { disk: self.clone(), file }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.0.lock().unwrap();
        state.call(Call::Create)?;
        let file = state.files.len();
        state.files.push(FileState::default());
        state.names.insert(name.to_owned(), file);
        state.name_changes.push(NameChange::Set(name.to_owned(), file));
        Ok(Arc::new(MemoryFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.call(Call::Rename)?;
        let file = state.names.remove(from).ok_or_else(not_found)?;
        state.names.insert(to.to_owned(), file);
        let (from, to) = (from.to_owned(), to.to_owned());
        state.name_changes.push(NameChange::Rename { from, to, file });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        if !state.names.contains_key(name) {
            return Err(not_found());
        }
        state.call(Call::Remove)?;
        state.names.remove(name);
        state.name_changes.push(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.call(Call::SyncDir)?;
        state.durable_names = state.names.clone();
        state.name_changes.clear();
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("memory").join(name)
    }

    fn release(&self) {}
}

impl MemoryFile {
    fn change(&self, call: Call, change: Change) -> io::Result<()> {
        let mut state = self.disk.0.lock().unwrap();
        let failed = state.call(call);
        let file = &mut state.files[self.file];
        match (failed, change) {
            (Ok(()), change) => {
                file.change(change);
                Ok(())
            }
            // A write that fails may have written a part.
            (Err(error), Change::Write { at, mut bytes }) => {
                bytes.truncate(bytes.len() / 2);
                file.change(Change::Write { at, bytes });
                Err(error)
            }
            (Err(error), Change::SetLen(_)) => Err(error),
        }
    }
}

impl File for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().unwrap().files[self.file].now.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let state = self.disk.0.lock().unwrap();
        let at = usize::try_from(at).unwrap();
        let bytes = state.files[self.file].now.get(at..at + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn read_cached_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(buffer, at)
    }

    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let at = usize::try_from(at).unwrap();
        self.change(Call::Write, Change::Write { at, bytes: bytes.to_vec() })
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock().unwrap();
        let synced = state.call(Call::Sync);
        let file = &mut state.files[self.file];
        let changes = std::mem::take(&mut file.changes);
        if synced.is_ok() {
            // Only what is dirty: a failed sync has dropped its pages, and the page cache shows what the disk will
            // never have until it is written again.
            for change in changes {
                apply(&mut file.durable, &change);
            }
        }
        synced
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Call::SetLen, Change::SetLen(usize::try_from(len).unwrap()))
    }

    fn reserve(&self, _: u64, to: u64) -> io::Result<()> {
        self.change(Call::Reserve, Change::SetLen(usize::try_from(to).unwrap()))
    }
}

//! What a power cut leaves of the files in a folder. POSIX promises only what was synced: of anything else
//! each change may be lost, in any order; what was written may be torn, or be zeros.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Noise;

/// What is lost of what was not synced.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    Everything,
    /// What was written; names are kept, so that there are empty files.
    Bytes,
    /// Names; what was written is kept.
    Names,
    /// Something else for each number.
    Some(u64),
}

/// The contents of each file, by its name.
pub type Files = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Default)]
struct Inode {
    bytes: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Clone)]
enum Naming {
    Set(String, usize),
    Remove(String),
    Rename(String, String, usize),
}

#[derive(Clone)]
pub struct Disk {
    folder: PathBuf,
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    synced: BTreeMap<String, usize>,
    since: Vec<Naming>,
    /// The folder and those above it, if their own names may be lost.
    new_folders: BTreeSet<PathBuf>,
}

impl Disk {
    /// Everything that is there now is synced.
    pub fn of(folder: &Path) -> Disk {
        let folder = folder.components().collect::<PathBuf>();
        let mut disk = Disk {
            inodes: vec![],
            names: BTreeMap::new(),
            synced: BTreeMap::new(),
            since: vec![],
            new_folders: folder.ancestors().filter(|path| !path.exists()).map(Path::to_path_buf).collect(),
            folder,
        };
        disk.begin(files(&disk.folder));
        disk
    }

    fn begin(&mut self, files: Files) {
        self.inodes =
            files.values().map(|bytes| Inode { bytes: bytes.clone(), synced: bytes.clone() }).collect();
        self.names = files.into_keys().zip(0..).collect();
        self.synced = self.names.clone();
        self.since.clear();
    }

    /// Makes the changes that the program has logged.
    pub fn apply(&mut self, log: &[String]) {
        for line in log {
            let words: Vec<&str> = line.split('\t').collect();
            self.change(&words);
        }
    }

    fn change(&mut self, words: &[&str]) {
        let name = |n: usize| Path::new(words[n]).file_name().unwrap().to_str().unwrap().to_string();
        match words[0] {
            "create" => match self.names.get(&name(1)) {
                Some(inode) => self.inodes[*inode].bytes.clear(),
                None => {
                    self.inodes.push(Inode::default());
                    self.set(name(1), self.inodes.len() - 1);
                }
            },
            "write" => {
                let bytes = words[2].as_bytes().chunks(2);
                let bytes =
                    bytes.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
                let inode = self.names[&name(1)];
                self.inodes[inode].bytes.extend(bytes);
            }
            "truncate" => {
                let inode = self.names[&name(1)];
                self.inodes[inode].bytes.truncate(words[2].parse().unwrap());
            }
            "fsync" => {
                let inode = &mut self.inodes[self.names[&name(1)]];
                inode.synced = inode.bytes.clone();
            }
            "rename" => {
                let inode = self.names.remove(&name(1)).unwrap();
                self.names.insert(name(2), inode);
                self.since.push(Naming::Rename(name(1), name(2), inode));
            }
            "link" if !self.names.contains_key(&name(2)) => self.set(name(2), self.names[&name(1)]),
            "unlink" if self.names.remove(&name(1)).is_some() => self.since.push(Naming::Remove(name(1))),
            "fsync of the folder" => {
                let synced = Path::new(words[1]);
                self.new_folders.retain(|folder| folder.parent() != Some(synced));
                if synced == self.folder {
                    self.synced = self.names.clone();
                    self.since.clear();
                }
            }
            // of a request or a command of zfs; and of folders, whose names are in `new_folders` already
            _ => {}
        }
    }

    fn set(&mut self, name: String, inode: usize) {
        self.names.insert(name.clone(), inode);
        self.since.push(Naming::Set(name, inode));
    }

    /// What is there if nothing is lost.
    pub fn files(&self) -> Files {
        self.names.iter().map(|(name, inode)| (name.clone(), self.inodes[*inode].bytes.clone())).collect()
    }

    /// The power fails. None: the folder itself is lost.
    pub fn cut(&mut self, loss: Loss) -> Option<Files> {
        let mut noise = Noise(match loss {
            Loss::Some(seed) => seed,
            _ => 0,
        });
        let loses_name = |noise: &mut Noise| match loss {
            Loss::Everything | Loss::Names => true,
            Loss::Bytes => false,
            Loss::Some(_) => noise.below(2) == 0,
        };
        let mut names = self.synced.clone();
        for naming in &self.since {
            match naming {
                _ if loses_name(&mut noise) => {}
                Naming::Set(name, inode) => {
                    names.insert(name.clone(), *inode);
                }
                Naming::Remove(name) => {
                    names.remove(name);
                }
                Naming::Rename(from, to, inode) => {
                    names.remove(from);
                    names.insert(to.clone(), *inode);
                }
            }
        }
        let mut bytes = |inode: &Inode| match loss {
            Loss::Everything | Loss::Bytes => inode.synced.clone(),
            Loss::Names => inode.bytes.clone(),
            Loss::Some(_) => torn(inode, &mut noise),
        };
        let files: Files =
            names.into_iter().map(|(name, inode)| (name, bytes(&self.inodes[inode]))).collect();
        let is_lost = !self.new_folders.is_empty() && loses_name(&mut noise);
        self.begin(if is_lost { Files::new() } else { files.clone() });
        (!is_lost).then_some(files)
    }
}

/// One of the states that a file may have.
fn torn(inode: &Inode, noise: &mut Noise) -> Vec<u8> {
    let Inode { bytes, synced } = inode;
    let same = bytes.iter().zip(synced).take_while(|(now, then)| now == then).count();
    let unsynced = bytes.len() - same;
    match noise.below(5) {
        0 => synced.clone(),
        1 => bytes.clone(),
        2 => bytes[..same + noise.below(unsynced + 1)].to_vec(),
        // its length is known already, and not what is in it
        3 => [&bytes[..same], &vec![0; unsynced]].concat(),
        _ => {
            let mut found = bytes.clone();
            for block in found[same..].chunks_mut(64) {
                if noise.below(2) == 0 {
                    block.fill(0);
                }
            }
            found
        }
    }
}

/// The files in a folder, without the lock, whose contents are only for people.
pub fn files(folder: &Path) -> Files {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap());
    let named =
        entries.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()));
    named.filter(|(name, _)| name != "lock").collect()
}

/// Makes a folder have these files, or be lost.
pub fn put(folder: &Path, left: Option<&Files>) {
    let _ = std::fs::remove_dir_all(folder);
    if let Some(left) = left {
        std::fs::create_dir_all(folder).unwrap();
        for (name, bytes) in left {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }
}

#[test]
fn what_is_not_synced_may_be_lost() {
    let folder = std::env::temp_dir().join(format!("zfs2s3-test-disk-{}", std::process::id()));
    put(&folder, Some(&Files::from([("a".to_string(), b"old".to_vec())])));
    let lines = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.replace(' ', "\t").replace("_", &folder.display().to_string())).collect()
    };
    let replaced = "create _/t\nwrite _/t 6e6577\nrename _/t _/a";
    let after = |log: &str, loss: Loss| {
        let mut disk = Disk::of(&folder);
        disk.apply(&lines(log));
        assert_eq!(disk.files(), Files::from([("a".to_string(), b"new".to_vec())]));
        disk.cut(loss).unwrap()
    };
    let a = |bytes: &[u8]| Files::from([("a".to_string(), bytes.to_vec())]);
    assert_eq!(after(replaced, Loss::Everything), a(b"old"));
    assert_eq!(after(replaced, Loss::Bytes), a(b""));
    assert_eq!(after(replaced, Loss::Names), a(b"old"));
    let synced = "create _/t\nwrite _/t 6e6577\nfsync _/t\nrename _/t _/a";
    let all: BTreeSet<Files> = (0..200).map(|seed| after(synced, Loss::Some(seed))).collect();
    let t = |bytes: &[u8]| ("t".to_string(), bytes.to_vec());
    let both: Files = a(b"old").into_iter().chain([t(b"new")]).collect();
    assert_eq!(all, BTreeSet::from([a(b"old"), a(b"new"), both]));
    let mut disk = Disk::of(&folder);
    disk.apply(&lines(synced));
    disk.apply(&[format!("fsync of the folder\t{}", folder.display())]);
    assert_eq!(disk.cut(Loss::Everything).unwrap(), a(b"new"));
    std::fs::remove_dir_all(&folder).unwrap();
}

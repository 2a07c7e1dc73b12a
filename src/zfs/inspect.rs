//! What is on this host, for commands that choose or check: snapshots, bookmarks, datasets and holds; for the
//! doctor also the version, who runs zfs, and what that user may do.

use std::collections::HashSet;
use std::time::Duration;

use super::Zfs;
use crate::error::Result;
use crate::model::names::Guid;
use crate::os::process;

/// A snapshot or bookmark.
#[derive(Debug, PartialEq)]
pub struct PointInfo {
    pub name: String,
    pub guid: Guid,
    /// The transaction group that created it: older ones have smaller numbers.
    pub createtxg: u64,
    /// How many holds it has.
    pub holds: u64,
}

/// A file system or volume.
pub struct DatasetInfo {
    pub name: String,
    pub is_encrypted: bool,
}

/// The user that zfs runs as.
#[derive(Debug, PartialEq)]
pub struct User {
    pub name: String,
    pub groups: Vec<String>,
    pub is_root: bool,
}

/// `id` may be on another host.
const ID_LIMIT: Duration = Duration::from_secs(30);
/// Snapshots whose holds are asked for at once.
const AT_ONCE: usize = 100;

impl Zfs {
    /// The lines of `zfs version`. None: it is older than OpenZFS 0.8, which has no such command.
    pub fn version(&self) -> Result<Option<String>> {
        match self.run(&["version"]) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.message.contains("unrecognized command") => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub fn all_points(&self) -> Result<Vec<PointInfo>> {
        self.points(&[])
    }

    /// Those of one dataset, without its children.
    pub fn points_of(&self, dataset: &str) -> Result<Vec<PointInfo>> {
        self.points(&["-d", "1", dataset])
    }

    fn points(&self, which: &[&str]) -> Result<Vec<PointInfo>> {
        let all = ["list", "-Hp", "-t", "snapshot,bookmark", "-o", "name,guid,createtxg,userrefs"];
        let text = self.run(&[&all, which].concat())?;
        let point = |line: &str| {
            let mut fields = line.split('\t');
            let (name, guid) = (fields.next()?.to_string(), fields.next()?.trim().parse().ok()?);
            let createtxg = fields.next()?.trim().parse().ok()?;
            // a bookmark has none
            Some(PointInfo { name, guid, createtxg, holds: fields.next()?.trim().parse().unwrap_or(0) })
        };
        Ok(text.lines().filter_map(point).collect())
    }

    pub fn all_datasets(&self) -> Result<Vec<DatasetInfo>> {
        let list = |columns| self.run(&["list", "-Hp", "-t", "filesystem,volume", "-o", columns]);
        let text = match list("name,encryption") {
            // OpenZFS before 0.8 has no encryption
            Err(e) if e.message.contains("bad property") || e.message.contains("invalid property") => {
                list("name")?
            }
            text => text?,
        };
        let dataset = |line: &str| {
            let (name, encryption) = line.split_once('\t').unwrap_or((line, "off"));
            let is_encrypted = !matches!(encryption.trim(), "off" | "-");
            DatasetInfo { name: name.to_string(), is_encrypted }
        };
        Ok(text.lines().map(dataset).collect())
    }

    /// The dataset and its descendants, parents first, with the value of the user property `zfs2s3:upload`,
    /// which children inherit.
    pub fn tree(&self, dataset: &str) -> Result<Vec<(String, String)>> {
        let columns = "name,zfs2s3:upload";
        let text = self.run(&["list", "-Hp", "-r", "-t", "filesystem,volume", "-o", columns, dataset])?;
        let pair = |line: &str| {
            let (name, value) = line.split_once('\t')?;
            Some((name.to_string(), value.trim().to_string()))
        };
        Ok(text.lines().filter_map(pair).collect())
    }

    /// The same, without those that the user has excluded.
    pub fn tree_to_upload(&self, dataset: &str) -> Result<Vec<String>> {
        let tree = self.tree(dataset)?;
        Ok(tree.into_iter().filter(|(_, upload)| upload != "off").map(|(name, _)| name).collect())
    }

    /// The datasets among `dataset` and its descendants that have a snapshot of this name.
    pub fn with_snapshot(&self, dataset: &str, name: &str) -> Result<HashSet<String>> {
        let text = self.run(&["list", "-Hp", "-r", "-t", "snapshot", "-o", "name", dataset])?;
        let of = |line: &str| {
            line.split_once('@').filter(|(_, found)| *found == name).map(|(of, _)| of.to_string())
        };
        Ok(text.lines().filter_map(of).collect())
    }

    /// The holds of these snapshots: tag and snapshot. One that is destroyed meanwhile has none.
    pub fn holds(&self, snapshots: &[&str]) -> Result<Vec<(String, String)>> {
        let of = |some: &[&str]| match self.run(&[&["holds", "-H"], some].concat()) {
            Err(error) if error.message.contains("does not exist") => Ok(None),
            said => said.map(Some),
        };
        let mut text = String::new();
        for some in snapshots.chunks(AT_ONCE) {
            match of(some)? {
                Some(said) => text.push_str(&said),
                None => {
                    for one in some {
                        text.push_str(&of(&[one])?.unwrap_or_default());
                    }
                }
            }
        }
        let hold = |line: &str| {
            let mut fields = line.split('\t');
            let (snapshot, tag) = (fields.next()?, fields.next()?);
            Some((tag.to_string(), snapshot.to_string()))
        };
        Ok(text.lines().filter_map(hold).collect())
    }

    /// The output of `zfs allow`: who may do what with a dataset.
    pub fn allowed(&self, dataset: &str) -> Result<String> {
        self.run(&["allow", dataset])
    }

    /// The user that zfs runs as, on whichever host: `id` in the place of `zfs`. The error is why that is
    /// unknown.
    pub fn user(&self) -> Result<User, String> {
        let name = |word: &str| word.rsplit('/').next().unwrap_or_default().to_string();
        let is_changed = |word: &String| matches!(name(word).as_str(), "sudo" | "doas");
        if let Some(at) = self.words.iter().position(is_changed) {
            // it may not permit `id`, and ask for a password
            let mut options = self.words[at + 1..].iter();
            if options.any(|word| word.starts_with("-u") || word.starts_with("--user")) {
                return Err(format!("'{}' changes it", self.words.join(" ")));
            }
            return Ok(User { name: "root".to_string(), groups: Vec::new(), is_root: true });
        }
        let Some((_, before)) = self.words.split_last().filter(|(last, _)| is_zfs_itself(last)) else {
            return Err(format!("'{}' is another program", self.words.join(" ")));
        };
        let mut words = before.to_vec();
        words.push("id".to_string());
        let zfs = Zfs::new(words);
        let output = process::run(&mut zfs.command(&[]), Some(ID_LIMIT)).map_err(|e| format!("'id': {e}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        parse_id(&text).ok_or_else(|| format!("'id' failed ({})", output.status))
    }
}

/// A script that is called so may do anything, but not where programs are installed.
fn is_zfs_itself(word: &str) -> bool {
    match word.rsplit_once('/') {
        None => word == "zfs",
        Some((folder, name)) => name == "zfs" && (folder.ends_with("/bin") || folder.ends_with("/sbin")),
    }
}

/// `uid=1000(backup) gid=1000(backup) groups=1000(backup),4(adm)`.
fn parse_id(text: &str) -> Option<User> {
    let names = |text: &str| -> Vec<String> {
        let names = text.split(',').filter_map(|item| item.split_once('(')?.1.split(')').next());
        names.map(str::to_string).collect()
    };
    let uid = text.strip_prefix("uid=")?.split(" gid=").next()?;
    let number = uid.split('(').next()?.trim();
    let name = names(uid).pop().unwrap_or_else(|| number.to_string());
    // names may have spaces; a security context may follow
    let groups = text.split_once(" groups=").map_or("", |(_, groups)| groups);
    let groups = names(groups.split(" context=").next().unwrap_or_default());
    Some(User { name, groups, is_root: number == "0" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sudo_is_not_asked_and_a_script_is_not_believed() {
        let user = |words: &str| Zfs::new(words.split(' ').map(str::to_string).collect()).user();
        assert!(user("sudo zfs").unwrap().is_root && user("ssh nas sudo -n /sbin/zfs").unwrap().is_root);
        assert!(user("doas -u backup zfs").is_err() && user("sudo --user=backup zfs").is_err());
        assert!(user("/root/zfs").is_err() && user("wrapper").is_err());
    }

    #[test]
    fn users_as_id_prints_them() {
        let user = |text| parse_id(text).map(|user| (user.name, user.groups.join(" "), user.is_root));
        assert_eq!(
            user("uid=1000(backup) gid=1000(backup) groups=1000(backup),4(adm)\n"),
            Some(("backup".to_string(), "backup adm".to_string(), false))
        );
        assert_eq!(user("uid=0(root) gid=0(root)"), Some(("root".to_string(), String::new(), true)));
        let domain =
            "uid=7(a b) gid=8(domain users) groups=8(domain users),9(c) context=u:r:t:s0-s0:c0.c1023\n";
        assert_eq!(user(domain), Some(("a b".to_string(), "domain users c".to_string(), false)));
        assert_eq!(user("uid=4711 gid=1"), Some(("4711".to_string(), String::new(), false)));
        assert_eq!(user("nobody here"), None);
    }
}

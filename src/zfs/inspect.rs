//! What the doctor asks of zfs: its version, what is there, who runs it, and what that user may do.

use super::Zfs;
use crate::error::{Error, Result};
use crate::model::names::Guid;

/// A snapshot or bookmark.
pub struct PointInfo {
    pub name: String,
    pub guid: Guid,
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
        let text = self.run(&["list", "-Hp", "-t", "snapshot,bookmark", "-o", "name,guid,userrefs"])?;
        let point = |line: &str| {
            let mut fields = line.split('\t');
            let (name, guid) = (fields.next()?.to_string(), fields.next()?.trim().parse().ok()?);
            Some(PointInfo { name, guid, holds: fields.next()?.trim().parse().unwrap_or(0) })
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

    /// The holds of these snapshots: tag and snapshot.
    pub fn holds(&self, snapshots: &[&str]) -> Result<Vec<(String, String)>> {
        let mut found = Vec::new();
        for some in snapshots.chunks(AT_ONCE) {
            let text = self.run(&[&["holds", "-H"], some].concat())?;
            found.extend(text.lines().filter_map(|line| {
                let mut fields = line.split('\t');
                let (snapshot, tag) = (fields.next()?, fields.next()?);
                Some((tag.to_string(), snapshot.to_string()))
            }));
        }
        Ok(found)
    }

    /// The output of `zfs allow`: who may do what with a dataset.
    pub fn allowed(&self, dataset: &str) -> Result<String> {
        self.run(&["allow", dataset])
    }

    /// The user that zfs runs as, on whichever host: `id` in the place of `zfs`.
    pub fn user(&self) -> Result<User> {
        let unknown = || Error::failed(format!("'{}' does not end in zfs", self.words.join(" ")));
        let (last, before) = self.words.split_last().ok_or_else(unknown)?;
        if last.rsplit('/').next() != Some("zfs") {
            return Err(unknown());
        }
        let mut words = before.to_vec();
        words.push("id".to_string());
        let text = Zfs::new(words).run(&[])?;
        parse_id(&text)
            .ok_or_else(|| Error::failed(format!("the output of 'id' is invalid: {}", text.trim())))
    }
}

/// `uid=1000(backup) gid=1000(backup) groups=1000(backup),4(adm)`.
fn parse_id(text: &str) -> Option<User> {
    let names = |text: &str| -> Vec<String> {
        let names = text.split(',').filter_map(|item| item.split_once('(')?.1.split(')').next());
        names.map(str::to_string).collect()
    };
    let field = |name: &str| text.split_whitespace().find_map(|field| field.strip_prefix(name));
    let uid = field("uid=")?;
    let number = uid.split('(').next()?;
    let name = names(uid).pop().unwrap_or_else(|| number.to_string());
    Some(User { name, groups: field("groups=").map(names).unwrap_or_default(), is_root: number == "0" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_as_id_prints_them() {
        let user = |text| parse_id(text).map(|user| (user.name, user.groups.join(" "), user.is_root));
        assert_eq!(
            user("uid=1000(backup) gid=1000(backup) groups=1000(backup),4(adm)\n"),
            Some(("backup".to_string(), "backup adm".to_string(), false))
        );
        assert_eq!(user("uid=0(root) gid=0(root)"), Some(("root".to_string(), String::new(), true)));
        assert_eq!(user("uid=4711 gid=1"), Some(("4711".to_string(), String::new(), false)));
        assert_eq!(user("nobody here"), None);
    }
}

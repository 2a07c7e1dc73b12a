//! The environment of the process.

use std::collections::HashMap;
use std::path::PathBuf;

/// The variables of the process, read once. An empty one counts as unset, as in AWS's own tools.
pub struct Env(HashMap<String, String>);

impl Env {
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Env(std::env::vars_os().filter_map(text).collect())
    }
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
    /// The value of the first one that is set.
    pub fn first(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.get(name))
    }
    /// A path that may begin with `~/`.
    pub fn expand_home(&self, path: &str) -> PathBuf {
        match (path.strip_prefix("~/"), self.get("HOME")) {
            (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
            _ => PathBuf::from(path),
        }
    }
}

#[cfg(test)]
impl Env {
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        Env(pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
    }
}

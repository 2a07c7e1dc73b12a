//! The two files of the AWS tools, ~/.aws/config and ~/.aws/credentials, as far as zfs2s3 reads them.
//! <https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-files.html>

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ini::{Ini, ParseOption};

use crate::error::{Error, Result};
use crate::os::env::Env;

/// The settings of the chosen profile in both files.
#[derive(Debug, Default)]
pub struct Profile {
    config: Settings,
    credentials: Settings,
    /// Of the section named by its `services`.
    services: Settings,
}

/// One section. A setting of a nested table is `table.setting`.
type Settings = HashMap<String, String>;

impl Profile {
    /// The profile named by AWS_PROFILE, or `default`. A missing file is not an error; a named profile in
    /// neither file is. An unreadable file is ignored if the environment has everything that is needed.
    pub fn load(env: &Env) -> Result<Self> {
        let name = env.get("AWS_PROFILE");
        let has_keys = env.get("AWS_ACCESS_KEY_ID").is_some() && env.get("AWS_SECRET_ACCESS_KEY").is_some();
        let has_place = env
            .first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"])
            .is_some();
        let is_needed = !(has_keys && has_place) || name.is_some();
        let config =
            File::read(&env.expand_home(env.get("AWS_CONFIG_FILE").unwrap_or("~/.aws/config")), is_needed)?;
        let credentials = File::read(
            &env.expand_home(env.get("AWS_SHARED_CREDENTIALS_FILE").unwrap_or("~/.aws/credentials")),
            is_needed,
        )?;
        // only in the config file, profiles other than the default one have the heading `[profile NAME]`
        let profile = name.unwrap_or("default");
        let in_config = match profile {
            "default" => config.section(&["default"])?.or(config.section(&["profile", "default"])?),
            name => config.section(&["profile", name])?,
        };
        let in_credentials = credentials.section(&[profile])?;
        if let (Some(name), None, None) = (name, &in_config, &in_credentials) {
            return Err(Error::usage(format!("AWS_PROFILE: neither AWS file has a profile '{name}'")));
        }
        let (found, credentials) = (in_config.unwrap_or_default(), in_credentials.unwrap_or_default());
        let services = match found.get("services") {
            Some(name) => config.section(&["services", name])?.ok_or_else(|| {
                Error::usage(format!(
                    "the AWS profile '{profile}' names the services '{name}', which the config file does not have"
                ))
            })?,
            None => Settings::new(),
        };
        Ok(Profile { config: found, credentials, services })
    }

    /// A setting for a service in the section that the profile's `services` names.
    pub fn service(&self, service: &str, key: &str) -> Option<&str> {
        self.services.get(&format!("{service}.{key}")).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A setting of the config file.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.config.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A setting of the credentials file, or else of the config file.
    pub fn secret(&self, key: &str) -> Option<&str> {
        self.credentials.get(key).map(String::as_str).filter(|value| !value.is_empty()).or(self.get(key))
    }
}

struct File {
    path: PathBuf,
    text: String,
}

impl File {
    fn read(path: &Path, is_needed: bool) -> Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => String::new(),
            Err(_) if !is_needed => String::new(),
            Err(e) => return Err(Error::failed(format!("cannot read {}: {e}", path.display()))),
        };
        Ok(File { path: path.to_path_buf(), text })
    }

    /// The section whose heading has these words.
    fn section(&self, words: &[&str]) -> Result<Option<Settings>> {
        parse_section(&self.text, words)
            .map_err(|why| Error::failed(format!("cannot read {}: {why}", self.path.display())))
    }
}

fn parse_section(text: &str, wanted: &[&str]) -> Result<Option<Settings>, String> {
    // values are literal: backslashes and quotes are part of a secret or a command
    let options = ParseOption { enabled_quote: false, enabled_escape: false, ..ParseOption::default() };
    // the parser's message quotes the line, which may be a secret
    let parsed = Ini::load_from_str_opt(&without_nesting(text), options)
        .map_err(|e| format!("line {}, column {} is invalid", e.line, e.col))?;
    let entries = |properties: &ini::Properties| {
        properties.iter().map(|(key, value)| (key.trim().to_lowercase(), value.trim().to_string())).collect()
    };
    let found = parsed.iter().find(|(head, _)| head.is_some_and(|head| words_of(head) == wanted));
    Ok(found.map(|(_, properties)| entries(properties)))
}

/// `[profile "my prod"]` has two words.
fn words_of(head: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = head.trim();
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            '"' | '\'' => rest[1..].split_once(first).unwrap_or((&rest[1..], "")),
            _ => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        words.push(word.to_string());
        rest = after.trim_start();
    }
    // older versions of the tools wrote a name with spaces without quotes
    if words.len() > 2 && !head.contains(['"', '\'']) {
        words = vec![words[0].clone(), words[1..].join(" ")];
    }
    words
}

/// A line that is indented more than the setting before it belongs to that setting, as a nested table:
/// `addressing_style` below `s3 =` becomes `s3.addressing_style`. The AWS tools read the file in this way,
/// with Python's configparser. Line numbers stay the same.
fn without_nesting(text: &str) -> String {
    let mut indent = None;
    let mut table: Option<String> = None;
    let mut flat = String::with_capacity(text.len());
    for line in text.lines() {
        let words = line.trim();
        let depth = line.len() - line.trim_start().len();
        if words.is_empty() || words.starts_with(['#', ';']) {
            // ignored
        } else if indent.is_some_and(|indent| depth > indent) {
            if let Some(table) = table.as_ref().filter(|_| words.contains('=')) {
                flat.push_str(&format!("{table}.{words}"));
            }
        } else if words.starts_with('[') {
            (indent, table) = (None, None);
            flat.push_str(words);
        } else {
            let (key, value) = words.split_once('=').unwrap_or((words, "-"));
            table = value.trim().is_empty().then(|| key.trim().to_string());
            indent = Some(depth);
            flat.push_str(words);
        }
        flat.push('\n');
    }
    flat
}

#[cfg(test)]
impl Profile {
    pub fn of_credentials(pairs: &[(&str, &str)]) -> Self {
        let credentials = pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        Profile { credentials, ..Profile::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "\
# a comment
[default]
region = eu-west-1
s3 =
    addressing_style = path
    endpoint_url = https://nested.example.org
[profile nas]
region=eu-central-1
endpoint_url = https://s3.example.org
credential_process = /opt/bin/get \"a b\" C:\\x
aws_secret_access_key = a+b/c==;d#e
";

    fn section(text: &str, words: &[&str]) -> Option<Settings> {
        parse_section(text, words).unwrap()
    }

    #[test]
    fn values_of_a_section_are_literal() {
        let nas = section(CONFIG, &["profile", "nas"]).unwrap();
        assert_eq!(nas["endpoint_url"], "https://s3.example.org");
        assert_eq!(nas["credential_process"], "/opt/bin/get \"a b\" C:\\x");
        assert_eq!(nas["aws_secret_access_key"], "a+b/c==;d#e");
        let default = section(CONFIG, &["default"]).unwrap();
        assert_eq!(default["region"], "eu-west-1");
        assert_eq!(default.get("endpoint_url"), None, "nested");
        assert_eq!(default["s3.addressing_style"], "path");
        assert_eq!(section(CONFIG, &["profile", "other"]), None);
    }

    #[test]
    fn settings_may_be_indented_and_tables_have_gaps() {
        let text = "[default]\n  region = a\n  s3 =\n\n# why\n    addressing_style = virtual\n  ca_bundle = c\n[profile x]\nregion = b\n";
        let default = section(text, &["default"]).unwrap();
        assert_eq!((default["region"].as_str(), default["ca_bundle"].as_str()), ("a", "c"));
        assert_eq!(default["s3.addressing_style"], "virtual");
        assert_eq!(section(text, &["profile", "x"]).unwrap()["region"], "b");
    }

    #[test]
    fn names_with_blanks() {
        let text = "[profile \"my prod\"]\nregion = a\n[ profile  'my test' ]\nregion = b\n[profile old one]\nregion = c\n";
        for (name, region) in [("my prod", "a"), ("my test", "b"), ("old one", "c")] {
            assert_eq!(section(text, &["profile", name]).unwrap()["region"], region);
        }
        assert_eq!(section("[my prod]\nregion = d\n", &["my prod"]), None);
        assert_eq!(section("[\"my prod\"]\nregion = d\n", &["my prod"]).unwrap()["region"], "d");
    }

    #[test]
    fn services_are_a_section_of_their_own() {
        let text = "[services local]\ns3 =\n  # here\n  endpoint_url = http://nas:9000\ndynamodb =\n  endpoint_url = http://nas:8000\n";
        let services = section(text, &["services", "local"]).unwrap();
        assert_eq!(services["s3.endpoint_url"], "http://nas:9000");
        assert_eq!(services["dynamodb.endpoint_url"], "http://nas:8000");
    }

    #[test]
    fn a_damaged_file_is_reported_without_its_contents() {
        let error = parse_section("[default]\nsecretsecret\n", &["default"]).unwrap_err();
        assert!(error.contains("line") && !error.contains("secret"), "{error}");
    }
}

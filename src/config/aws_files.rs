//! AWS's own two files, ~/.aws/config and ~/.aws/credentials, as far as zfs2s3 reads them.
//! <https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-files.html>

use std::collections::HashMap;
use std::path::Path;

use ini::{Ini, ParseOption};

use super::{Env, expand_home};
use crate::error::{Error, Result};

/// What the two files say of the chosen profile.
#[derive(Debug, Default)]
pub struct Profile {
    config: HashMap<String, String>,
    credentials: HashMap<String, String>,
}

impl Profile {
    /// The profile that AWS_PROFILE names, or `default`; and what the user should know of it. A missing file is
    /// fine, a named profile that neither file has is not.
    pub fn load(env: &Env) -> Result<(Self, Vec<String>)> {
        let name = env.get("AWS_PROFILE");
        let config = section(
            &expand_home(env, env.get("AWS_CONFIG_FILE").unwrap_or("~/.aws/config")),
            &config_section(name.unwrap_or("default")),
        )?;
        let credentials = section(
            &expand_home(env, env.get("AWS_SHARED_CREDENTIALS_FILE").unwrap_or("~/.aws/credentials")),
            name.unwrap_or("default"),
        )?;
        if let (Some(name), None, None) = (name, &config, &credentials) {
            return Err(Error::usage(format!("AWS_PROFILE: neither AWS file has a profile '{name}'")));
        }
        let profile =
            Profile { config: config.unwrap_or_default(), credentials: credentials.unwrap_or_default() };
        let mut warnings = Vec::new();
        if profile.get("services").is_some() {
            warnings.push(
                "the profile's 'services' is not read here; set AWS_ENDPOINT_URL_S3 if it names an endpoint"
                    .to_string(),
            );
        }
        Ok((profile, warnings))
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

/// In the config file alone, other profiles than the default one are headed `[profile NAME]`.
fn config_section(profile: &str) -> String {
    match profile {
        "default" => "default".to_string(),
        name => format!("profile {name}"),
    }
}

fn section(path: &Path, name: &str) -> Result<Option<HashMap<String, String>>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::failed(format!("cannot read {}: {e}", path.display()))),
    };
    parse_section(&text, name).map_err(|why| Error::failed(format!("cannot read {}: {why}", path.display())))
}

fn parse_section(text: &str, name: &str) -> std::result::Result<Option<HashMap<String, String>>, String> {
    // a value is taken to the letter: backslashes and quotes are part of a secret or a command
    let options = ParseOption { enabled_quote: false, enabled_escape: false, ..ParseOption::default() };
    // lines that are indented belong to a nested table (`s3 =`), which is not read
    let top: String =
        text.lines().filter(|line| !line.starts_with([' ', '\t'])).flat_map(|line| [line, "\n"]).collect();
    // the parser's message quotes the line, which may be a secret
    let parsed = Ini::load_from_str_opt(&top, options)
        .map_err(|e| format!("line {}, column {} is not as it should be", e.line, e.col))?;
    let entries = |properties: &ini::Properties| {
        properties.iter().map(|(key, value)| (key.trim().to_lowercase(), value.trim().to_string())).collect()
    };
    let wanted = name.split_whitespace();
    let found =
        parsed.iter().find(|(head, _)| head.is_some_and(|head| head.split_whitespace().eq(wanted.clone())));
    Ok(found.map(|(_, properties)| entries(properties)))
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

    #[test]
    fn one_section_and_its_values_to_the_letter() {
        let nas = parse_section(CONFIG, "profile nas").unwrap().unwrap();
        assert_eq!(nas["endpoint_url"], "https://s3.example.org");
        assert_eq!(nas["credential_process"], "/opt/bin/get \"a b\" C:\\x");
        assert_eq!(nas["aws_secret_access_key"], "a+b/c==;d#e");
        let default = parse_section(CONFIG, "default").unwrap().unwrap();
        assert_eq!(default["region"], "eu-west-1");
        assert_eq!(default.get("endpoint_url"), None, "nested");
        assert_eq!(parse_section(CONFIG, "profile other"), Ok(None));
    }

    #[test]
    fn a_damaged_file_is_told_without_its_text() {
        let error = parse_section("[default]\nsecretsecret\n", "default").unwrap_err();
        assert!(error.contains("line") && !error.contains("secret"), "{error}");
    }
}

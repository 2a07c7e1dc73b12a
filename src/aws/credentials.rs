//! The sources of credentials. `renewal` fetches new ones before the old ones expire.
//!
//! In the order of the AWS tools: the variables; a web identity or an assumed role; a profile with keys; its
//! `credential_process`. Everything beyond that (SSO, assumed roles, instance roles) is left to `aws
//! configure export-credentials`, which its users have.
//! <https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-sourcing-external.html>

use std::fmt;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use super::profile::Profile;
use crate::error::{Error, Result};
use crate::model::utc::Utc;
use crate::os::env::Env;
use crate::os::process;
use crate::os::trace;

/// An access key, and when it expires. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub access_key: String,
    pub secret_key: String,
    pub session_token: Option<String>,
    pub expires: Option<Utc>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials(expires: {:?})", self.expires)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum CredentialSource {
    Fixed(Credentials, Origin),
    /// A shell command from the config file that prints credentials as JSON.
    Process(String),
    AwsTool,
}

/// Where fixed credentials are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Variables,
    Profile,
}

/// A helper that takes longer is considered to hang.
pub const HELPER_LIMIT: Duration = Duration::from_secs(120);

/// Profile settings that only the AWS tools implement.
const AWS_TOOL_SETTINGS: &[&str] = &[
    "role_arn",
    "source_profile",
    "sso_session",
    "sso_start_url",
    "sso_account_id",
    "web_identity_token_file",
    "login_session",
];

impl CredentialSource {
    pub fn new(env: &Env, profile: &Profile) -> Self {
        if let (Some(access), Some(secret)) = (env.get("AWS_ACCESS_KEY_ID"), env.get("AWS_SECRET_ACCESS_KEY"))
        {
            let token = env.get("AWS_SESSION_TOKEN");
            return CredentialSource::fixed(access, secret, token, Origin::Variables);
        }
        // the identity of a pod or a CI job
        let is_web_identity =
            env.get("AWS_ROLE_ARN").is_some() && env.get("AWS_WEB_IDENTITY_TOKEN_FILE").is_some();
        if is_web_identity || AWS_TOOL_SETTINGS.iter().any(|key| profile.secret(key).is_some()) {
            return CredentialSource::AwsTool;
        }
        if let (Some(access), Some(secret)) =
            (profile.secret("aws_access_key_id"), profile.secret("aws_secret_access_key"))
        {
            let token = profile.secret("aws_session_token");
            return CredentialSource::fixed(access, secret, token, Origin::Profile);
        }
        match profile.secret("credential_process") {
            Some(command) => CredentialSource::Process(command.to_string()),
            None => CredentialSource::AwsTool,
        }
    }

    fn fixed(access: &str, secret: &str, token: Option<&str>, origin: Origin) -> Self {
        let credentials = Credentials {
            access_key: access.to_string(),
            secret_key: secret.to_string(),
            session_token: token.map(str::to_string),
            expires: None,
        };
        CredentialSource::Fixed(credentials, origin)
    }

    pub fn can_be_asked_again(&self) -> bool {
        !matches!(self, CredentialSource::Fixed(..))
    }

    /// Temporary credentials that cannot be renewed.
    pub fn will_expire(&self) -> bool {
        matches!(self, CredentialSource::Fixed(Credentials { session_token: Some(_), .. }, _))
    }

    /// Where they come from, in words.
    pub fn describe(&self) -> &'static str {
        match self {
            CredentialSource::Fixed(_, Origin::Variables) => "from AWS_ACCESS_KEY_ID",
            CredentialSource::Fixed(_, Origin::Profile) => "from the AWS profile",
            CredentialSource::Process(_) => "from the credential_process of the AWS profile",
            CredentialSource::AwsTool => "from 'aws configure export-credentials'",
        }
    }

    /// `limit`: how long a helper may take.
    pub fn fetch(&self, limit: Duration) -> Result<Credentials> {
        match self {
            CredentialSource::Fixed(credentials, _) => Ok(credentials.clone()),
            CredentialSource::Process(line) => {
                run(Command::new("/bin/sh").args(["-c", line]), "credential_process", limit)
                    .map_err(|why| Error::failed(format!("no credentials: {why}")))
            }
            CredentialSource::AwsTool => {
                let mut command = Command::new("aws");
                command.env("PATH", process::search_path());
                command.args(["configure", "export-credentials", "--format", "process"]);
                run(&mut command, "'aws configure export-credentials'", limit).map_err(|why| {
                    Error::failed(format!("no credentials: {why}")).hint(
                        "load your settings, or set AWS_PROFILE, or both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; \
                         if there is an AWS CLI, it must be version 2 for 'export-credentials'",
                    )
                })
            }
        }
    }
}

fn run(command: &mut Command, name: &str, limit: Duration) -> Result<Credentials, String> {
    // the line itself may have a secret
    trace::event(|| name.to_string());
    let output = process::run(command, Some(limit)).map_err(|e| match e.kind() {
        std::io::ErrorKind::TimedOut => format!("{name} hangs: {e}"),
        std::io::ErrorKind::NotFound if name.starts_with("'aws ") => {
            "neither the environment nor the AWS profile has an access key, and there is no AWS CLI, which SSO and roles need"
                .to_string()
        }
        _ => format!("{name} cannot be run: {e}"),
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name} failed ({}): {}", output.status, what_went_wrong(&said)));
    }
    parse(&output.stdout).map_err(|why| format!("{name} returned no credentials: {why}"))
}

/// The line with the error, or else the last one. An `aws` that does not know the command prints a table of
/// the commands that it knows.
fn what_went_wrong(said: &str) -> &str {
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    lines().find(|line| line.contains("error: ")).or(lines().next_back()).unwrap_or_default()
}

/// The output of a credential process. It is secret, so an error never quotes it.
fn parse(json: &[u8]) -> Result<Credentials, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Reply {
        version: u32,
        access_key_id: String,
        secret_access_key: String,
        session_token: Option<String>,
        expiration: Option<String>,
    }
    let reply: Reply = serde_json::from_slice(json)
        .map_err(|e| format!("line {}, column {} is not valid JSON for credentials", e.line(), e.column()))?;
    if reply.version != 1 {
        return Err(format!("its Version is {}, not 1", reply.version));
    }
    Ok(Credentials {
        access_key: reply.access_key_id,
        secret_key: reply.secret_access_key,
        session_token: reply.session_token.filter(|token| !token.is_empty()),
        expires: reply
            .expiration
            .map(|text| Utc::lenient(&text))
            .transpose()
            .map_err(|_| "its Expiration is not a time".to_string())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_come_first() {
        let env = Env::of(&[
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
            ("AWS_SESSION_TOKEN", "t"),
        ]);
        let CredentialSource::Fixed(credentials, _) = CredentialSource::new(&env, &Profile::default()) else {
            panic!()
        };
        assert_eq!((credentials.access_key.as_str(), credentials.session_token.as_deref()), ("a", Some("t")));
        let half = Env::of(&[("AWS_ACCESS_KEY_ID", "a")]);
        assert_eq!(CredentialSource::new(&half, &Profile::default()), CredentialSource::AwsTool);
        let credentials =
            Profile::of_credentials(&[("aws_access_key_id", "OLD"), ("aws_secret_access_key", "OLD")]);
        assert!(matches!(CredentialSource::new(&half, &credentials), CredentialSource::Fixed(..)));
        let web = Env::of(&[("AWS_ROLE_ARN", "arn:…"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token")]);
        assert_eq!(CredentialSource::new(&web, &credentials), CredentialSource::AwsTool, "not the old keys");
    }

    #[test]
    fn the_line_with_the_error_is_shown() {
        let old = "usage: aws [options] <command>\n\naws: error: argument subcommand: Invalid choice\n\nlist    | get\nset     | add-model\n";
        assert_eq!(what_went_wrong(old), "aws: error: argument subcommand: Invalid choice");
        assert_eq!(what_went_wrong("\nUnable to locate credentials\n"), "Unable to locate credentials");
        assert_eq!(what_went_wrong(""), "");
    }

    #[test]
    fn replies_of_a_credential_process() {
        let credentials = parse(
            br#"{"Version":1,"AccessKeyId":"a","SecretAccessKey":"s","SessionToken":"","Expiration":"2026-11-23T17:00:00+00:00"}"#,
        )
        .unwrap();
        assert_eq!(
            (credentials.session_token, credentials.expires.map(|t| t.to_string())),
            (None, Some("2026-11-23T17:00:00Z".into()))
        );
        let python = br#"{"Version":1,"AccessKeyId":"a","SecretAccessKey":"s","Expiration":"2026-11-23T18:00:00+0100"}"#;
        assert_eq!(
            parse(python).unwrap().expires.map(|t| t.to_string()),
            Some("2026-11-23T17:00:00Z".into())
        );
        for bad in [
            "",
            "{}",
            r#"{"Version":2,"AccessKeyId":"a","SecretAccessKey":"s3cret"}"#,
            "s3cret",
            r#"{"Version":1,"AccessKeyId":"s3cret"}"#,
        ] {
            let error = parse(bad.as_bytes()).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_shown_by_debug() {
        let source = CredentialSource::fixed("AKIA", "s3cret", Some("t0ken"), Origin::Variables);
        let shown = format!("{source:?}");
        assert!(!shown.contains("s3cret") && !shown.contains("t0ken") && !shown.contains("AKIA"), "{shown}");
    }
}

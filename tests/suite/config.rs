//! Credentials and settings, with the rules of the AWS tools.

use crate::support::{Host, PUT_DATA, key, sigv4};

fn without_keys() -> Host {
    with_helpers_only(Host::with_snapshots(1))
}

fn with_helpers_only(mut host: Host) -> Host {
    host.unset("AWS_ACCESS_KEY_ID");
    host.unset("AWS_SECRET_ACCESS_KEY");
    std::fs::create_dir_all(host.home().join(".aws")).unwrap();
    // only the aws command that a test puts there
    std::fs::create_dir_all(host.home().join("bin")).unwrap();
    let path = format!("{}:/usr/bin:/bin", host.home().join("bin").display());
    host.set("PATH", &path);
    host
}

fn keys_of_a_profile() -> String {
    format!("aws_access_key_id = {}\naws_secret_access_key={}\n", sigv4::ACCESS_KEY, sigv4::SECRET_KEY)
}

fn aws_file(host: &Host, name: &str, text: &str) {
    std::fs::write(host.home().join(".aws").join(name), text).unwrap();
}

fn script(host: &Host, name: &str, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = host.home().join("bin").join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_string()
}

fn reply(expiration: &str) -> String {
    format!(
        "cat <<'END'\n{{\"Version\": 1, \"AccessKeyId\": \"{}\", \"SecretAccessKey\": \"{}\", \"Expiration\": \"{expiration}\"}}\nEND\n",
        sigv4::ACCESS_KEY,
        sigv4::SECRET_KEY
    )
}

#[test]
fn wrong_keys_fail_with_a_hint_and_no_secret() {
    let mut host = Host::with_snapshots(1);
    host.set("AWS_SECRET_ACCESS_KEY", "wr0ngS3cret");
    let said = host.fails(1, "upload tank/a@1");
    assert!(
        said.contains("403 SignatureDoesNotMatch") && said.contains("hint: the secret key does not match"),
        "{said}"
    );
    assert!(!said.contains("wr0ngS3cret"), "{said}");
    host.set("AWS_ACCESS_KEY_ID", "AKIAUNKNOWN");
    let said = host.fails(1, "upload tank/a@1");
    assert!(said.contains("InvalidAccessKeyId") && said.contains("hint:"), "{said}");
    assert!(!host.data("upload_progress.yml").exists());
}

#[test]
fn profiles_of_awss_files() {
    let mut host = without_keys();
    let keys = keys_of_a_profile();
    aws_file(
        &host,
        "credentials",
        &format!("[default]\naws_access_key_id = x\naws_secret_access_key = y\n[nas]\n{keys}"),
    );
    aws_file(
        &host,
        "config",
        &format!("[profile nas]\nregion = us-east-1\nendpoint_url = {}\n", host.s3.url()),
    );
    host.unset("AWS_ENDPOINT_URL");
    host.unset("AWS_REGION");
    host.set("AWS_PROFILE", "nas");
    host.ok("upload tank/a@1");
    assert!(host.s3.state().has(&key("tank/a@1", 1, None)));
    host.set("AWS_PROFILE", "other");
    let said = host.fails(2, "remove tank/a@1");
    assert!(said.contains("neither AWS file has a profile 'other'"), "{said}");
}

/// The helper of `failing_helper`, without its failure: it counts how often it is run.
fn counting_helper(lifetime: &str) -> Host {
    counting(without_keys(), lifetime)
}

fn counting(host: Host, lifetime: &str) -> Host {
    let good = reply("$end").replace("'END'", "END");
    let text = format!("echo x >> \"$HOME/asked\"\nend=$(date -u -d '{lifetime}' +%FT%T+0000)\n{good}");
    let command = script(&host, "keys", &text);
    aws_file(&host, "config", &format!("[default]\ncredential_process = {command} \"with words\"\n"));
    host
}

fn asked(host: &Host) -> usize {
    std::fs::read_to_string(host.home().join("asked")).unwrap().lines().count()
}

#[test]
fn a_credential_process_is_not_run_for_each_request() {
    // both within the time in which new ones are fetched
    for lifetime in ["4 minutes", "250 seconds"] {
        let host = counting_helper(lifetime);
        host.ok("upload tank/a@1");
        assert_eq!(asked(&host), 1, "{lifetime}");
    }
}

/// And one connection: they share the client.
#[test]
fn all_datasets_of_a_tree_use_the_same_credentials() {
    let host = counting(with_helpers_only(Host::with_tree()), "1 hour");
    host.ok("upload -ar tank@1");
    assert_eq!((host.listed().len(), asked(&host)), (4, 1));
}

#[test]
fn credentials_are_renewed_when_half_of_a_short_life_is_over() {
    let host = counting_helper("4 seconds");
    host.s3.fault(PUT_DATA, 0, 1, crate::support::Fault::Delay(std::time::Duration::from_millis(2600)));
    host.ok("upload tank/a@1");
    assert_eq!(asked(&host), 2);
    host.assert_clean();
}

#[test]
fn credentials_that_have_expired_when_they_come_are_an_error() {
    let host = counting_helper("1 hour ago");
    let said = host.fails(1, "upload tank/a@1");
    assert!(said.contains("no credentials: the new ones expired at "), "{said}");
    assert!(host.s3.state().log.is_empty());
}

#[test]
fn credentials_that_expire_during_an_upload_are_renewed() {
    let host = without_keys();
    let command =
        script(&host, "keys", &format!("echo x >> \"$HOME/asked\"\n{}", reply("2999-01-01T00:00:00Z")));
    aws_file(&host, "config", &format!("[default]\ncredential_process = {command}\n"));
    host.s3.fault(PUT_DATA, 0, 1, crate::support::Fault::Status(400, "ExpiredToken"));
    host.ok("upload tank/a@1");
    assert_eq!(std::fs::read_to_string(host.home().join("asked")).unwrap().lines().count(), 2);
    host.assert_clean();
}

#[test]
fn other_credentials_come_from_the_aws_tool() {
    let host = without_keys();
    aws_file(&host, "config", "[default]\nsso_session = corp\nregion = us-east-1\n");
    let said = host.fails(1, "upload tank/a@1");
    assert!(
        said.contains("no credentials: neither the environment nor the AWS profile has an access key"),
        "{said}"
    );
    assert!(
        said.contains("hint: load your settings, or set AWS_PROFILE, or both AWS_ACCESS_KEY_ID"),
        "{said}"
    );
    let check = "[ \"$*\" = 'configure export-credentials --format process' ] || exit 9\n";
    script(&host, "aws", &format!("{check}{}", reply("2999-01-01T00:00:00Z")));
    host.ok("upload tank/a@1");
    script(&host, "aws", "echo 'Error loading SSO Token: Token for corp does not exist' >&2; exit 255\n");
    let said = host.fails(1, "remove tank/a@1");
    assert!(said.contains("Error loading SSO Token"), "{said}");
    script(&host, "aws", "echo '{\"SecretAccessKey\": \"s3cret\"'\n");
    let said = host.fails(1, "remove tank/a@1");
    assert!(said.contains("returned no credentials") && !said.contains("s3cret"), "{said}");
}

#[test]
fn wrong_settings_are_usage_errors_before_anything_is_done() {
    for (name, value) in [
        ("ZFS2S3_CHUNK_SIZE", "huge"),
        ("ZFS2S3_JOBS", "0"),
        ("ZFS2S3_BWLIMIT", "fast"),
        ("ZFS2S3_PREFIX", "/x"),
        ("ZFS2S3_BUCKET", "a/b"),
        ("AWS_ENDPOINT_URL", "ftp://x"),
        ("AWS_REGION", "eu west"),
        ("AWS_CA_BUNDLE", "/nowhere.pem"),
    ] {
        let mut host = Host::with_snapshots(1);
        host.set(name, value);
        let said = host.fails(2, "upload tank/a@1");
        assert!(said.starts_with(&format!("zfs2s3: error: {name}: ")), "{said}");
        assert!(host.s3.state().log.is_empty());
        assert!(!host.data("upload_progress.yml").exists());
    }
}

#[test]
fn a_zfs_that_cannot_be_run() {
    let mut host = Host::with_snapshots(1);
    host.set("ZFS2S3_ZFS", "/no/such/zfs");
    let said = host.fails(1, "upload tank/a@1");
    assert!(said.contains("cannot run '/no/such/zfs'") && said.contains("hint: set ZFS2S3_ZFS"), "{said}");
    // several words
    let zfs = concat!("env LC_ALL=C ", env!("CARGO_MANIFEST_DIR"), "/tests/suite/support/zfs");
    host.set("ZFS2S3_ZFS", zfs);
    host.ok("upload tank/a@1");
}

#[test]
fn a_bandwidth_limit_is_kept() {
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_BWLIMIT", "1M");
    let begun = std::time::Instant::now();
    host.ok("upload tank/src@s1");
    let seconds = begun.elapsed().as_secs_f64();
    assert!(seconds > 1.0, "1.08 MiB at 1 MiB/s in {seconds} s");
    host.assert_clean();
}

#[test]
fn a_credential_helper_that_hangs_is_ended() {
    let mut host = without_keys();
    host.set("ZFS2S3_TEST_HELPER_MS", "300");
    aws_file(&host, "config", "[default]\ncredential_process = exec sleep 60\n");
    let begun = std::time::Instant::now();
    let said = host.fails(1, "upload tank/a@1");
    assert!(said.contains("credential_process hangs: it did not exit within"), "{said}");
    assert!(begun.elapsed().as_secs() < 30);
}

/// Its first credentials are valid for so many seconds; then it fails.
fn failing_helper(seconds: u32) -> Host {
    let mut host = Host::with_real_streams();
    host.unset("AWS_ACCESS_KEY_ID");
    host.unset("AWS_SECRET_ACCESS_KEY");
    for folder in [".aws", "bin"] {
        std::fs::create_dir_all(host.home().join(folder)).unwrap();
    }
    let once = format!(
        "[ ! -e \"$HOME/asked\" ] || {{ echo 'no network' >&2; exit 1; }}\ntouch \"$HOME/asked\"\nend=$(date -u -d '+{seconds} seconds' +%FT%TZ)\n"
    );
    let good = reply("$end").replace("'END'", "END");
    let command = script(&host, "keys", &(once + &good));
    aws_file(&host, "config", &format!("[default]\ncredential_process = {command}\n"));
    host
}

#[test]
fn a_helper_that_fails_while_the_credentials_are_valid_is_ignored() {
    // within the time in which new ones are fetched
    let host = failing_helper(200);
    host.ok("upload tank/src@s1");
    host.assert_clean();
}

#[test]
fn a_helper_that_fails_after_the_credentials_expired_is_retried() {
    let mut host = failing_helper(200);
    host.set("ZFS2S3_TEST_PATIENCE_MS", "1500");
    host.s3.fault("UploadPart", 3, 1000, crate::support::Fault::Status(400, "ExpiredToken"));
    let said = host.fails(75, "upload tank/src@s1");
    assert!(said.contains("no network") && said.contains("retrying in"), "{said}");
    host.s3.no_more_faults();
    std::fs::remove_file(host.home().join("asked")).unwrap();
    host.ok("resume_upload");
    host.assert_clean();
}

/// The reply to HEAD has no body that says so.
#[test]
fn credentials_that_have_expired_at_a_head_are_renewed() {
    let host = failing_helper(86400);
    host.ok("upload tank/src@s1");
    std::fs::remove_file(host.home().join("asked")).unwrap();
    host.s3.fault("HeadObject", 0, 1, crate::support::Fault::Status(400, "ExpiredToken"));
    host.s3.fault("GetObject", 1, 1, crate::support::Fault::Status(400, "ExpiredToken"));
    let command = host.home().join("bin/keys");
    let twice = std::fs::read_to_string(&command).unwrap().replace("[ ! -e \"$HOME/asked\" ]", "true");
    std::fs::write(&command, twice).unwrap();
    host.ok("restore tank/src@s1 tank/new");
}

#[test]
fn names_with_blanks_pass_through_the_shell_of_ssh_whatever_stands_before_it() {
    for words in ["ssh nas", "env A=b ssh nas", "/usr/bin/env ssh nas"] {
        let mut host = Host::new();
        std::fs::create_dir_all(host.home().join("bin")).unwrap();
        // as the real one: a shell gets the words after the host, separated by spaces
        script(&host, "ssh", "shift; exec sh -c \"$*\"\n");
        let path = format!("{}:{}", host.home().join("bin").display(), std::env::var("PATH").unwrap());
        host.set("PATH", &path);
        let zfs = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/support/zfs");
        host.set("ZFS2S3_ZFS", &format!("{words} {zfs}"));
        let name = "tank/a b@1 x";
        host.snapshot((name, 5), 1);
        host.add_stream(("", 5), None, &crate::support::made_stream(5, 0, 700));
        let mut command = host.command("upload");
        let output = command.arg(name).output().unwrap();
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
        host.assert_clean();
    }
}

#[test]
fn unreadable_files_are_ignored_if_the_environment_has_everything() {
    let mut host = Host::with_snapshots(1);
    std::fs::create_dir_all(host.home().join(".aws/config")).unwrap();
    std::fs::create_dir_all(host.home().join(".aws/credentials")).unwrap();
    host.ok("upload tank/a@1");
    host.unset("AWS_SECRET_ACCESS_KEY");
    let said = host.fails(1, "remove tank/a@1");
    assert!(said.contains("cannot read") && said.contains(".aws/config"), "{said}");
}

#[test]
fn profiles_with_blanks_and_services() {
    let mut host = without_keys();
    let keys = keys_of_a_profile();
    aws_file(
        &host,
        "config",
        &format!(
            "[profile \"my prod\"]\nregion = us-east-1\nservices = local\nendpoint_url = http://127.0.0.1:1\n{keys}\n[services local]\ns3 =\n  endpoint_url = {}\n",
            host.s3.url()
        ),
    );
    host.unset("AWS_ENDPOINT_URL");
    host.unset("AWS_REGION");
    host.set("AWS_PROFILE", "my prod");
    host.ok("upload tank/a@1");
}

#[test]
fn the_aws_tool_is_found_where_cron_does_not_look() {
    // the PATH of cron on some systems, and a folder that is always searched
    let mut host = without_keys();
    aws_file(&host, "config", "[default]\nsso_session = corp\nregion = us-east-1\n");
    script(&host, "aws", &reply("2999-01-01T00:00:00Z"));
    let bin = host.home().join("bin");
    host.set("PATH", &format!("/nowhere::{}", bin.display()));
    host.ok("upload tank/a@1");
}

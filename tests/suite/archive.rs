//! Archived backups: `thaw`, `restore` and `download` of what must be thawed first, and what `list` shows.

use std::collections::HashSet;
use std::process::Child;
use std::time::{Duration, Instant};

use crate::restore::{PLACE, RESUMED, interrupt, sha256};
use crate::support::{Fault, Host, S1, S2, key, made_stream, real, summed};

/// A chain of four: the first two in DEEP_ARCHIVE, the third in GLACIER, the last in STANDARD.
fn archived() -> Host {
    let mut host = Host::with_snapshots(4);
    for (n, class) in [(1, "DEEP_ARCHIVE"), (2, "DEEP_ARCHIVE"), (3, "GLACIER"), (4, "STANDARD")] {
        host.set("ZFS2S3_STORAGE_CLASS", class);
        let base = if n == 1 { String::new() } else { format!("-i @{} ", n - 1) };
        host.ok(&format!("upload {base}tank/a@{n}"));
    }
    host
}

fn received(host: &Host, target: &str) -> Vec<u8> {
    let name = format!("{}.received", target.replace('/', "%"));
    std::fs::read(host.home().join("zfs").join(name)).unwrap_or_default()
}

fn streams(chain: &[(u64, u64)]) -> Vec<u8> {
    chain.iter().flat_map(|(to, from)| made_stream(*to, *from, 700)).collect()
}

const ALL: [(u64, u64); 4] = [(1, 0), (2, 1), (3, 2), (4, 3)];

/// Runs until the program has asked to thaw `count` objects, and returns while it waits.
fn waiting(host: &Host, line: &str, count: usize) -> Child {
    let child = host.spawn(line);
    until(|| host.s3.state().thawed.len() == count);
    child
}

#[track_caller]
fn until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it takes too long");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn nothing_is_received_while_an_object_is_archived() {
    let host = archived();
    let ran = host.run("restore -n tank/a@4 tank/new");
    ran.expect(75);
    let deep = host.real_key(&key("tank/a@1", 1, None));
    assert!(
        ran.stdout.contains(&format!("    archived  DEEP_ARCHIVE  700 bytes  {deep}\n")),
        "{}",
        ran.stdout
    );
    assert_eq!(ran.stdout.matches("archived").count(), 3, "{}", ran.stdout);
    assert_eq!(
        ran.stderr,
        "zfs2s3: error: 3 objects (2.05K) are archived, and must be thawed first\n\
         zfs2s3: hint: 'zfs2s3 thaw tank/a@4 tank/new' makes it readable, which takes hours\n"
    );
    let said = host.fails(75, "restore tank/a@4 tank/new");
    assert!(said.contains("'zfs2s3 thaw tank/a@4 tank/new'") && said.contains("'restore -w'"), "{said}");
    assert_eq!(received(&host, "tank/new"), b"");
    assert_eq!(host.s3.state().count("RestoreObject"), 0);
}

#[test]
fn thaw_asks_once_and_then_shows_how_far_it_is() {
    let host = archived();
    let ran = host.run("thaw tank/a@4 tank/new");
    ran.expect(75);
    let lines: Vec<Vec<&str>> = ran.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["SNAPSHOT", "BASE", "SIZE", "CLASS", "STATE"]);
    assert_eq!(lines[1][..6], ["tank/a@1", "-", "700B", "DEEP_ARCHIVE", "thawing", "since"]);
    assert_eq!(lines[3][..6], ["tank/a@3", "tank/a@2", "700B", "GLACIER", "thawing", "since"]);
    assert_eq!(lines[4], ["tank/a@4", "tank/a@3", "700B", "STANDARD", "readable"]);
    assert_eq!(
        ran.stderr,
        "zfs2s3: S3 is thawing 3 objects (2.05K), which takes up to 48 hours (bulk) or 5 to 12 hours (bulk)\n"
    );
    for (key, body) in &host.s3.state().thawed {
        assert!(body.contains("<Days>7</Days>") && body.contains("<Tier>Bulk</Tier>"), "{key}: {body}");
    }
    let again = host.run("thaw tank/a@4 tank/new");
    again.expect(75);
    assert_eq!(again.stdout, ran.stdout, "the time at which it began stays");
    assert_eq!(host.s3.state().count("RestoreObject"), 3);
    assert!(host.fails(75, "restore tank/a@4 tank/new").contains("3 objects (2.05K) are being thawed"));

    host.s3.state().finish_thawing();
    let done = host.ok("thaw tank/a@4 tank/new");
    assert_eq!(done.stdout.matches("readable until 2").count(), 3, "{}", done.stdout);
    assert_eq!(done.stderr, "");
    host.ok("restore tank/a@4 tank/new");
    assert_eq!(received(&host, "tank/new"), streams(&ALL));
    assert!(host.ok("thaw tank/a@4 tank/new").stderr.contains("tank/new has tank/a@4 already"));
    host.assert_clean();
}

#[test]
fn what_the_target_has_is_not_thawed() {
    let host = archived();
    host.snapshot(("tank/new@1", 1), 1000);
    host.run("thaw tank/a@4 tank/new").expect(75);
    assert_eq!(host.s3.state().count("RestoreObject"), 2);
    let thawed: Vec<String> = host.s3.state().thawed.iter().map(|(key, _)| key.clone()).collect();
    assert!(thawed.iter().all(|key| !key.starts_with("tank/a@1/")), "{thawed:?}");
}

#[test]
fn a_tier_that_a_class_does_not_have_is_refused_before_anything_is_asked_for() {
    let host = archived();
    for command in ["thaw", "restore -w"] {
        let said = host.fails(2, &format!("{command} -t expedited tank/a@4 tank/new"));
        assert!(said.contains("DEEP_ARCHIVE has no expedited tier"), "{said}");
        assert!(said.contains("use standard (up to 12 hours) or bulk (up to 48 hours)"), "{said}");
    }
    assert_eq!(host.s3.state().count("RestoreObject"), 0);
    host.snapshot(("tank/new@2", 2), 1000);
    host.run("thaw --tier expedited tank/a@4 tank/new").expect(75);
    assert!(host.s3.state().thawed[0].1.contains("<Tier>Expedited</Tier>"));
}

#[test]
fn a_dry_run_shows_what_is_billed_and_asks_for_nothing() {
    let host = archived();
    let said = host.ok("thaw -n -d 3 -t standard tank/a@4").stdout;
    assert!(said.starts_with("would thaw 3 objects\n"), "{said}");
    assert!(
        said.ends_with(
            "  GLACIER: 1 request, 700 bytes (700B) to retrieve (standard), copies in STANDARD for 3 days; takes 3 to 5 hours\n  \
             DEEP_ARCHIVE: 2 requests, 1400 bytes (1.37K) to retrieve (standard), copies in STANDARD for 3 days; takes up to 12 hours\n"
        ),
        "{said}"
    );
    assert_eq!(host.s3.state().count("RestoreObject"), 0);
    assert!(!host.data("archive_states.yml").exists());
}

#[test]
fn a_faster_tier_speeds_up_what_is_being_thawed() {
    let host = archived();
    host.run("thaw -d 9 tank/a@4").expect(75);
    let said = host.run("thaw -t standard tank/a@4");
    said.expect(75);
    assert_eq!(host.s3.state().thawed.len(), 6);
    assert!(host.s3.state().thawed[3..].iter().all(|(_, body)| body.contains("<Days>9</Days>")));
    let takes = "which takes up to 12 hours (standard) or 3 to 5 hours (standard)";
    assert!(said.stderr.contains(takes), "{}", said.stderr);
    // it is known, and neither repeated nor slowed down
    for line in ["thaw -t standard tank/a@4", "thaw -t bulk tank/a@4", "thaw tank/a@4"] {
        let said = host.run(line);
        said.expect(75);
        assert!(said.stderr.contains(takes), "{line}: {}", said.stderr);
    }
    assert_eq!(host.s3.state().count("RestoreObject"), 6);
    // another host has asked for what this one does not know
    std::fs::remove_file(host.data("archive_states.yml")).unwrap();
    let said = host.fails(75, "thaw -t standard tank/a@4");
    assert!(said.contains("S3 is thawing 3 objects already, and does not accept another tier"), "{said}");
    assert!(said.contains("S3 is thawing 3 objects (2.05K)\n"), "how long it takes is not known: {said}");
}

#[test]
fn copies_are_kept_for_longer_only_if_asked_for() {
    let host = archived();
    host.run("thaw tank/a@4").expect(75);
    host.s3.state().finish_thawing();
    host.ok("thaw tank/a@4");
    host.ok("thaw -d 6 tank/a@4");
    assert_eq!(host.s3.state().count("RestoreObject"), 3);
    host.ok("thaw -d 30 tank/a@4");
    assert_eq!(host.s3.state().count("RestoreObject"), 6);
    assert!(host.s3.state().thawed[3].1.contains("<Days>30</Days>"));
    host.ok("thaw -d 30 tank/a@4");
    assert_eq!(host.s3.state().count("RestoreObject"), 6, "they are kept that long");
}

#[test]
fn one_backup_is_thawed_for_a_download() {
    let host = archived();
    for (arguments, thaw, n) in [("tank/a@1", "-f tank/a@1", 1), ("-i @2 tank/a@3", "-i @2 tank/a@3", 2)] {
        let ran = host.run(&format!("download {arguments}"));
        ran.expect(75);
        assert_eq!(ran.stdout, "");
        assert!(ran.stderr.contains(&format!("'zfs2s3 thaw {thaw}'")), "{}", ran.stderr);
        host.run(&format!("thaw {thaw}")).expect(75);
        assert_eq!(host.s3.state().thawed.len(), n);
        host.s3.state().finish_thawing();
        host.ok(&format!("thaw {thaw}"));
        let output = host.spawn(&format!("download {arguments}")).wait_with_output().unwrap();
        assert!(output.status.success() && output.stdout.len() == 700);
    }
}

#[test]
fn a_class_that_only_sounds_like_an_archive_is_read() {
    let mut host = Host::with_snapshots(2);
    host.set("ZFS2S3_STORAGE_CLASS", "GLACIER_IR");
    host.ok("upload tank/a@1");
    host.set("ZFS2S3_STORAGE_CLASS", "GLACIER");
    host.ok("upload -i @1 tank/a@2");
    host.s3.state().capabilities.reads_glacier = true;
    let said = host.ok("thaw tank/a@2").stdout;
    assert_eq!(said.matches("readable").count(), 2, "{said}");
    host.ok("restore tank/a@2 tank/new");
    assert_eq!(received(&host, "tank/new"), streams(&ALL[..2]));
}

#[test]
fn the_archive_tiers_of_intelligent_tiering_take_no_days() {
    let mut host = Host::with_snapshots(1);
    host.set("ZFS2S3_STORAGE_CLASS", "INTELLIGENT_TIERING");
    host.ok("upload tank/a@1");
    let key = host.real_key(&key("tank/a@1", 1, None));
    host.s3.state().archive_tiers.insert(key, "DEEP_ARCHIVE_ACCESS");
    let said = host.run("thaw -n -d 9 tank/a@1").stdout;
    assert!(said.contains("to retrieve (bulk); takes up to 48 hours"), "{said}");
    assert!(
        host.fails(2, "thaw -t expedited tank/a@1").contains("INTELLIGENT_TIERING has no expedited tier")
    );
    host.run("thaw -d 9 tank/a@1").expect(75);
    assert!(!host.s3.state().thawed[0].1.contains("Days"));
    host.s3.state().archive_tiers.clear();
    host.ok("thaw tank/a@1");
}

#[test]
fn a_chain_that_can_be_read_is_used_instead() {
    let mut host = archived();
    host.set("ZFS2S3_STORAGE_CLASS", "STANDARD");
    host.ok("upload -i @1 tank/a@3");
    host.ok("upload tank/a@3");
    host.ok("thaw tank/a@4");
    host.ok("restore tank/a@4 tank/new");
    assert_eq!(received(&host, "tank/new"), streams(&[(3, 0), (4, 3)]));
    assert_eq!(host.s3.state().count("RestoreObject"), 0);
}

#[test]
fn a_manifest_that_a_lifecycle_rule_has_archived_is_thawed_too() {
    let host = archived();
    let manifest = key("tank/a@4", 4, Some(3)).replace(".zfs", ".yml");
    host.s3.state().object_mut(&manifest).storage_class = "GLACIER".to_string();
    host.run("thaw tank/a@4").expect(75);
    assert_eq!(host.s3.state().count("RestoreObject"), 4);
    host.s3.state().finish_thawing();
    host.ok("restore tank/a@4 tank/new");
    assert_eq!(received(&host, "tank/new"), streams(&ALL));
}

#[test]
fn a_refused_or_lost_request_is_reported_and_can_be_repeated() {
    let host = archived();
    host.s3.fault("RestoreObject", 1, 1, Fault::Status(403, "AccessDenied"));
    assert!(host.fails(1, "thaw tank/a@4").contains("403 AccessDenied"));
    host.s3.fault("RestoreObject", 0, 1, Fault::LoseReply);
    host.run("thaw tank/a@4").expect(75);
    let begun: HashSet<String> = host.s3.state().thawed.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(begun.len(), 3);
    assert!(host.ok("list -j").stdout.contains("thawing"), "what was accepted before is known");
    let host = archived();
    host.snapshot(("tank/new@2", 2), 1000);
    let no_capacity = Fault::Status(503, "GlacierExpeditedRetrievalNotAvailable");
    host.s3.fault("RestoreObject", 0, 1, no_capacity);
    let said = host.fails(1, "thaw -t expedited tank/a@3 tank/new");
    assert!(said.contains("hint: S3 has no capacity for expedited retrievals now"), "{said}");
    assert_eq!(host.s3.state().count("RestoreObject"), 1);
    host.s3.fault("RestoreObject", 0, 1, Fault::Status(501, "NotImplemented"));
    assert!(host.fails(1, "thaw tank/a@3").contains("this server may not be able to thaw objects"));
}

#[test]
fn list_shows_what_was_last_seen() {
    let host = archived();
    let column = || -> Vec<String> {
        let table = host.ok("list").stdout;
        let rows: Vec<&str> = table.lines().collect();
        // without the totals
        let column = rows[..rows.len() - 1].iter().map(|row| row.get(rows[0].find("READABLE").unwrap()..));
        column.map(|cell| cell.unwrap_or_default().to_string()).collect()
    };
    assert_eq!(column()[1..], ["no", "no", "no", "yes"]);
    host.run("thaw tank/a@4").expect(75);
    assert_eq!(column()[1..], ["thawing", "thawing", "thawing", "yes"]);
    let rows: serde_json::Value = serde_json::from_str(&host.ok("list -j").stdout).unwrap();
    assert_eq!(rows[0]["storage_class"], "DEEP_ARCHIVE");
    assert_eq!(rows[0]["last_seen"]["state"], "thawing");
    assert_eq!(rows[0]["last_seen"]["since"], rows[0]["last_seen"]["seen"]);
    assert!(rows[3]["last_seen"].is_null());
    host.s3.state().finish_thawing();
    host.ok("thaw tank/a@4");
    assert!(column()[1].starts_with("until 2"), "{:?}", column());
    host.ok("remove -i @3 tank/a@4");
    host.ok("remove -i @2 tank/a@3");
    host.ok("thaw tank/a@2");
    let kept = std::fs::read_to_string(host.data("archive_states.yml")).unwrap();
    assert_eq!(kept.matches("readable").count(), 2, "{kept}");
    // the copies have expired
    host.s3.state().copies.clear();
    host.run("thaw -n tank/a@2").expect(0);
    host.run("restore tank/a@2 tank/new").expect(75);
    host.run("thaw tank/a@2").expect(75);
    assert_eq!(column()[1..], ["thawing", "thawing"]);
}

/// Nothing depends on it.
#[test]
fn a_damaged_or_newer_record_of_what_was_seen_is_a_warning() {
    let host = archived();
    host.run("thaw tank/a@4").expect(75);
    host.write_data("archive_states.yml", "version: 9\nother: 1\n");
    for (line, status) in [("list", 0), ("thaw tank/a@4", 75)] {
        let ran = host.run(line);
        ran.expect(status);
        assert!(ran.stderr.contains("warning: ") && ran.stderr.contains("a newer version"), "{}", ran.stderr);
    }
    assert!(std::fs::read_to_string(host.data("archive_states.yml")).unwrap().contains("other: 1"));
    host.write_data("archive_states.yml", "version: 1\nbackups: {a");
    assert!(host.ok("list").stderr.contains("cannot be used"));
    host.run("thaw tank/a@4").expect(75);
    assert_eq!(host.ok("list").stderr, "", "it was replaced");
}

#[test]
fn what_is_no_longer_archived_is_shown_as_readable() {
    let mut host = Host::with_snapshots(2);
    host.set("ZFS2S3_STORAGE_CLASS", "INTELLIGENT_TIERING");
    host.ok("upload tank/a@1");
    host.set("ZFS2S3_STORAGE_CLASS", "GLACIER");
    host.ok("upload -i @1 tank/a@2");
    let key = host.real_key(&key("tank/a@1", 1, None));
    host.s3.state().archive_tiers.insert(key, "ARCHIVE_ACCESS");
    host.run("thaw tank/a@2").expect(75);
    assert_eq!(host.ok("list").stdout.matches("thawing").count(), 2);
    host.s3.state().archive_tiers.clear();
    host.s3.state().capabilities.reads_glacier = true;
    host.s3.state().copies.clear();
    host.ok("thaw tank/a@2");
    let table = host.ok("list").stdout;
    assert_eq!(table.matches("yes").count(), 2, "{table}");
}

#[test]
fn restore_w_thaws_waits_and_restores() {
    let host = archived();
    host.s3.state().capabilities.thaw_time = Duration::from_millis(400);
    let said = host.ok("restore -w tank/a@4 tank/new").stderr;
    assert_eq!(received(&host, "tank/new"), streams(&ALL));
    assert_eq!(host.s3.state().count("RestoreObject"), 3);
    assert_eq!(said.matches("S3 is thawing 3 objects (2.05K)").count(), 1, "{said}");
}

#[test]
fn restore_w_continues_after_it_was_killed() {
    let host = archived();
    let mut child = waiting(&host, "restore -w tank/a@4 tank/new", 3);
    // no other command is blocked
    host.ok("remove -i @3 tank/a@4");
    host.ok("upload -i @3 tank/a@4");
    child.kill().unwrap();
    child.wait().unwrap();
    host.s3.state().finish_thawing();
    host.ok("restore -w tank/a@4 tank/new");
    assert_eq!(received(&host, "tank/new"), streams(&ALL));
    assert_eq!(host.s3.state().count("RestoreObject"), 3);
}

#[test]
fn each_backup_is_received_as_soon_as_it_can_be_read() {
    let host = archived();
    let child = waiting(&host, "restore -w -o readonly=on -d 2 -t standard tank/a@4 tank/new", 3);
    let first = host.real_key(&key("tank/a@1", 1, None));
    host.s3.state().copies.get_mut(&first).unwrap().ready = Instant::now();
    until(|| received(&host, "tank/new") == streams(&ALL[..1]));
    host.s3.state().finish_thawing();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(received(&host, "tank/new"), streams(&ALL));
    assert_eq!(std::fs::read_to_string(host.home().join("zfs/properties")).unwrap(), "readonly=on\n");
    assert_eq!(host.s3.state().count("RestoreObject"), 3, "each is asked for once");
}

#[test]
fn a_copy_that_expires_meanwhile_is_thawed_again() {
    let host = archived();
    let child = waiting(&host, "restore -w tank/a@4 tank/new", 3);
    let mut state = host.s3.state();
    state.finish_thawing();
    let third = state.real_key(&key("tank/a@3", 3, Some(2)));
    state.copies.remove(&third);
    state.capabilities.thaw_time = Duration::from_millis(100);
    drop(state);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(received(&host, "tank/new"), streams(&ALL));
    assert_eq!(host.s3.state().thawed.iter().filter(|(key, _)| *key == third).count(), 2);
}

/// Real streams in GLACIER, with copies.
fn with_copies() -> Host {
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_STORAGE_CLASS", "GLACIER");
    host.ok("upload tank/src@s1");
    host.ok("upload -i @s1 tank/src@s2");
    host.s3.state().capabilities.thaw_time = Duration::ZERO;
    host.run("thaw tank/src@s2").expect(75);
    host
}

#[test]
fn a_copy_that_expires_while_it_is_read_is_explained() {
    let host = with_copies();
    // the manifests, and the first byte of each object
    host.s3.fault("GetObject", 12, 100, Fault::Status(403, "InvalidObjectState"));
    let said = host.fails(75, "restore tank/src@s2 tank/new");
    assert!(said.contains("error: the object 'tank/src@s1/"), "{said}");
    let hint =
        "can no longer be read, and must be thawed again\nzfs2s3: hint: 'zfs2s3 thaw tank/src@s2 tank/new'";
    assert!(said.contains(hint), "{said}");
}

#[test]
fn wrong_arguments() {
    let host = archived();
    host.snapshot(("tank/new@1", 1), 1000);
    for (line, said) in [
        ("thaw -d 0 tank/a@4", "from 1 to 365"),
        ("thaw -t fast tank/a@4", "'fast' is not a tier: it is bulk, standard or expedited"),
        ("thaw -f tank/a@4 tank/new", "which has no target"),
        ("thaw -f -i @3 tank/a@4", "exclude each other"),
        ("restore -t bulk tank/a@4 tank/new", "-d and -t are for -w"),
        ("thaw tank/a@4 tank/a@3", "is not a dataset"),
        ("restore -o readonly=on tank/a@4 tank/new", "-o is for a new dataset"),
    ] {
        let error = host.fails(2, line);
        assert!(error.contains(said), "{line}: {error}");
    }
    assert!(host.fails(1, "thaw tank/a@9").contains("tank/a@9 is not stored"));
    assert!(host.fails(1, "thaw -f tank/a@4").contains("no full backup of tank/a@4 is stored"));
}

#[test]
fn the_origin_of_a_clone_is_thawed_with_it() {
    let mut host = Host::with_snapshots(1);
    host.set("ZFS2S3_STORAGE_CLASS", "GLACIER");
    host.ok("upload tank/a@1");
    host.snapshot(("tank/clone@5", 5), 50);
    let mut stream = made_stream(5, 1, 700);
    // DRR_FLAG_CLONE, in drr_flags of BEGIN
    stream[36] |= 1;
    let stream = summed(&stream);
    host.add_stream(("", 5), Some(("", 1)), &stream);
    host.ok("upload -i tank/a@1 tank/clone@5");
    host.run("thaw tank/clone@5").expect(75);
    assert_eq!(host.s3.state().thawed.len(), 2);
}

#[test]
fn real_streams_are_restored_from_their_copies() {
    let host = with_copies();
    host.ok("restore -w tank/src@s2 tank/new");
    assert_eq!(received(&host, "tank/new"), [real("full.zfs"), real("incr.zfs")].concat());
}

#[test]
fn the_minimum_storage_time_is_shown_before_and_after() {
    let host = archived();
    let said = host.ok("upload -n tank/a@4").stdout;
    assert!(!said.contains("minimum"), "{said}");
    let fee = "on AWS, GLACIER is billed for at least 90 days: the 700B of tank/a@3 for 90 more days";
    host.ok("remove -i @3 tank/a@4");
    assert!(host.ok("remove -n -i @2 tank/a@3").stdout.contains(&format!("  fee     {fee}\n")));
    let said = host.ok("remove -i @2 tank/a@3").stderr;
    assert_eq!(said, format!("zfs2s3: removed tank/a@3, incremental from tank/a@2\nzfs2s3: {fee}\n"));
}

#[test]
fn a_small_backup_is_stored_in_standard_if_asked_for() {
    let mut host = Host::with_snapshots(3);
    host.set("ZFS2S3_STORAGE_CLASS", "DEEP_ARCHIVE");
    assert!(
        host.ok("upload -n tank/a@1")
            .stdout
            .contains("  minimum   on AWS, DEEP_ARCHIVE is billed for at least 180 days\n")
    );
    // zfs estimates 1,000,000 bytes
    host.set("ZFS2S3_STANDARD_BELOW", "1000001");
    assert!(host.ok("upload -n tank/a@1").stdout.contains("  class     STANDARD\n"));
    host.ok("upload tank/a@1");
    host.set("ZFS2S3_STANDARD_BELOW", "1000000");
    host.ok("upload -i @1 tank/a@2");
    assert_eq!(
        host.listed(),
        ["tank/a@1 - 700 STANDARD stored", "tank/a@2 tank/a@1 700 DEEP_ARCHIVE stored"]
    );
    host.ok("thaw tank/a@1");
}

/// The name may have another meaning when it can be read.
#[test]
fn the_snapshot_that_was_selected_at_first_is_restored() {
    let host = archived();
    let child = waiting(&host, "restore -w tank/a@3 tank/new", 3);
    host.ok("remove -i @3 tank/a@4");
    // tank/a@3 is made again, and stored from another base
    host.snapshot(("tank/a@3", 33), 35);
    host.add_stream(("", 33), Some(("", 1)), &made_stream(33, 1, 700));
    host.ok("upload -i @1 tank/a@3");
    host.s3.state().finish_thawing();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(received(&host, "tank/new"), streams(&ALL[..3]));
}

#[test]
fn restore_w_with_a_property_continues_after_it_was_killed() {
    let host = archived();
    let mut child = waiting(&host, "restore -w -o readonly=on tank/a@4 tank/new", 3);
    let first = host.real_key(&key("tank/a@1", 1, None));
    host.s3.state().copies.get_mut(&first).unwrap().ready = Instant::now();
    until(|| received(&host, "tank/new") == streams(&ALL[..1]));
    child.kill().unwrap();
    child.wait().unwrap();
    host.s3.state().finish_thawing();
    host.ok("restore -w -o readonly=on tank/a@4 tank/new");
    assert_eq!(received(&host, "tank/new"), streams(&ALL));
    assert_eq!(std::fs::read_to_string(host.home().join("zfs/properties")).unwrap(), "readonly=on\n");
}

#[test]
fn a_failure_while_it_waits_does_not_end_it() {
    let mut host = archived();
    host.set("ZFS2S3_TEST_PATIENCE_MS", "200");
    // with several, a round reports only the first of its failures
    host.set("ZFS2S3_JOBS", "1");
    let child = waiting(&host, "restore -w tank/a@4 tank/new", 3);
    host.s3.fault("HeadObject", 0, 3, Fault::Status(503, "SlowDown"));
    until(|| host.s3.state().faults_left() == 0);
    host.s3.fault("HeadObject", 0, 1, Fault::Status(403, "AccessDenied"));
    until(|| host.s3.state().faults_left() == 0);
    host.s3.state().finish_thawing();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(received(&host, "tank/new"), streams(&ALL));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("503 Service Unavailable; trying again"), "{said}");
    assert!(said.contains("403 Forbidden"), "{said}");
    // before that, it does
    host.s3.fault("HeadObject", 0, 1, Fault::Status(403, "AccessDenied"));
    host.fails(1, "restore -w tank/a@4 tank/other");
}

#[test]
fn the_fewest_bytes_are_thawed() {
    let mut host = Host::with_snapshots(4);
    host.set("ZFS2S3_STORAGE_CLASS", "GLACIER");
    host.ok("upload tank/a@1");
    host.ok("upload -i @1 tank/a@2");
    host.ok("upload -i @2 tank/a@4");
    host.add_stream(("", 3), None, &made_stream(3, 0, 9000));
    host.set("ZFS2S3_STORAGE_CLASS", "STANDARD");
    host.ok("upload tank/a@3");
    host.set("ZFS2S3_STORAGE_CLASS", "GLACIER");
    host.ok("upload -i @3 tank/a@4");
    // one object is thawed, though the chain has more bytes
    host.run("thaw tank/a@4").expect(75);
    assert_eq!(host.s3.state().thawed.len(), 1);
    assert!(host.s3.state().thawed[0].0.starts_with("tank/a@4/0000000000000004-from-0000000000000003"));
    // what is being thawed is not changed for a chain that is cheaper to fetch
    host.s3.state().finish_thawing();
    host.ok("restore tank/a@4 tank/new");
    assert!(received(&host, "tank/new").len() > 9000);
}

#[test]
fn a_class_of_another_server_is_an_archive_if_it_cannot_be_read() {
    let mut host = Host::with_snapshots(1);
    host.set("ZFS2S3_STORAGE_CLASS", "ACCELERATED");
    host.ok("upload tank/a@1");
    host.ok("thaw tank/a@1");
    host.ok("restore tank/a@1 tank/one");
    let key = host.real_key(&key("tank/a@1", 1, None));
    host.s3.state().archives.push("ACCELERATED");
    assert!(host.fails(75, "restore tank/a@1 tank/new").contains("1 object (700B) is archived"));
    let ran = host.run("thaw tank/a@1");
    ran.expect(75);
    assert!(ran.stderr.contains("which takes hours (bulk)"), "{}", ran.stderr);
    assert_eq!(host.s3.state().thawed[0].0, key);
    host.s3.state().finish_thawing();
    host.ok("restore tank/a@1 tank/new");
}

/// Real streams in GLACIER, and a target that has a part of one.
fn interrupted(part: (&str, u64), from: u64, place: [u64; 3]) -> Host {
    let mut host = Host::with_real_streams();
    host.set("ZFS2S3_STORAGE_CLASS", "GLACIER");
    host.ok("upload tank/src@s1");
    host.ok("upload -i @s1 tank/src@s2");
    host.snapshot(if from == 0 { ("tank/new", 0) } else { ("tank/new@s1", S1.1) }, 1000);
    interrupt(&host, part, from, place, "");
    host.s3.state().capabilities.thaw_time = Duration::from_millis(300);
    host
}

#[test]
fn an_interrupted_receive_is_resumed_when_it_is_thawed() {
    let host = interrupted(S1, 0, PLACE);
    let ran = host.run("restore -n tank/src@s2 tank/new");
    ran.expect(75);
    assert!(ran.stderr.contains("2 objects (1.36M) are archived"), "{}", ran.stderr);
    host.fails(75, "restore tank/src@s2 tank/new");
    host.run("thaw tank/src@s2 tank/new").expect(75);
    let said = host.ok("restore -w tank/src@s2 tank/new").stderr;
    assert!(said.contains("resuming tank/src@s1, full, of which tank/new has the first 163K"), "{said}");
    let got = received(&host, "tank/new");
    assert_eq!(sha256(&got[..966_224]), RESUMED);
    assert_eq!(got[966_224..], real("incr.zfs"));
    assert_eq!(host.s3.state().count("RestoreObject"), 2);
}

#[test]
fn a_part_is_discarded_only_by_the_restore_that_is_to_discard_it() {
    let host = interrupted((S2.0, 77), S1.1, [1, 0, 0]);
    let is_kept = || host.home().join("zfs/partial").exists();
    assert!(host.fails(3, "restore -w tank/src@s2 tank/new").contains("which is not stored"));
    assert!(host.fails(3, "thaw tank/src@s2 tank/new").contains("-A discards that part"));
    let said = host.fails(75, "restore -A tank/src@s2 tank/new");
    assert!(said.contains("'zfs2s3 thaw -A tank/src@s2 tank/new'"), "{said}");
    host.run("thaw -A tank/src@s2 tank/new").expect(75);
    assert!(is_kept(), "nothing was received");
    host.ok("restore -w -A tank/src@s2 tank/new");
    assert!(!is_kept());
    assert_eq!(received(&host, "tank/new"), real("incr.zfs"));
}

#[test]
fn a_tree_is_thawed_at_once_and_received_parents_first() {
    let mut host = Host::with_tree();
    host.set("ZFS2S3_STORAGE_CLASS", "DEEP_ARCHIVE");
    host.zfs_file("kept", "tank/a\tquota\t1\n");
    host.ok("upload -ar tank@1");
    host.ok("upload -ar tank@2");
    host.snapshot(("new", 0), 0);
    let said = host.fails(75, "restore -r tank new/t");
    assert!(
        said.contains("of 4 datasets, these are not restored: new/t, new/t/a, new/t/a/b, new/t/c"),
        "{said}"
    );
    // all of it, also what has no place yet
    let child = waiting(&host, "restore -rwP tank new/t", 8);
    host.s3.state().finish_thawing();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success(), "{said}");
    assert_eq!(said.matches("received tank").count(), 8, "{said}");
    assert!(said.find("into new/t/a:") < said.find("into new/t/a/b:"), "{said}");
    let kept = std::fs::read_to_string(host.home().join("zfs/kept")).unwrap();
    assert!(kept.contains("new/t/a\tquota\t1"), "{kept}");
}

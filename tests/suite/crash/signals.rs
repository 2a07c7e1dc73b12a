//! A signal arrives at each request: the command says how to go on, and leaves no other process behind.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::time::{Duration, Instant};

use super::*;

/// And with which number it ends the process.
const SIGNALS: [(&str, Option<i32>); 4] =
    [("INT", Some(2)), ("TERM", Some(15)), ("HUP", Some(1)), ("PIPE", None)];

fn run(case: &Case) {
    let (mut ended, mut ignored) = (0, 0);
    at_each_moment(case, &SIGNALS, 3, |host, (signal, number), n| {
        let before = host.s3.state().log.len();
        host.s3.fault("", n, 1, Fault::Signal(signal));
        let ran = host.run(case.command);
        await_children(&host);
        host.s3.no_more_faults();
        if host.s3.state().log.len() - before <= n {
            ran.expect(case.status);
            return false;
        }
        let after = format!("{}: {signal} at request {n}: {}", case.command, ran.stderr);
        let is_ended = number.is_some();
        assert_eq!(ran.status, number.map_or(case.status, |number| -number), "{after}");
        let what = format!("zfs2s3: error: interrupted by SIG{signal}\nzfs2s3: hint: ");
        assert_eq!(ran.stderr.matches(&what).count(), usize::from(is_ended), "{after}");
        assert_eq!(ran.stderr.matches("zfs2s3: error: ").count(), usize::from(is_ended), "{after}");
        let is_said = ran.stderr.contains("'zfs2s3 resume_upload' resumes it");
        if is_ended && case.command.contains("upload") {
            assert_eq!(is_said, is_pending(&host), "{after}");
        }
        *if is_ended { &mut ended } else { &mut ignored } += 1;
        case.heals(&host, &after);
        true
    });
    report(&format!("{}: ended by {ended} signals, and not by {ignored} SIGPIPE; all healed", case.command));
}

each_case!(run);

/// As with `nohup`.
#[test]
fn a_signal_that_was_ignored_stays_so() {
    let host = host();
    host.s3.fault("UploadPart", 1, 1, Fault::Signal("HUP"));
    let mut shell = std::process::Command::new("sh");
    shell.env_clear().envs(host.environment());
    shell.args(["-c", "trap '' HUP; exec \"$0\" upload tank/a@1", env!("CARGO_BIN_EXE_zfs2s3")]);
    let mut child = shell.spawn().unwrap();
    host.s3.victim.store(child.id(), std::sync::atomic::Ordering::SeqCst);
    assert!(child.wait().unwrap().success());
    has_one(&host);
}

/// `zfs send` has the signal, too, and its end is not the reason.
#[test]
fn ctrl_c_is_called_that() {
    let host = host();
    let is_send = |line: &str| line.starts_with("send --");
    host.ok("upload tank/a@1");
    let before = 1 + host.zfs_log().lines().position(is_send).unwrap();
    host.ok("remove tank/a@1");
    std::fs::remove_file(host.home().join("zfs/log")).unwrap();
    host.zfs_file("fault", &format!("{before} slow\n"));
    let child = host.command("upload tank/a@1").process_group(0).spawn().unwrap();
    while !host.zfs_log().lines().any(is_send) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let group = format!("-{}", child.id());
    assert!(std::process::Command::new("kill").args(["-INT", "--", &group]).status().unwrap().success());
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.signal(), Some(2), "{said}");
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
    assert!(said.contains("error: interrupted by SIGINT\nzfs2s3: hint: the upload is pending"), "{said}");
    await_children(&host);
    host.ok("abort_upload");
    assert!(host.holds().is_empty());
}

/// Only the program has the signal.
#[test]
fn what_hangs_ends_with_the_program() {
    let is_running = |words: &str| {
        let words: Vec<u8> =
            words.bytes().map(|byte| if byte == b' ' { 0 } else { byte }).chain([0]).collect();
        std::fs::read_dir("/proc").unwrap().any(|entry| {
            std::fs::read(entry.unwrap().path().join("cmdline")).is_ok_and(|found| found == words)
        })
    };
    for helper in [false, true] {
        let mut host = host();
        let hangs = format!("sleep {}", 2_000_000 + std::process::id() + u32::from(helper));
        if helper {
            std::fs::create_dir_all(host.home().join(".aws")).unwrap();
            let config = format!("[default]\ncredential_process = exec {hangs}\n");
            std::fs::write(host.home().join(".aws/config"), config).unwrap();
            host.unset("AWS_ACCESS_KEY_ID");
            host.unset("AWS_SECRET_ACCESS_KEY");
        } else {
            host.set("ZFS2S3_FILTER", &format!("cat | {hangs} | cat"));
        }
        let mut child = host.command("upload tank/a@1").spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        while !is_running(&hangs) {
            assert!(Instant::now() < until, "{hangs} never begins");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(15));
        while is_running(&hangs) {
            assert!(Instant::now() < until, "{hangs} goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

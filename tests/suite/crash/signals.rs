//! A signal arrives at each request: the command says how to go on, and leaves no other process behind.

use super::*;

fn run(case: &Case) {
    let mut counts = [0; 2];
    for (seed, signal) in (0..).zip(["INT", "TERM", "HUP", "PIPE"]) {
        for n in 0.. {
            if !is_in_share(n as u64 + seed, 3 * case.share) {
                continue;
            }
            let host = (case.setup)();
            let before = host.s3.state().log.len();
            host.s3.fault("", n, 1, Fault::Signal(signal));
            let ran = host.run(case.command);
            await_children(&host);
            host.s3.no_more_faults();
            if host.s3.state().log.len() - before <= n {
                ran.expect(case.status);
                break;
            }
            let after = format!("{}: {signal} at request {n}: {}", case.command, ran.stderr);
            let is_ended = signal != "PIPE";
            assert_eq!(ran.status, if is_ended { -9 } else { case.status }, "{after}");
            let what = format!("zfs2s3: error: interrupted by SIG{signal}\nzfs2s3: hint: ");
            assert_eq!(ran.stderr.matches(&what).count(), usize::from(is_ended), "{after}");
            assert_eq!(ran.stderr.matches("zfs2s3: error: ").count(), usize::from(is_ended), "{after}");
            let is_said = ran.stderr.contains("'zfs2s3 resume_upload' resumes it");
            if is_ended && case.command.contains("upload") {
                assert_eq!(is_said, is_pending(&host), "{after}");
            }
            counts[usize::from(is_ended)] += 1;
            case.heals(&host, &after);
        }
    }
    let [ignored, ended] = counts;
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

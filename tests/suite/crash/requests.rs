//! Each request of each command meets each fault, once, or from then on. The command ends right, or says what
//! is wrong with a documented status; and what it leaves is healed when the fault is over.

use std::time::{Duration, Instant};

use super::*;
use crate::support::sigv4;

const ONCE: &[Fault] = &[
    Fault::Drop,
    Fault::Reset,
    Fault::LoseReply,
    // after the next attempt
    Fault::Late(Duration::from_millis(1500)),
    Fault::Silence,
    Fault::TruncateReply,
    Fault::Status(500, "InternalError"),
    Fault::RetryAfter,
    Fault::Status(520, ""),
    Fault::Page(502),
    Fault::Status(403, "AccessDenied"),
    Fault::Status(400, "ExpiredToken"),
    Fault::Status(400, RENEWABLE),
    Fault::Status(403, "RequestTimeTooSkewed"),
    Fault::Status(404, "NoSuchKey"),
    Fault::Status(404, "NoSuchUpload"),
    Fault::Page(404),
    Fault::Status(409, "OperationAborted"),
    Fault::Status(412, "PreconditionFailed"),
    Fault::Redirect(301),
    Fault::Redirect(307),
    Fault::OkWithError("InternalError"),
    Fault::Page(200),
    Fault::Word,
    Fault::FlipBit,
    Fault::Garble,
    Fault::Swell,
    Fault::OtherEtag,
    Fault::OtherSum,
    Fault::Twice,
];
const FROM_THEN_ON: &[Fault] = &[
    Fault::Drop,
    Fault::LoseReply,
    Fault::TruncateReply,
    Fault::Status(500, "InternalError"),
    Fault::Status(403, "AccessDenied"),
    Fault::Status(403, "RequestTimeTooSkewed"),
    Fault::Status(404, "NoSuchKey"),
    Fault::OkWithError("InternalError"),
    Fault::Garble,
];

/// A helper has new credentials then.
const RENEWABLE: &str = "ExpiredTokenException";

fn use_helper(host: &mut Host) {
    let keys = host.home().join("keys");
    let said = serde_json::json!({
        "Version": 1, "AccessKeyId": sigv4::ACCESS_KEY, "SecretAccessKey": sigv4::SECRET_KEY,
        "Expiration": "2999-01-01T00:00:00Z"
    });
    std::fs::write(&keys, said.to_string()).unwrap();
    std::fs::create_dir_all(host.home().join(".aws")).unwrap();
    let config = format!("[default]\ncredential_process = cat {}\n", keys.display());
    std::fs::write(host.home().join(".aws/config"), config).unwrap();
    host.unset("AWS_ACCESS_KEY_ID");
    host.unset("AWS_SECRET_ACCESS_KEY");
}

/// What S3 does only after the command has given up is another one's doing.
fn undo_what_comes_late(host: &Host, end: Instant) {
    while host.s3.state().delayed > 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut state = host.s3.state();
    for (time, name) in std::mem::take(&mut state.made_late) {
        if time >= end {
            state.objects.remove(&name);
            state.uploads.remove(&name);
        }
    }
}

fn run(case: &Case) {
    let mut counts = Counts::default();
    let (once, from_then_on) =
        (ONCE.iter().map(|fault| (fault, 1)), FROM_THEN_ON.iter().map(|fault| (fault, 1000)));
    let faults: Vec<(&Fault, usize)> = once.chain(from_then_on).collect();
    at_each_moment(case, &faults, 10, |mut host, (fault, times), n| {
        let is_renewable = matches!(fault, Fault::Status(_, RENEWABLE));
        if is_renewable {
            use_helper(&mut host);
        }
        host.set("ZFS2S3_TEST_REPLY_MS", "400");
        host.set("ZFS2S3_TEST_PATIENCE_MS", if *times == 1 { "30000" } else { "100" });
        let before = host.s3.state().log.len();
        host.s3.fault("", n, *times, (*fault).clone());
        let ran = host.run(case.command);
        let end = Instant::now();
        await_children(&host);
        undo_what_comes_late(&host, end);
        let requests = host.s3.state().log.len() - before;
        host.s3.no_more_faults();
        host.unset("ZFS2S3_TEST_REPLY_MS");
        host.set("ZFS2S3_TEST_PATIENCE_MS", "30000");
        if requests <= n {
            // with so little patience a busy machine is a fault, too
            if *times == 1 {
                ran.expect(case.status);
            }
            return false;
        }
        let call = host.s3.state().log[before + n].0;
        let after = format!(
            "{}: request {n}, {call}: {fault:?} {times} times: status {}\n{}",
            case.command, ran.status, ran.stderr
        );
        counts.add(case, &ran, &after);
        assert!(!is_renewable || ran.status == case.status, "{after}");
        let said = ["left in the bucket", "cannot look for unfinished uploads"];
        if said.iter().any(|words| ran.stderr.contains(words)) {
            // it was refused, and the user knows
            host.s3.state().uploads.clear();
        }
        if ran.status == 0 {
            println!("{after}");
            (case.end)(&host);
        }
        case.heals(&host, &after);
        true
    });
    assert!(counts.done + counts.refused >= 3, "{}", case.command);
    counts.report(case, "faults of requests");
}

each_case!(run);

//! Each request of each command meets each fault, once, or from then on. The command ends right, or says what
//! is wrong with a documented status; and what it leaves is healed when the fault is over.

use super::*;

const ONCE: &[Fault] = &[
    Fault::Drop,
    Fault::LoseReply,
    Fault::Silence,
    Fault::TruncateReply,
    Fault::Status(500, "InternalError"),
    Fault::RetryAfter,
    Fault::Status(520, ""),
    Fault::Page(502),
    Fault::Status(403, "AccessDenied"),
    Fault::Status(400, "ExpiredToken"),
    Fault::Status(404, "NoSuchKey"),
    Fault::Status(404, "NoSuchUpload"),
    Fault::Page(404),
    Fault::Status(409, "OperationAborted"),
    Fault::Status(412, "PreconditionFailed"),
    Fault::Redirect(301),
    Fault::Redirect(307),
    Fault::OkWithError("InternalError"),
    Fault::Page(200),
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
    Fault::Status(404, "NoSuchKey"),
    Fault::OkWithError("InternalError"),
    Fault::Garble,
];

fn run(case: &Case) {
    let mut counts = (0, 0, 0);
    let (once, from_then_on) =
        (ONCE.iter().map(|fault| (fault, 1)), FROM_THEN_ON.iter().map(|fault| (fault, 1000)));
    for (seed, (fault, times)) in (0..).zip(once.chain(from_then_on)) {
        for n in 0.. {
            if !is_in_share(n as u64 + seed, 5 * case.share) {
                continue;
            }
            let mut host = (case.setup)();
            host.set("ZFS2S3_TEST_REPLY_MS", "400");
            host.set("ZFS2S3_TEST_PATIENCE_MS", if times == 1 { "30000" } else { "100" });
            let before = host.s3.state().log.len();
            host.s3.fault("", n, times, fault.clone());
            let ran = host.run(case.command);
            await_children(&host);
            let requests = host.s3.state().log.len() - before;
            host.s3.no_more_faults();
            host.unset("ZFS2S3_TEST_REPLY_MS");
            host.set("ZFS2S3_TEST_PATIENCE_MS", "30000");
            if requests <= n {
                // with so little patience a busy machine is a fault, too
                if times == 1 {
                    ran.expect(case.status);
                }
                break;
            }
            let call = host.s3.state().log[before + n].0;
            let after = format!(
                "{}: request {n}, {call}: {fault:?} {times} times: status {}\n{}",
                case.command, ran.status, ran.stderr
            );
            assert!([0, 1, 3, 75].contains(&ran.status), "{after}");
            assert!(ran.status == 0 || ran.stderr.contains("zfs2s3: error: ") || case.status != 0, "{after}");
            counts.0 += 1;
            counts.1 += usize::from(ran.status == case.status);
            counts.2 += usize::from(ran.status != case.status);
            if ran.stderr.contains("an unfinished upload is left in the bucket") {
                // it was refused, and the user knows
                host.s3.state().uploads.clear();
            }
            if ran.status == 0 {
                println!("{after}");
                (case.end)(&host);
            }
            case.heals(&host, &after);
        }
    }
    assert!(counts.0 >= 5, "{}: {counts:?}", case.command);
    report(&format!(
        "{}: {} faults of requests: {} times done all the same, {} times refused; all healed",
        case.command, counts.0, counts.1, counts.2
    ));
}

each_case!(run);

//! Killed before each step, or a step of a file fails: a full disk, a broken one, one that became read-only,
//! one that may not be written.

use super::*;

const ERRORS: [(&str, &str); 4] = [("ENOSPC", "28"), ("EIO", "5"), ("EROFS", "30"), ("EACCES", "13")];

/// Runs the command up to this step: `kill`, or the number of an error. The steps that it took, with that
/// one, and how it ended. None: it has fewer.
pub(super) fn stopped(
    host: &mut Host,
    act: &str,
    n: u64,
    command: &str,
    status: i32,
) -> Option<(Vec<String>, Ran)> {
    let log = host.home().join("steps");
    let _ = std::fs::remove_file(&log);
    host.set("ZFS2S3_TEST_STEP", &format!("{act} {n} {}", log.display()));
    let ran = host.run(command);
    host.unset("ZFS2S3_TEST_STEP");
    await_children(host);
    let steps = std::fs::read_to_string(&log).unwrap_or_default();
    let mut steps: Vec<String> = steps.lines().map(str::to_string).collect();
    let records = steps.iter().filter(|step| step.starts_with("write\t") && step.contains("upload_progress"));
    for record in records {
        // of several, a power cut could tear one and leave the next
        let bytes = record.rsplit('\t').next().unwrap().as_bytes();
        let lines = bytes.chunks(2).filter(|byte| *byte == b"0a").count();
        assert_eq!(lines, 1, "{command}: more than one record at once: {record}");
    }
    let is_reached = steps.len() as u64 >= n;
    assert_eq!(is_reached && act == "kill", ran.status == -9, "{command}: {act} at step {n}: {}", ran.stderr);
    if !is_reached {
        ran.expect(status);
        return None;
    }
    steps.truncate(n as usize);
    Some((steps, ran))
}

/// What the last step was.
pub(super) fn last(steps: &[String]) -> String {
    steps.last().unwrap().split('\t').take(2).collect::<Vec<_>>().join(" ")
}

fn run(case: &Case) {
    let (kills, again) = killed(case);
    assert!(kills >= 4, "{}: {kills} steps", case.command);
    report(&format!("{}: killed at {kills} steps, and in healing {again} times; all healed", case.command));
    let mut counts = Counts::default();
    ERRORS.iter().for_each(|(name, errno)| fail(case, errno, name, &mut counts));
    counts.report(case, "failing steps of files");
}

/// How often it was killed, and how often while it was healed.
fn killed(case: &Case) -> (u64, u64) {
    let command = case.command;
    let (mut kills, mut again) = (0, 0);
    for n in (1..).filter(|n| is_in_share(*n, case.share)) {
        let mut host = (case.setup)();
        let Some((steps, _)) = stopped(&mut host, "kill", n, command, case.status) else {
            break;
        };
        kills += 1;
        let mut after = format!("{command}: killed at step {n}, {}", last(&steps));
        check(&host, &after);
        // of those that heal, each is killed at other steps, too: one, two or three times
        for more in 0..n % 4 {
            if let Some(heal) = (case.heal)(&host)
                && let Some((steps, _)) =
                    stopped(&mut host, "kill", 1 + (n * 7 + more * 5) % 23, heal, case.status)
            {
                after += &format!("; {heal}: killed at {}", last(&steps));
                check(&host, &after);
                again += 1;
            }
        }
        case.heals(&host, &after);
    }
    (kills, again)
}

/// Each step fails.
fn fail(case: &Case, errno: &str, name: &str, counts: &mut Counts) {
    for n in (1..).filter(|n| is_in_share(*n, case.share)) {
        let mut host = (case.setup)();
        let Some((steps, ran)) = stopped(&mut host, errno, n, case.command, case.status) else {
            break;
        };
        // they differ in what the system says, and seldom in what is done
        if matches!(name, "ENOSPC" | "EIO") || is_in_share(n, 3) {
            let after = format!(
                "{}: {name} at step {n}, {}: status {}\n{}",
                case.command,
                last(&steps),
                ran.status,
                ran.stderr
            );
            counts.add(case, &ran, &after);
            case.heals(&host, &after);
        }
    }
}

each_case!(run);

//! Each command of zfs meets each fault; and another process has the lock.

use super::*;

/// What the zfs of the tests does instead, or besides.
const FAULTS: [&str; 8] = ["refused", "missing", "killed", "slow", "silent", "garbage", "half", "huge"];

fn run(case: &Case) {
    let (mut done, mut refused) = (0, 0);
    for (seed, fault) in (0..).zip(FAULTS) {
        for n in 0.. {
            if !is_in_share(n as u64 + seed, 2 * case.share) {
                continue;
            }
            let host = (case.setup)();
            let commands = || host.zfs_log().lines().count();
            let before = commands();
            host.zfs_file("fault", &format!("{} {fault}\n", before + n + 1));
            let ran = host.run(case.command);
            await_children(&host);
            host.remove_zfs_file("fault");
            if commands() - before <= n {
                ran.expect(case.status);
                break;
            }
            let command = host.zfs_log().lines().nth(before + n).unwrap().to_string();
            let after = format!(
                "{}: command {n} of zfs, {command}: {fault}: status {}\n{}",
                case.command, ran.status, ran.stderr
            );
            assert!([0, 1, 3, 75].contains(&ran.status), "{after}");
            assert!(ran.status == 0 || ran.stderr.contains("zfs2s3: error: ") || case.status != 0, "{after}");
            assert!(ran.stderr.len() < 10_000, "{after}");
            assert!(!ran.stderr.contains('\u{1b}'), "{after}");
            if ran.status == case.status {
                done += 1;
            } else {
                refused += 1;
            }
            if ran.stderr.contains("cannot release the hold on ") {
                // the warning shows the command, and the user runs it
                host.zfs_file("holds", "");
            }
            case.heals(&host, &after);
        }
    }
    report(&format!(
        "{}: {} faults of zfs: {done} times done all the same, {refused} times refused; all healed",
        case.command,
        done + refused
    ));
}

each_case!(run);

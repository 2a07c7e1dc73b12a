//! Each command of zfs meets each fault; and another process has the lock.

use super::*;

/// What the zfs of the tests does instead, or besides.
const FAULTS: [&str; 8] = ["refused", "missing", "killed", "slow", "silent", "garbage", "half", "huge"];

fn run(case: &Case) {
    locked(case);
    let mut counts = Counts::default();
    at_each_moment(case, &FAULTS, 3, |host, fault, n| {
        let commands = || host.zfs_log().lines().count();
        let before = commands();
        host.zfs_file("fault", &format!("{} {fault}\n", before + n + 1));
        let ran = host.run(case.command);
        await_children(&host);
        host.remove_zfs_file("fault");
        if commands() - before <= n {
            ran.expect(case.status);
            return false;
        }
        let command = host.zfs_log().lines().nth(before + n).unwrap().to_string();
        let after = format!(
            "{}: command {n} of zfs, {command}: {fault}: status {}\n{}",
            case.command, ran.status, ran.stderr
        );
        counts.add(case, &ran, &after);
        assert!(ran.stderr.len() < 10_000, "{after}");
        assert!(!ran.stderr.contains('\u{1b}'), "{after}");
        if ran.stderr.contains("cannot release the hold on ") {
            // the warning shows the command, and the user runs it
            host.zfs_file("holds", "");
        }
        case.heals(&host, &after);
        true
    });
    counts.report(case, "faults of zfs");
}

/// Another process has the lock: nothing is done.
fn locked(case: &Case) {
    let host = (case.setup)();
    std::fs::create_dir_all(host.data("")).unwrap();
    let lock = std::fs::File::create(host.data("lock")).unwrap();
    lock.lock().unwrap();
    let before = (disk::files(&host.data("")), host.s3.state().objects.len(), host.zfs_log());
    let ran = host.run(case.command);
    if case.command.starts_with("thaw") {
        // it changes nothing on this host
        ran.expect(case.status);
        return;
    }
    ran.expect(4);
    assert!(ran.stderr.contains("another zfs2s3 is running"), "{}", ran.stderr);
    let now = (disk::files(&host.data("")), host.s3.state().objects.len(), host.zfs_log());
    assert!(before == now, "{}: it changes something without the lock", case.command);
    drop(lock);
    case.heals(&host, &format!("{}: without the lock", case.command));
}

each_case!(run);

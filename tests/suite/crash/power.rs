//! The power fails before each step: what was not synced may be lost (support/disk.rs).

use super::steps::{last, stopped};
use super::*;
use crate::support::disk::{self, Disk, Loss};

fn run(case: &Case) {
    let (mut cuts, mut again) = (0, 0);
    for n in (1..).filter(|n| is_in_share(*n, case.share)) {
        let losses = [Loss::Everything, Loss::Bytes, Loss::Names, Loss::Some(n), Loss::Some(n + 1000)];
        let mut is_reached = false;
        for (loss, seed) in losses.into_iter().zip(0..) {
            // the first run of each step tells whether there is one
            if seed > 0 && !(is_reached && is_in_share(n + seed, 4)) {
                continue;
            }
            let mut host = (case.setup)();
            let mut disk = Disk::of(&host.data(""));
            let Some(after) = cut(&mut host, &mut disk, n, case.command, loss, case.status) else { break };
            is_reached = true;
            cuts += 1;
            case.heals(&host, &after);
            again += u64::from(killed_before(case, n, loss));
        }
        if !is_reached {
            break;
        }
    }
    report(&format!(
        "{}: the power fails at {cuts} moments, and {again} times in healing after a kill; all healed",
        case.command
    ));
}

/// Runs the command up to this step, and then the power fails. What happened; none: it has fewer steps.
fn cut(host: &mut Host, disk: &mut Disk, n: u64, command: &str, loss: Loss, status: i32) -> Option<String> {
    let after = kill(host, disk, n, command, status)?;
    let left = disk.cut(loss);
    disk::put(&host.data(""), left.as_ref());
    Some(format!("{after}: the power fails, {loss:?} is lost"))
}

fn kill(host: &mut Host, disk: &mut Disk, n: u64, command: &str, status: i32) -> Option<String> {
    let (steps, _) = stopped(host, "kill", n, command, status)?;
    let there = disk::files(&host.data(""));
    // another thread may have been killed between its step and the change
    let done = (0..steps.len()).rev().take(2).find_map(|count| {
        let mut then = disk.clone();
        then.apply(&steps[..count]);
        (then.files() == there).then_some(then)
    });
    *disk = done.unwrap_or_else(|| panic!("{command}: step {n}: the files are not as they were written"));
    Some(format!("{command}, step {n}, {}", last(&steps)))
}

/// What the killed program has left unsynced is lost only while it is healed.
fn killed_before(case: &Case, n: u64, loss: Loss) -> bool {
    let mut host = (case.setup)();
    let mut disk = Disk::of(&host.data(""));
    let Some(killed) = kill(&mut host, &mut disk, n, case.command, case.status) else { return false };
    let Some(heal) = (case.heal)(&host) else { return false };
    let Some(cut) = cut(&mut host, &mut disk, 1 + n * 7 % 23, heal, loss, case.status) else { return false };
    case.heals(&host, &format!("{killed}: killed; {cut}"));
    true
}

each_case!(run);

//! Two commands at once of which at least one is no upload of one backup, and no removal: on two hosts with
//! one bucket, and on one host, under the schedules of `hosts`.

use crate::hosts::{Ended, Pair};
use crate::support::{Host, made_stream};

const ONE_HOST: [&str; 2] = ["host", "host"];
const TWO_HOSTS: [&str; 2] = ["host0", "host1"];
const CHAIN: [&str; 2] = ["upload tank/a@1", "upload -i @1 tank/a@2"];

fn chain(folders: [&'static str; 2]) -> Pair {
    Pair::of(Host::with_snapshots(4), folders, &CHAIN)
}

#[test]
fn verify_beside_a_removal() {
    for folders in [ONE_HOST, TWO_HOSTS] {
        chain(folders).holds(["remove -i @1 tank/a@2", "verify --deep"]);
    }
}

#[test]
fn verify_beside_an_upload() {
    for folders in [ONE_HOST, TWO_HOSTS] {
        chain(folders).holds(["upload -i @2 tank/a@3", "verify --deep"]);
    }
}

/// What it says to have restored is whole.
fn is_restored(pair: &Pair, ended: &[Ended; 2]) -> Option<String> {
    let restore = ended.iter().find(|it| it.line.starts_with("restore"))?;
    let there = std::fs::read(pair.host.home().join("zfs/tank%new.received")).unwrap_or_default();
    let whole = [made_stream(1, 0, 700), made_stream(2, 1, 700)].concat();
    (restore.status == 0 && there != whole).then(|| format!("{} bytes are restored", there.len()))
}

fn restore_beside(line: &str) {
    for folders in [ONE_HOST, TWO_HOSTS] {
        let mut pair = chain(folders);
        pair.end = is_restored;
        pair.holds([line, "restore tank/a@2 tank/new"]);
    }
}

#[test]
fn restore_beside_a_removal() {
    restore_beside("remove -i @1 tank/a@2");
}

#[test]
fn restore_beside_an_upload() {
    restore_beside("upload -i @2 tank/a@3");
}

#[test]
fn thaw_beside_a_removal() {
    for folders in [ONE_HOST, TWO_HOSTS] {
        let mut host = Host::with_snapshots(4);
        host.set("ZFS2S3_STORAGE_CLASS", "DEEP_ARCHIVE");
        Pair::of(host, folders, &CHAIN).holds(["remove -i @1 tank/a@2", "thaw tank/a@2 tank/new"]);
    }
}

#[test]
fn a_lost_store_is_recovered_beside_an_upload() {
    let mut pair = chain(TWO_HOSTS);
    std::fs::remove_file(pair.folder(1).join("stored_snapshots.yml")).unwrap();
    pair.keep();
    pair.holds(["upload -i @2 tank/a@3", "recover"]);
}

#[test]
fn a_store_is_merged_beside_uploads_and_removals() {
    for folders in [ONE_HOST, TWO_HOSTS] {
        for line in ["upload -i @2 tank/a@3", "remove -i @1 tank/a@2"] {
            chain(folders).holds([line, "recover -m"]);
        }
    }
}

#[test]
fn marks_beside_an_upload() {
    for folders in [ONE_HOST, TWO_HOSTS] {
        for line in ["keep -i @1 tank/a@2", "unkeep -i @1 tank/a@2"] {
            chain(folders).holds(["upload -i @2 tank/a@3", line]);
        }
    }
}

#[test]
fn a_mark_is_removed_beside_a_removal() {
    for folders in [ONE_HOST, TWO_HOSTS] {
        let setup = [CHAIN[0], CHAIN[1], "keep -i @1 tank/a@2"];
        let pair = Pair::of(Host::with_snapshots(4), folders, &setup);
        pair.holds(["unkeep -i @1 tank/a@2", "remove -i @1 tank/a@2"]);
    }
}

#[test]
fn a_tree_is_uploaded_twice_at_once() {
    for folders in [ONE_HOST, TWO_HOSTS] {
        Pair::of(Host::with_tree(), folders, &[]).holds(["upload -ar tank@1", "upload -ar tank@1"]);
    }
}

#[test]
fn a_tree_is_uploaded_while_a_base_is_removed() {
    for folders in [ONE_HOST, TWO_HOSTS] {
        let pair = Pair::of(Host::with_tree(), folders, &["upload -ar tank@1"]);
        pair.holds(["upload -ar tank@2", "remove tank/a@1"]);
    }
}

#[test]
fn a_tree_is_restored_while_one_of_it_is_removed() {
    for folders in [ONE_HOST, TWO_HOSTS] {
        let pair = Pair::of(Host::with_tree(), folders, &["upload -ar tank@1"]);
        pair.holds(["restore -r tank@1 tank/new", "remove tank/a@1"]);
    }
}

//! `restore -r` and `restore -P`: a lost host comes back, with its properties.

use crate::support::{Fault, Host};

/// A host with the backups of `with_tree`, and an empty pool `new`.
fn stored() -> Host {
    let host = Host::with_tree();
    host.zfs_file(
        "kept",
        "tank\tcompression\tzstd\ntank/a\tmountpoint\t/home\ntank/a\tquota\t1073741824\n\
         tank/a\tcom.sun:auto-snapshot\ttrue\ntank/a\tit:password\tsecret\ntank/a/b\tcanmount\ton\n",
    );
    host.ok("upload -ar tank@1");
    host.ok("upload -ar tank@2");
    host.snapshot(("new", 0), 0);
    host
}

/// The snapshots in the pool `new`.
fn received(host: &Host) -> Vec<String> {
    let text = std::fs::read_to_string(host.home().join("zfs/snapshots")).unwrap();
    let names = text.lines().filter_map(|line| line.split('\t').next());
    names.filter(|name| name.starts_with("new/") && name.contains('@')).map(str::to_string).collect()
}

fn properties(host: &Host) -> String {
    let text = std::fs::read_to_string(host.home().join("zfs/kept")).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("new/")).map(|line| line.replace('\t', " "));
    lines.collect::<Vec<_>>().join(", ")
}

const ALL: [&str; 8] = [
    "new/t@11",
    "new/t@12",
    "new/t/a@21",
    "new/t/a@22",
    "new/t/a/b@31",
    "new/t/a/b@32",
    "new/t/c@41",
    "new/t/c@42",
];

#[test]
fn each_dataset_at_its_newest_snapshot_parents_first() {
    let host = stored();
    let planned = host.ok("restore -rn tank new/t").stdout;
    let lines: Vec<&str> = planned.lines().filter(|line| line.starts_with("would")).collect();
    assert_eq!(
        lines,
        ["new/t", "new/t/a", "new/t/a/b", "new/t/c"]
            .map(|d| format!("would restore into {d}, a new dataset"))
    );
    assert!(planned.ends_with(", 4 datasets\n"), "{planned}");
    assert_eq!(received(&host).len(), 0);
    host.ok("restore -r tank new/t");
    assert_eq!(received(&host), ALL);
    // again: nothing is left to do
    let said = host.ok("restore -r tank new/t").stderr;
    assert_eq!(said.matches("exists already; nothing was changed").count(), 4, "{said}");
    assert_eq!(received(&host), ALL);
    // none of them is set unasked
    assert_eq!(properties(&host), "");
}

#[test]
fn it_goes_on_where_it_was_interrupted() {
    let mut host = stored();
    host.set("ZFS2S3_TEST_PATIENCE_MS", "200");
    // the data of the third dataset
    host.s3.fault("GetObject", 10, 999, Fault::Drop);
    host.fails(75, "restore -r tank new/t");
    assert!(!received(&host).is_empty() && received(&host).len() < 8, "{:?}", received(&host));
    host.s3.no_more_faults();
    host.ok("restore -r tank new/t");
    assert_eq!(received(&host), ALL);
}

#[test]
fn at_the_snapshot_of_one_name_where_there_is_one() {
    let host = stored();
    host.ok("remove -i @1 tank/c@2");
    host.ok("restore -r tank/a@1 new/one");
    assert_eq!(received(&host), ["new/one@21", "new/one/b@31"]);
    let said = host.ok("restore -r tank@2 new/two").stderr;
    assert!(said.contains("not restored: tank/c has no snapshot @2 that can be restored"), "{said}");
    assert_eq!(received(&host).len(), 8);
    assert!(
        host.fails(1, "restore -r tank@3 new/x").contains("no backups of tank or of a dataset below it with")
    );
    assert!(host.fails(1, "restore -r other new/x").contains("no backups of other or of a dataset below it"));
    assert!(host.fails(2, "restore -r 12 new/x").contains("-r needs a dataset"));
    assert!(host.fails(2, "restore -r tank#1 new/x").contains("nor a dataset"));
}

#[test]
fn a_dataset_alone_means_its_newest_snapshot() {
    let host = stored();
    host.ok("restore tank/c new/c");
    assert_eq!(received(&host), ["new/c@41", "new/c@42"]);
    assert!(host.ok("thaw tank/c").stdout.contains("tank/c@2"));
    let said = host.fails(1, "restore tank/x new/x");
    assert!(said.contains("no snapshot of tank/x that can be restored is stored"), "{said}");
}

#[test]
fn one_that_fails_does_not_keep_the_others_from_being_restored() {
    let host = stored();
    let key = host.real_key("tank/a@1/0000000000000015-full.zfs");
    let hidden = host.s3.state().take(&key).unwrap();
    let said = host.fails(1, "restore -r tank new/t");
    assert!(said.contains("of 4 datasets, these are not restored: new/t/a, new/t/a/b\n"), "{said}");
    assert_eq!(received(&host), ["new/t@11", "new/t@12", "new/t/c@41", "new/t/c@42"]);
    host.s3.state().objects.insert(hidden.0, hidden.1);
    host.ok("restore -r tank new/t");
    assert_eq!(received(&host).len(), 8);
}

#[test]
fn datasets_in_between_without_a_backup_are_made() {
    let host = Host::with_tree();
    host.zfs_file("excluded", "tank\toff\ntank/a\toff\n");
    host.ok("upload -ar tank@1");
    host.snapshot(("new", 0), 0);
    let said = host.ok("restore -r tank new/t").stderr;
    assert!(said.contains("created new/t, of which no backup is restored"), "{said}");
    assert!(said.contains("created new/t/a, of which no backup is restored"), "{said}");
    assert_eq!(received(&host), ["new/t/a/b@31", "new/t/c@41"]);
    assert_eq!(host.zfs_log().matches("create -o canmount=off new/t").count(), 2);
}

#[test]
fn there_must_be_a_place_for_it() {
    let host = stored();
    for line in ["restore tank new/x/y", "restore -n tank new/x/y", "restore -r tank new/x/y"] {
        let said = host.fails(1, line);
        assert!(said.contains("there is no dataset new/x, in which new/x/y would be"), "{said}");
        assert!(said.contains("create it: zfs create -p new/x\n"), "{said}");
    }
    host.zfs_file("no_pool", "old\n");
    for line in ["restore tank old", "restore tank old/x", "restore -r tank old/x"] {
        assert!(host.fails(1, line).contains("there is no pool old\n"));
    }
    host.zfs_file("available", "100\n");
    for line in ["restore -n tank new/t", "restore -rn tank new/t", "restore tank new/t"] {
        let said = host.ok(line).stderr;
        assert!(said.contains("new has 100B available, and "), "{said}");
    }
}

#[test]
fn kept_properties_are_set_where_that_is_harmless() {
    let host = stored();
    let manifest = host.real_key("tank/a@2/0000000000000016-from-0000000000000015.yml");
    let text = String::from_utf8(host.s3.state().bytes(&manifest).to_vec()).unwrap();
    assert!(text.starts_with("version: 3\n") && text.contains("\n  quota: '1073741824'\n"), "{text}");
    assert!(!text.contains("secret"), "{text}");
    let planned = host.ok("restore -rPn tank new/t").stdout;
    assert!(planned.contains("  would run    zfs set quota=1073741824 new/t/a\n"), "{planned}");
    assert!(planned.contains("  would print  zfs set mountpoint=/home new/t/a\n"), "{planned}");
    assert_eq!(properties(&host), "");
    let ran = host.ok("restore -rP tank new/t");
    assert_eq!(ran.stdout, "zfs set mountpoint=/home new/t/a\nzfs set canmount=on new/t/a/b\n");
    let set = "new/t compression zstd, new/t/a com.sun:auto-snapshot true, new/t/a quota 1073741824";
    assert_eq!(properties(&host), set);
    // what the user has set meanwhile stays, and what is missing is set
    host.zfs_file("kept", "new/t/a\tquota\t5\nnew/t/a\tmountpoint\t/x\n");
    assert_eq!(host.ok("restore -P tank/a new/t/a").stdout, "");
    assert_eq!(
        properties(&host),
        "new/t/a quota 5, new/t/a mountpoint /x, new/t/a com.sun:auto-snapshot true"
    );
}

#[test]
fn properties_that_zfs_refuses_are_named() {
    let host = stored();
    host.zfs_file("no_set", "");
    let said = host.fails(1, "restore -P tank/a new/a");
    assert!(
        said.contains(
            "new/a is restored, but these properties could not be set: com.sun:auto-snapshot, quota ("
        ),
        "{said}"
    );
    assert_eq!(received(&host).len(), 2);
}

/// In a tree, all is received first: a quota may be too small for what is yet to come.
#[test]
fn properties_of_a_tree_are_set_at_the_end() {
    let host = stored();
    host.ok("restore -rP tank new/t");
    let log = host.zfs_log();
    let last_receive = log.rfind("receive -s -u").unwrap();
    assert!(log.find("set compression=zstd").unwrap() > last_receive);
    let again = stored();
    again.zfs_file("no_set", "");
    let said = again.fails(1, "restore -rP tank new/t");
    assert!(said.contains("all is restored, but not all properties: new/t, new/t/a\n"), "{said}");
    assert_eq!(received(&again).len(), 8);
}

#[test]
fn which_properties_are_kept_is_a_setting() {
    for (which, kept) in [("native", true), ("none", false)] {
        let mut host = Host::with_tree();
        host.zfs_file("kept", "tank/c\tquota\t1\ntank/c\tit:x\ty\n");
        host.set("ZFS2S3_PROPERTIES", which);
        host.ok("upload tank/c@1");
        let manifest = host.real_key("tank/c@1/0000000000000029-full.yml");
        let text = String::from_utf8(host.s3.state().bytes(&manifest).to_vec()).unwrap();
        assert!(text.contains("quota") == kept && !text.contains("it:x"), "{text}");
        assert!(text.contains("\ncreated: 2023-11-14T"), "{text}");
    }
    let mut host = Host::with_tree();
    host.set("ZFS2S3_PROPERTIES", "some");
    assert!(
        host.fails(2, "upload tank/c@1").contains("ZFS2S3_PROPERTIES: 'some' is not all, native or none")
    );
}

/// The man page's own consolidation: a bypass to a day of January is stored in February.
#[test]
fn the_newest_is_not_the_one_that_was_stored_last() {
    let host = Host::with_snapshots(6);
    host.ok("upload tank/a@1");
    host.ok("upload -i @1 tank/a@2");
    host.ok("upload -i @2 tank/a@3");
    // a new chain
    host.ok("upload tank/a@4");
    host.ok("upload -i @4 tank/a@5");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    host.ok("upload -i @1 tank/a@3");
    host.ok("remove -i @2 tank/a@3");
    let ran = host.ok("restore tank/a tank/new");
    assert!(ran.stderr.contains("received tank/a@5, incremental from tank/a@4"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    // of the backups of older versions, the time is not known
    let keys: Vec<String> = host.s3.state().keys().iter().map(|key| key.to_string()).collect();
    for key in keys.iter().filter(|key| key.ends_with(".yml")) {
        let text = String::from_utf8(host.s3.state().bytes(key).to_vec()).unwrap();
        let older = text.lines().filter(|line| !line.starts_with("created:")).map(|line| format!("{line}\n"));
        let older: String = older.collect();
        host.s3.state().put_exactly(key, older.as_bytes());
    }
    let said = host.ok("restore -n tank/a tank/new2").stderr;
    assert!(
        said.contains("tank/a@3 is taken for the newest snapshot of tank/a, because it was stored last"),
        "{said}"
    );
    assert!(said.contains("name the right one: tank/a@5"), "{said}");
}

#[test]
fn with_o_the_topmost_dataset_gets_the_property() {
    let host = stored();
    host.ok("restore -r -o readonly=on tank new/t");
    let log = host.zfs_log();
    assert_eq!(log.matches("receive -s -u -o readonly=on").count(), 1, "{log}");
    assert!(log.contains("receive -s -u -o readonly=on new/t\n"));
}

#[test]
fn a_topmost_dataset_without_a_backup_gets_the_property_too() {
    let host = Host::with_tree();
    host.zfs_file("excluded", "tank\toff\n");
    host.ok("upload -ar tank@1");
    host.snapshot(("new", 0), 0);
    host.ok("restore -r -o readonly=on tank new/t");
    let log = host.zfs_log();
    assert!(log.contains("create -o canmount=off -o readonly=on new/t\n"), "{log}");
    assert!(!log.contains("receive -s -u -o"), "{log}");
}

#[test]
fn a_wait_ends_before_it_begins_if_there_is_no_place() {
    let host = stored();
    let said = host.fails(1, "restore -w tank/c new/x/y");
    assert!(said.contains("there is no dataset new/x, in which new/x/y would be"), "{said}");
    assert_eq!(host.s3.state().count("RestoreObject"), 0);
}

#[test]
fn what_is_lost_is_an_error() {
    let host = stored();
    let text = host.store_text();
    let full = text.lines().find(|line| line.contains("tank/c@1")).unwrap();
    host.write_data(
        "stored_snapshots.yml",
        &text.replacen(&format!("{full}\n"), "", 1).replace("count: 8", "count: 7"),
    );
    let said = host.fails(1, "restore -r tank new/t");
    assert!(said.contains("no snapshot of these can be restored: tank/c\n"), "{said}");
    assert_eq!(received(&host).len(), 6);
}

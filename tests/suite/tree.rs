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
    assert!(said.contains("a snapshot of tank/x that can be restored is not stored"), "{said}");
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
    assert!(said.contains("created new/t, of which there is no backup"), "{said}");
    assert!(said.contains("created new/t/a, of which there is no backup"), "{said}");
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
    assert!(planned.contains("  would run  zfs set quota=1073741824 new/t/a\n"), "{planned}");
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

#[test]
fn a_backup_without_properties_can_be_read_by_older_versions() {
    let host = Host::with_snapshots(1);
    host.ok("upload tank/a@1");
    let manifest = host.real_key("tank/a@1/0000000000000001-full.yml");
    let text = String::from_utf8(host.s3.state().bytes(&manifest).to_vec()).unwrap();
    assert!(text.starts_with("version: 2\n") && !text.contains("properties"), "{text}");
    host.ok("restore -P tank/a tank/new");
}

#[test]
fn with_o_the_topmost_dataset_gets_the_property() {
    let host = stored();
    host.ok("restore -r -o readonly=on tank new/t");
    let log = host.zfs_log();
    assert_eq!(log.matches("receive -s -u -o readonly=on").count(), 1, "{log}");
    assert!(log.contains("receive -s -u -o readonly=on new/t\n"));
}

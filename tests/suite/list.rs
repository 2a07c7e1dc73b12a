//! `list`, and the store that it reads, also a damaged or newer one, or that of the Python tool.

use crate::support::{Host, PYTHON_STORE, S1, S2, key, made_stream};

#[test]
fn nothing_is_stored_yet() {
    let host = Host::new();
    let ran = host.ok("list");
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        (
            "",
            "zfs2s3: no backups are in the store; if it was lost, 'zfs2s3 recover' rebuilds it from the bucket\n"
        )
    );
    let scripted = host.ok("list -H");
    assert_eq!((scripted.stdout, scripted.stderr), (String::new(), ran.stderr), "a script is told, too");
    assert_eq!(host.ok("list -j").stdout, "[]\n");
    assert!(!host.data("").exists(), "reading makes no folder");
}

#[test]
fn a_table_fields_and_json() {
    let host = Host::with_snapshots(3);
    host.ok("upload tank/a@1");
    host.ok("upload -i @1 tank/a@2");
    let table = host.ok("list").stdout;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["SNAPSHOT", "BASE", "SIZE", "CHAIN", "RESTORE", "STORED", "(UTC)"]);
    assert_eq!(rows[1][..5], ["tank/a@1", "-", "700B", "1", "700B"]);
    assert_eq!(rows[2][..5], ["tank/a@2", "@1", "700B", "2", "1.37K"]);
    assert_eq!(table.lines().last(), Some("2 backups of 1 dataset, 1.37K"));
    let exact = host.ok("list -Hp tank/a").stdout;
    let fields: Vec<&str> = exact.lines().nth(1).unwrap().split('\t').collect();
    assert_eq!((&fields[..5], fields[6]), (&["tank/a@2", "2", "tank/a@1", "700", "STANDARD"][..], "stored"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(now - fields[5].parse::<u64>().unwrap() < 100);
    assert!(host.ok("list -H").stdout.lines().all(|line| line.split('\t').nth(5).unwrap().ends_with('Z')));
    assert_eq!(host.ok("list -H tank").stdout, "", "another dataset");
    let json: serde_json::Value = serde_json::from_str(&host.ok("list -j").stdout).unwrap();
    assert_eq!(json[1]["snapshot"], "tank/a@2");
    assert_eq!(json[1]["guid"], "2");
    assert_eq!(json[1]["base_guid"], "1");
    assert_eq!(json[1]["bytes"], 700);
    host.fails(2, "list tank/a@1");
    host.fails(2, "list -x");
}

#[test]
fn chosen_columns_in_a_chosen_order() {
    let host = Host::with_snapshots(3);
    host.ok("upload tank/a@1");
    host.ok("upload -i @1 tank/a@2");
    host.ok("upload -i @2 tank/a@3");
    let table = host.ok("list -o snapshot,chain,age -S snapshot").stdout;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["SNAPSHOT", "CHAIN", "AGE"]);
    assert_eq!(rows[1], ["tank/a@3", "3", "0", "min"]);
    assert_eq!(rows[3][..2], ["tank/a@1", "1"]);
    assert_eq!(host.ok("list -H -o base,size -S chain").stdout, "tank/a@2\t700\ntank/a@1\t700\n-\t700\n");
    assert_eq!(host.ok("list -Ho verified -s size -s guid").stdout, "-\n-\n-\n");
    assert_eq!(
        host.ok("list -j -S guid").stdout.matches("\"snapshot\": \"tank/a@").count(),
        3,
        "JSON can be sorted, too"
    );
    let refused = host.fails(2, "list -o name");
    assert!(refused.contains("there is no column 'name'"), "{refused}");
    assert!(refused.contains("the columns are snapshot, "), "{refused}");
    for line in ["-jo size", "-A -s size", "-R -S size", "--dot -o size", "--dot -s size"] {
        let refused = host.fails(2, &format!("list {line}"));
        assert!(refused.contains("cannot be combined with"), "{refused}");
    }
}

#[test]
fn a_dataset_with_those_below_it() {
    let host = Host::with_tree();
    host.ok("upload -ar tank/a@1");
    host.ok("upload tank/c@1");
    assert_eq!(host.ok("list -Hr tank/a -o snapshot").stdout, "tank/a@1\ntank/a/b@1\n");
    assert_eq!(host.ok("list -Ho snapshot tank/a").stdout, "tank/a@1\n");
    let said = host.ok("list tank").stderr;
    assert!(
        said.contains("no backups of tank itself are stored; 'zfs2s3 list -r tank' shows those below it"),
        "{said}"
    );
    assert_eq!(host.ok("list -Hro snapshot tank").stdout.lines().count(), 3);
}

#[test]
fn a_picture_of_the_chains() {
    let host = Host::with_snapshots(3);
    host.ok("upload tank/a@1");
    host.ok("upload -i @1 tank/a@2");
    host.ok("upload -i @1 tank/a@3");
    let picture = host.ok("list --dot").stdout;
    for line in [
        "label=\"tank/a\"",
        "\"1\" [label=\"@1\\nfull, 700B\", peripheries=2]",
        "\"3\" [label=\"@3\"]",
        "\"1\" -> \"2\" [label=\"700B\"]",
        "\"1\" -> \"3\" [label=\"700B\"]",
    ] {
        assert!(picture.contains(line), "{line} in {picture}");
    }
    assert!(host.ok("list --dot tank/b").stdout.is_empty());
}

#[test]
fn a_closed_pipe_is_not_a_crash() {
    let host = Host::with_snapshots(1);
    host.ok("upload tank/a@1");
    let mut child = host.spawn("list");
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_damaged_or_newer_store_is_an_error_and_is_not_changed() {
    let host = Host::with_snapshots(2);
    host.ok("upload tank/a@1");
    let good = host.store_text();
    for (text, why) in [
        (String::new(), "missing field"),
        ("\0".repeat(100), ""),
        (good[..good.len() - 40].to_string(), ""),
        (good.replace("version: 2", "version: 5"), "version 5"),
        (good.replace("- {", "- {\"later\":1,"), "later"),
        (good.replace("tank/a@1/0", "tank/b@1/0"), "keys of its segments belong to another backup"),
    ] {
        host.write_data("stored_snapshots.yml", &text);
        for line in ["list", "upload tank/a@2", "remove tank/a@1"] {
            let said = host.fails(1, line);
            assert!(said.contains("stored_snapshots.yml cannot be used") && said.contains(why), "{said}");
        }
        assert_eq!(host.store_text(), text);
    }
}

#[test]
fn a_store_belongs_to_one_bucket_and_prefix() {
    let mut host = Host::with_snapshots(2);
    host.ok("upload tank/a@1");
    host.set("ZFS2S3_PREFIX", "x/");
    let said = host.fails(1, "list");
    assert!(
        said.contains("is for bucket 'test-bucket', prefix '', not for bucket 'test-bucket', prefix 'x/'"),
        "{said}"
    );
    host.fails(1, "upload tank/a@2");
}

#[test]
fn the_store_of_the_python_tool_is_read_and_converted() {
    let host = Host::of_python_tool();
    assert_eq!(host.listed(), ["tank/src@s1 - - - stored", "tank/src@s2 tank/src@s1 - - stored"]);
    assert_eq!(host.store_text(), PYTHON_STORE, "list changes nothing");
    host.fails(3, "upload tank/src@s1");
    host.fails(3, "remove tank/src@s1");
    host.snapshot(("tank/src@s3", 33), 30);
    host.add_stream(("", 33), Some(S2), &made_stream(33, S2.1, 700));
    host.ok("upload -i @s2 tank/src@s3");
    let aside = std::fs::read_to_string(host.data("stored_snapshots.yml.orig")).unwrap();
    assert_eq!(aside, PYTHON_STORE);
    assert_eq!(host.listed()[2], "tank/src@s3 tank/src@s2 700 STANDARD stored");
    assert!(host.fails(3, "remove -i @s1 tank/src@s2").contains("-i tank/src@s2 tank/src@s3"));
    host.ok("remove -i @s2 tank/src@s3");
    host.ok("remove -i @s1 tank/src@s2");
    assert_eq!(host.s3.state().keys(), ["tank/src@s1"]);
    host.ok("remove tank/src@s1");
    assert_eq!(host.s3.state().keys(), [""; 0]);
}

#[test]
fn a_python_backup_whose_object_is_gone_is_no_base() {
    let host = Host::of_python_tool();
    host.s3.state().objects.remove("tank/src@s1");
    host.snapshot(("tank/src@s3", 33), 30);
    host.add_stream(("", 33), Some(S2), &made_stream(33, S2.1, 700));
    assert!(host.fails(3, "upload -i @s2 tank/src@s3").contains("no stored chain"));
}

#[test]
fn an_upload_pending_in_the_python_tool_is_named_and_not_touched() {
    let host = Host::of_python_tool();
    host.write_data("upload_schedule.yml", include_str!("../legacy/upload_schedule.yml"));
    host.write_data("upload_progress.yml", include_str!("../legacy/upload_progress.yml"));
    for line in ["upload tank/src@s2", "remove -i @s1 tank/src@s2", "resume_upload", "abort_upload"] {
        let said = host.fails(4, line);
        assert!(
            said.contains("an upload of the older, Python zfs2s3 is pending: 'tank/src@s3 <- tank/src@s2'"),
            "{said}"
        );
        assert!(said.contains("--upload-id '2~abcDEF'"), "{said}");
    }
    assert_eq!(host.listed().len(), 2);
    std::fs::remove_file(host.data("upload_progress.yml")).unwrap();
    host.fails(4, "resume_upload");
    std::fs::remove_file(host.data("upload_schedule.yml")).unwrap();
    host.fails(4, "resume_upload");
    host.ok("remove -i @s1 tank/src@s2");
    assert!(!host.s3.state().keys().contains(&key(S1.0, S1.1, None).as_str()));
}

/// All else that the completions offer comes from the program itself.
#[test]
fn completions_know_the_columns() {
    let host = Host::new();
    let refused = host.fails(2, "list -o nonsense");
    let columns = refused.split("the columns are ").nth(1).unwrap().trim_end().replace(", ", " ");
    for name in ["zfs2s3.bash", "_zfs2s3", "zfs2s3.fish"] {
        let file = format!("{}/src/package/{name}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(&columns), "{columns} in {file}");
    }
}

/// The README shows it as src/package/chains.svg. `make readme` makes both, with ZFS2S3_PUT_PICTURE set.
#[test]
fn the_picture_in_the_readme_is_current() {
    let host = Host::new();
    const DAYS: [(&str, usize); 5] =
        [("01-01", 61_000), ("01-02", 2_400), ("01-31", 3_100), ("02-01", 1_800), ("02-02", 2_700)];
    for (to, (day, size)) in (1..).zip(DAYS) {
        host.snapshot((&format!("tank/home@2026-{day}"), to), to * 10);
        host.add_stream(("", to), None, &made_stream(to, 0, size));
        for from in 1..to {
            host.add_stream(("", to), Some(("", from)), &made_stream(to, from, size * (to - from) as usize));
        }
    }
    host.ok("upload tank/home@2026-01-01");
    for pair in DAYS.windows(2) {
        host.ok(&format!("upload -i @2026-{} tank/home@2026-{}", pair[0].0, pair[1].0));
    }
    host.ok("upload -i @2026-01-01 tank/home@2026-02-01");
    let picture = host.ok("list --dot").stdout;
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/package/chains.dot");
    if std::env::var_os("ZFS2S3_PUT_PICTURE").is_some() {
        std::fs::write(file, &picture).unwrap();
    }
    assert_eq!(picture, std::fs::read_to_string(file).unwrap(), "make readme puts this one there");
}

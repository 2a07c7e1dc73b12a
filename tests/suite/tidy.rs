//! Rules of this repository that a compiler does not check.

use std::path::{Path, PathBuf};

fn sources() -> Vec<(String, String)> {
    let mut found = vec![];
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name =
                    path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_str().unwrap().to_string();
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 20);
    found
}

/// The code before its tests.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap()
}

fn uses(text: &str, module: &str) -> bool {
    let path = format!("crate::{module}");
    code(text).match_indices(&path).any(|(at, _)| {
        let next = code(text)[at + path.len()..].chars().next();
        !next.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// Pure modules know nothing of files, processes, the network, the environment, or the edges.
#[test]
fn arrows_point_one_way() {
    const PURE: &[&str] = &[
        "names",
        "announcement",
        "backup",
        "copy",
        "chain",
        "chunks",
        "digest",
        "keys",
        "manifest",
        "manifest/text",
        "stream",
        "stream/fletcher",
        "stream/record",
        "stream/rewriting",
        "stream/split",
        "stream/watch",
        "send_flags",
        "shell",
        "units",
        "yaml",
        "route",
        "recover",
        "readme",
        "restore/plan",
        "restore/partial",
        "restore/locate",
        "restore/search",
        "store/format",
        "store/python",
        "progress/record",
        "s3/request",
        "s3/reply",
        "s3/failure",
        "s3/hint",
        "s3/dialect",
        "config/region",
        "config/requests",
    ];
    const EDGES: &[&str] = &[
        "zfs",
        "store::Store",
        "store::Folder",
        "s3::client",
        "s3::calls",
        "durable",
        "lock",
        "ui",
        "pipeline",
    ];
    for (name, text) in sources() {
        let module = name.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
        if PURE.contains(&module) {
            for word in
                ["std::fs", "std::process", "std::net", "std::env", "std::io", "std::thread", "Utc::now"]
            {
                assert!(!code(&text).contains(word), "{name} is to be pure, and names {word}");
            }
            for edge in EDGES.iter().chain(&["upload", "commands", "inventory"]) {
                assert!(!uses(&text, edge), "{name} is to be pure, and uses {edge}");
            }
        }
        let top = module.split('/').next().unwrap();
        if !["commands", "upload", "main"].contains(&top) {
            for above in ["commands", "upload"] {
                assert!(!uses(&text, above), "{name} uses {above}, which is above it");
            }
        }
        if top == "upload" {
            assert!(!uses(&text, "commands"), "{name} uses commands");
        }
        if top != "main" && top != "commands" {
            assert!(!uses(&text, "cli"), "{name} uses cli");
        }
    }
}

#[test]
fn only_ui_prints_and_only_yaml_names_a_yaml_library() {
    for (name, text) in sources() {
        for word in ["println!", "eprintln!", "print!(", "dbg!"] {
            let may = name == "src/ui.rs" || name.ends_with("_model.rs");
            assert!(may || !code(&text).contains(word), "{name} has {word}");
        }
        assert!(name == "src/yaml.rs" || !text.contains("serde_yaml"), "{name} names serde_yaml");
        assert!(!text.contains("unsafe "), "{name} has unsafe code");
    }
}

#[test]
fn nothing_panics_on_what_comes_from_outside() {
    for (name, text) in sources() {
        if name.ends_with("_model.rs") {
            continue;
        }
        for word in [".unwrap()", ".expect(", "panic!", "unreachable!", "todo!", "unimplemented!"] {
            assert!(!code(&text).contains(word), "{name} has {word}");
        }
    }
}

#[test]
fn each_file_says_first_what_it_is_for() {
    for (name, text) in sources() {
        assert!(text.starts_with("//! "), "{name} does not begin with its purpose");
    }
}

#[test]
fn each_dependency_has_its_reason() {
    let manifest = include_str!("../../Cargo.toml");
    let dependencies = manifest.split("[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let mut above = "";
    for line in dependencies.lines().filter(|line| !line.is_empty()) {
        assert!(line.starts_with('#') || above.starts_with('#'), "{line} has no reason");
        above = line;
    }
}

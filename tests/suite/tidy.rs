//! Rules of this repository that a compiler does not check.

use std::path::{Path, PathBuf};

fn sources() -> Vec<(String, String)> {
    files_in("src")
}

fn files_in(folder: &str) -> Vec<(String, String)> {
    let mut found = vec![];
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
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
    assert!(found.len() > 15, "{folder}");
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

/// The parts that main.rs lists, from the top down.
fn map() -> Vec<String> {
    let (_, main) = sources().into_iter().find(|(name, _)| name == "src/main.rs").unwrap();
    let listed = main.lines().filter_map(|line| line.strip_prefix("//! - `")?.split('`').next());
    listed.map(str::to_string).collect()
}

#[test]
fn each_part_uses_only_those_below_it() {
    let map = map();
    let (_, main) = sources().into_iter().find(|(name, _)| name == "src/main.rs").unwrap();
    let mut declared: Vec<&str> =
        main.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';')).collect();
    let mut listed: Vec<&str> = map.iter().map(String::as_str).collect();
    declared.sort_unstable();
    listed.sort_unstable();
    assert_eq!(declared, listed, "modules, and the map in main.rs");
    for (name, text) in sources().iter().filter(|(name, _)| name != "src/main.rs") {
        let part = name.trim_start_matches("src/").split('/').next().unwrap().trim_end_matches(".rs");
        let place = map.iter().position(|listed| listed == part).unwrap();
        for above in &map[..place] {
            assert!(!uses(text, above), "{name} uses {above}, which is above it");
        }
    }
}

/// Pure modules know nothing of files, processes, the network, the environment, the clock, or the parts that
/// do.
#[test]
fn pure_modules_are_pure() {
    const PURE: &[&str] = &[
        "chain",
        "model",
        "stream",
        "inventory/copies",
        "recover/compare",
        "restore/target",
        "restore/route",
        "restore/plan",
        "restore/resume",
        "state/store/format",
        "state/store/python",
        "state/store/selector",
        "state/store/history",
        "state/journal/parts",
        "state/journal/record",
        "s3/request",
        "s3/reply",
        "s3/failure",
        "s3/hint",
        "s3/dialect",
        "aws/region",
        "aws/requests",
        "aws/endpoint",
        "ui/table",
        "zfs/send_flags",
    ];
    const EDGES: &[&str] = &[
        "zfs::Zfs",
        "state::store::Store",
        "state::store::Folder",
        "s3::client",
        "s3::calls",
        "state::durable",
        "state::lock",
        "ui",
        "chunk_io",
        "os::process",
        "os::random",
    ];
    let mut found = 0;
    for (name, text) in sources() {
        let module = name.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
        let is_pure = |pure: &&str| {
            module.strip_prefix(*pure).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if !PURE.iter().any(is_pure) || name == "src/chain/protocol.rs" {
            continue;
        }
        found += 1;
        for word in [
            "std::fs",
            "std::process",
            "std::net",
            "std::env",
            "std::io",
            "std::thread",
            "now_utc",
            "os::clock",
        ] {
            assert!(!code(&text).contains(word), "{name} is to be pure, and names {word}");
        }
        for edge in EDGES {
            assert!(!uses(&text, edge), "{name} is to be pure, and uses {edge}");
        }
    }
    assert!(found > PURE.len(), "each of them is a file or a folder");
}

#[test]
fn only_one_module_names_the_yaml_library() {
    for (name, text) in sources() {
        assert!(name == "src/model/yaml.rs" || !text.contains("serde_yaml"), "{name} names serde_yaml");
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

#[test]
fn the_design_names_files_that_are_there() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let design = std::fs::read_to_string(top.join("src/DESIGN.md")).unwrap();
    let mut found = 0;
    for word in design.split('`').skip(1).step_by(2) {
        let is_path = word.ends_with(".rs") || (word.ends_with('/') && !word.contains([' ', ':']));
        if is_path {
            found += 1;
            assert!(top.join("src").join(word).exists() || top.join(word).exists(), "{word}");
        }
    }
    assert!(found > 20);
}

/// The packages of the build for this platform, as cargo knows them.
fn packages() -> Vec<serde_json::Value> {
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &host])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let built: Vec<&serde_json::Value> =
        metadata["resolve"]["nodes"].as_array().unwrap().iter().map(|node| &node["id"]).collect();
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().filter(|package| built.contains(&&package["id"])).cloned().collect()
}

/// The part of .deny.toml that needs neither cargo-deny nor the network.
#[test]
fn dependencies_have_allowed_licences_and_come_from_the_registry() {
    let deny = include_str!("../../.deny.toml");
    let allowed: Vec<&str> = deny
        .split("allow = [")
        .nth(1)
        .unwrap()
        .split(']')
        .next()
        .unwrap()
        .lines()
        .filter_map(|line| line.trim().strip_prefix('"')?.split('"').next())
        .collect();
    assert!(allowed.contains(&"MIT"));
    let is_allowed = |licence: &str| {
        let licence = licence.replace('/', " OR ").replace(['(', ')'], "");
        licence.split(" AND ").all(|all| all.split(" OR ").any(|one| allowed.contains(&one.trim())))
    };
    let packages = packages();
    assert!(packages.len() > 50);
    for package in packages {
        let (name, licence) = (&package["name"], package["license"].as_str().unwrap_or_default());
        assert!(is_allowed(licence), "{name} has the licence '{licence}'");
        let source = package["source"].as_str().unwrap_or("registry+");
        assert!(source.starts_with("registry+"), "{name} comes from {source}");
    }
}

/// Clippy checks that the code uses nothing newer (incompatible_msrv).
#[test]
fn no_dependency_needs_a_newer_rust() {
    let version = |text: &str| text.split('.').map(|n| n.parse().unwrap()).collect::<Vec<u32>>();
    let ours = version(env!("CARGO_PKG_RUST_VERSION"));
    for package in packages() {
        if let Some(needed) = package["rust_version"].as_str() {
            assert!(version(needed)[..2] <= ours[..2], "{} needs Rust {needed}", package["name"]);
        }
    }
}

#[test]
fn comments_are_no_wider_than_code() {
    let limit: usize = include_str!("../../.rustfmt.toml")
        .lines()
        .find_map(|line| line.strip_prefix("max_width = ")?.parse().ok())
        .unwrap();
    for (name, text) in sources().into_iter().chain(files_in("tests/suite")) {
        for line in text.lines().filter(|line| line.trim_start().starts_with("//")) {
            // tables and URLs are not broken
            let is_text = !line.contains("   ") || line.trim_start().starts_with("//! -");
            let width = line.chars().count();
            assert!(
                width <= limit || !is_text || line.contains("https://"),
                "{name}: {width} columns: {line}"
            );
        }
    }
}

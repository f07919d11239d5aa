//! The order of the house: which crate may know which, where dependencies come from, and under which licences.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{Metadata, MetadataCommand};

/// What each crate of the house may import of the others. Arrows go down only; what is not listed here fails, so that a
/// new crate needs a decision about its place.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("khufu-scope", &[]),
    ("khufu-crdt", &[]),
    ("khufu-store", &[]),
    ("khufu-p2p", &[]),
    ("khufu-engine", &["khufu-crdt", "khufu-scope"]),
    ("khufu-drivers", &["khufu-crdt"]),
    ("khufu-node", &["khufu-p2p", "khufu-store", "khufu-drivers", "khufu-engine", "khufu-crdt", "khufu-scope"]),
    (
        "khufu-cli",
        &["khufu-node", "khufu-p2p", "khufu-store", "khufu-drivers", "khufu-engine", "khufu-crdt", "khufu-scope"],
    ),
    ("khufu-benches", &["khufu-test-servers"]),
    ("khufu-test-servers", &[]),
    ("khufu-simulations", &["khufu-engine", "khufu-crdt", "khufu-scope"]),
    (
        "khufu",
        &["khufu-node", "khufu-p2p", "khufu-store", "khufu-drivers", "khufu-engine", "khufu-crdt", "khufu-scope"],
    ),
];

/// What the pure crates must never reach, directly or through others: the outside world.
const NEVER_IN_PURE: &[&str] = &["tokio", "libp2p", "sled", "axum", "hyper", "reqwest", "mio", "socket2", "async-std"];
const PURE: &[&str] = &["khufu-scope", "khufu-crdt", "khufu-engine"];

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    here.canonicalize().expect("the repository is where Cargo built it")
}

/// The target that the tests were built for: packages for others need not be on this machine.
fn host() -> String {
    let output =
        Command::new(std::env::var("RUSTC").unwrap_or("rustc".into())).arg("-vV").output().expect("rustc runs");
    let text = String::from_utf8(output.stdout).expect("rustc prints UTF-8");
    text.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host").to_owned()
}

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(["--locked".to_owned(), "--filter-platform".to_owned(), host()])
        .exec()
        .expect("cargo metadata works")
}

/// The imports of each crate of the house among the others. Tests may look further, so dev-dependencies do not count.
fn arrows(metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
    let members: BTreeSet<&str> = metadata.workspace_packages().iter().map(|package| package.name.as_str()).collect();
    let imports = |package: &cargo_metadata::Package| {
        let normal = package.dependencies.iter().filter(|dependency| {
            matches!(dependency.kind, cargo_metadata::DependencyKind::Normal | cargo_metadata::DependencyKind::Build)
        });
        normal.map(|dependency| dependency.name.clone()).filter(|name| members.contains(name.as_str())).collect()
    };
    metadata.workspace_packages().iter().map(|package| (package.name.to_string(), imports(package))).collect()
}

/// Every arrow that the table does not allow, in words.
fn forbidden(arrows: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (from, imports) in arrows {
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| name == from) else {
            wrong.push(format!("{from} has no place in the house: decide what it may import"));
            continue;
        };
        for to in imports.iter().filter(|to| !allowed.contains(&to.as_str())) {
            wrong.push(format!("{from} must not import {to}"));
        }
    }
    wrong
}

#[test]
fn arrows_between_the_crates_go_down_only() {
    let arrows = arrows(&metadata());
    assert!(arrows.contains_key("khufu-engine") && arrows["khufu-cli"].contains("khufu-node"), "{arrows:?}");
    assert_eq!(forbidden(&arrows), Vec::<String>::new());
}

#[test]
fn an_arrow_that_goes_up_would_be_seen() {
    let arrow = |from: &str, to: &str| BTreeMap::from([(from.to_owned(), BTreeSet::from([to.to_owned()]))]);
    assert_eq!(forbidden(&arrow("khufu-crdt", "khufu-scope")), ["khufu-crdt must not import khufu-scope"]);
    assert_eq!(forbidden(&arrow("khufu-engine", "khufu-store")).len(), 1);
    assert_eq!(forbidden(&arrow("khufu-new", "khufu-crdt")).len(), 1);
    assert!(forbidden(&arrow("khufu-node", "khufu-p2p")).is_empty());
}

#[test]
fn the_pure_crates_reach_nothing_of_the_outside_world() {
    for crate_name in PURE {
        let found: BTreeSet<String> = tree(&["-p", crate_name, "-e", "normal"])
            .into_iter()
            .map(|line| line.name)
            .filter(|name| NEVER_IN_PURE.contains(&name.as_str()))
            .collect();
        assert!(found.is_empty(), "{crate_name} reaches {found:?}");
    }
}

#[test]
fn every_dependency_comes_from_the_registry_or_the_house() {
    let metadata = metadata();
    let root = root();
    for package in &metadata.packages {
        match &package.source {
            Some(source) => assert!(source.repr.starts_with("registry+"), "{} comes from {source}", package.name),
            None => {
                assert!(package.manifest_path.starts_with(&root), "{} lies outside the repository", package.name);
            }
        }
    }
}

#[test]
fn every_dependency_has_a_licence_that_is_allowed() {
    let allowed = allowed_licences();
    assert!(allowed.contains("Apache-2.0"), "deny.toml lists licences");
    let lines = tree(&["--workspace", "-e", "normal,build,dev"]);
    assert!(lines.len() > 100, "the tree has {} packages only", lines.len());
    let wrong: Vec<String> = lines
        .iter()
        .filter(|line| !permits(&allowed, &line.licence))
        .map(|line| format!("{} is under {:?}", line.name, line.licence))
        .collect();
    assert_eq!(wrong, Vec::<String>::new(), "not in the list of deny.toml");
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = BTreeSet::from(["MIT".to_owned(), "ISC".to_owned(), "Apache-2.0 WITH LLVM-exception".to_owned()]);
    for good in
        ["MIT", "GPL-3.0 OR MIT", "MIT/GPL-2.0", "(GPL-2.0 OR ISC) AND MIT", "Apache-2.0 WITH LLVM-exception OR X"]
    {
        assert!(permits(&allowed, good), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "", "(MIT OR ISC) AND MPL-2.0", "GPL-2.0 OR MIT AND MPL-2.0", "MIT OR"] {
        assert!(!permits(&allowed, bad), "{bad}");
    }
}

struct Line {
    name: String,
    licence: String,
}

/// The packages that Cargo really builds: unlike `cargo metadata`, `cargo tree` leaves out what no feature switches on.
fn tree(arguments: &[&str]) -> Vec<Line> {
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["tree", "--locked", "--prefix", "none", "--format", "{p}|{l}"])
        .args(arguments)
        .output()
        .expect("cargo tree runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("cargo prints UTF-8");
    // A package printed again carries " (*)" behind its licence.
    let lines: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once('|'))
        .map(|(package, licence)| (package, licence.trim_end_matches(" (*)").trim()))
        .collect();
    lines
        .into_iter()
        .map(|(package, licence)| Line {
            name: package.split(' ').next().unwrap_or_default().to_owned(),
            licence: licence.to_owned(),
        })
        .collect()
}

fn allowed_licences() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml is there");
    let value: toml::Table = text.parse().expect("deny.toml is TOML");
    let list = value["licenses"]["allow"].as_array().expect("licenses.allow is a list");
    list.iter().map(|licence| licence.as_str().expect("licences are strings").to_owned()).collect()
}

/// Whether an SPDX expression can be met with the licences allowed; `/` is an older way to write OR.
fn permits(allowed: &BTreeSet<String>, expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let value = either(allowed, &tokens, &mut at);
    value == Some(true) && at == tokens.len()
}

fn either(allowed: &BTreeSet<String>, tokens: &[&str], at: &mut usize) -> Option<bool> {
    let mut value = both(allowed, tokens, at)?;
    while tokens.get(*at) == Some(&"OR") {
        *at += 1;
        value |= both(allowed, tokens, at)?;
    }
    Some(value)
}

fn both(allowed: &BTreeSet<String>, tokens: &[&str], at: &mut usize) -> Option<bool> {
    let mut value = single(allowed, tokens, at)?;
    while tokens.get(*at) == Some(&"AND") {
        *at += 1;
        value &= single(allowed, tokens, at)?;
    }
    Some(value)
}

fn single(allowed: &BTreeSet<String>, tokens: &[&str], at: &mut usize) -> Option<bool> {
    let token = *tokens.get(*at)?;
    *at += 1;
    if token == "(" {
        let value = either(allowed, tokens, at)?;
        (tokens.get(*at) == Some(&")")).then(|| *at += 1)?;
        return Some(value);
    }
    if tokens.get(*at) == Some(&"WITH") {
        let exception = *tokens.get(*at + 1)?;
        *at += 2;
        return Some(allowed.contains(&format!("{token} WITH {exception}")));
    }
    Some(allowed.contains(token))
}

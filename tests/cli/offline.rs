//! What needs no node.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::khufu;

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    std::fs::write(dir.join(name), text).expect("a file");
    name.to_owned()
}

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crdt/tests/data/convergence-vectors.json")
}

#[test]
fn arguments_that_make_no_sense_end_with_2_and_say_why() {
    let dir = dir();
    for (arguments, word) in [
        (&["frobnicate"][..], "frobnicate"),
        (&["get", "a/b"], "'/'"),
        (&["get", "..", "-o", "json"], ".."),
        (&["op", "web"], "--type"),
        (&["op", "web", "--type", "t", "--payload", "hello"], "--payload '{"),
        (&["op", "web", "--type", "t", "--wait", "soon"], "30s"),
        (&["demo", "--sites", "10"], "2 to 9"),
        (&["demo", "--sites", "1"], "2 to 9"),
        (&["node", "--driver", "files"], "key=value"),
        (&["get", "--limit", "0"], "0"),
        (&["get", "-o", "xml"], "xml"),
        (&["get", "--api", "https://localhost:1"], "TLS"),
        (&["completions", "cobol"], "cobol"),
        (&["apply", "-f", "missing.yaml"], "missing.yaml"),
        (&["policy", "resolve", "missing.json"], "missing.json"),
        (&["kubernetes", "rbac", "--service-account", "khufu"], "NAMESPACE/NAME"),
        (&["kubernetes", "rbac", "--policy", "p.yaml"], "--file"),
    ] {
        khufu(dir.path(), arguments).with_code(2).says(&[word]);
    }
}

#[test]
fn help_names_the_exit_codes_and_every_command_explains_itself() {
    let dir = dir();
    let help = khufu(dir.path(), &["--help"]).with_code(0).out;
    assert!(help.contains("Exit codes") && help.contains("KHUFU_API"), "{help}");
    for command in [
        "node",
        "init",
        "demo",
        "apply",
        "op",
        "get",
        "describe",
        "diff",
        "history",
        "conflicts",
        "delete",
        "sites",
        "peers",
        "verify",
        "events",
        "scope",
        "policy",
        "kubernetes",
        "completions",
    ] {
        assert!(help.contains(command), "{command} is not in:\n{help}");
        khufu(dir.path(), &[command, "--help"]).with_code(0);
    }
}

#[test]
fn the_documentation_names_every_command_and_variable() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let page = std::fs::read_to_string(page).expect("docs/cli.md is there");
    let dir = dir();
    let help = khufu(dir.path(), &["--help"]).out;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    for command in commands.filter_map(|line| line.split_whitespace().next()).filter(|command| *command != "help") {
        assert!(page.contains(&format!("khufu {command}")), "`khufu {command}` is not in docs/cli.md");
    }
    let node = khufu(dir.path(), &["node", "--help"]).out;
    for variable in node.split(|c: char| !c.is_ascii_uppercase() && c != '_').filter(|word| word.starts_with("KHUFU_"))
    {
        assert!(page.contains(variable), "{variable} is not in docs/cli.md");
    }
}

#[test]
fn without_a_node_the_code_is_5_and_the_way_out_is_said() {
    let dir = dir();
    // Nothing can listen on port 1 of a loopback address that nobody configured.
    khufu(dir.path(), &["get", "--api", "http://127.9.9.9:1"]).with_code(5).says(&["127.9.9.9:1", "khufu node"]);
    khufu(dir.path(), &["verify", "--api", "127.9.9.9:1"]).with_code(5);
    khufu(dir.path(), &["events", "--api", "127.9.9.9:1"]).with_code(5);
}

#[test]
fn completions_are_printed_for_the_usual_shells() {
    let dir = dir();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = khufu(dir.path(), &["completions", shell]).with_code(0).out;
        assert!(script.contains("khufu") && script.contains("describe"), "{shell}");
    }
}

#[test]
fn the_convergence_vectors_resolve_as_expected() {
    let dir = dir();
    let vectors = vectors();
    let path = vectors.to_str().expect("a path in UTF-8");
    let answer = khufu(dir.path(), &["policy", "resolve", path, "-o", "json"]).with_code(0).json();
    let text = std::fs::read_to_string(&vectors).expect("the vectors are there");
    let expected: Value = serde_json::from_str(&text).expect("the vectors are JSON");
    let cases: Vec<Value> = expected["cases"]
        .as_array()
        .expect("cases")
        .iter()
        .map(|case| {
            let mut answer = json!({"name": case["name"], "resolved": case["resolved"]});
            if let Some(run) = case.get("run") {
                answer["run"] = run.clone();
            }
            answer
        })
        .collect();
    assert!(cases.len() >= 8);
    assert_eq!(answer, json!({"cases": cases}));
    let table = khufu(dir.path(), &["policy", "resolve", path]).with_code(0).out;
    assert!(table.contains("take one") && !table.contains("NO"), "{table}");
}

#[test]
fn a_case_that_is_not_as_expected_ends_with_1_and_is_named() {
    let dir = dir();
    let case = |expected: &str| {
        format!(
            "cases:\n- name: two writes\n  policy: {{resolutions: [{{before: set, after: set, result: take-one}}]}}\n  \
             operations:\n  - {{id: a, type: set, at: 1, by: paris}}\n  - {{id: b, type: set, at: 2, by: rennes}}\n  \
             resolved: [{expected}]\n  applied: {{paris: [a]}}\n  run: {{paris: {{rebuild: true, steps: [b]}}}}\n"
        )
    };
    let good = write(dir.path(), "good.yaml", &case("b"));
    khufu(dir.path(), &["policy", "resolve", &good]).with_code(0);
    let bad = write(dir.path(), "bad.yaml", &case("a"));
    let ran = khufu(dir.path(), &["policy", "resolve", &bad]).with_code(1);
    assert!(ran.out.contains("two writes: resolved is [\"b\"], expected is [\"a\"]"), "{}", ran.out);
    khufu(dir.path(), &["policy", "resolve", &bad, "-o", "json"]).with_code(1);
}

#[test]
fn cases_that_make_no_sense_are_refused_by_name() {
    let dir = dir();
    let operation = |id: &str, parent: &str| format!("{{id: {id}, type: t, parents: [{parent}], at: 1, by: paris}}");
    for (text, words) in [
        (
            format!("cases: [{{name: circle, operations: [{}, {}]}}]", operation("a", "b"), operation("b", "a")),
            ["circle", "parents"],
        ),
        (format!("cases: [{{name: twice, operations: [{0}, {0}]}}]", operation("a", "")), ["twice", "called a"]),
        ("policies: {p: {}}\ncases: [{name: which, policy: q, operations: []}]".to_owned(), ["which", "there are p"]),
        ("cases: [{name: bad id, operations: [{id: a/b, type: t, at: 1, by: x}]}]".to_owned(), ["'/'", "a/b"]),
        ("case: []".to_owned(), ["cases", "line 1"]),
    ] {
        let file = write(dir.path(), "cases.yaml", &text);
        khufu(dir.path(), &["policy", "resolve", &file]).with_code(2).says(&words);
    }
}

#[test]
fn a_scope_is_explained_for_the_sites_of_a_file() {
    let dir = dir();
    let sites = "here: paris\nsites:\n  paris: {labels: {zone: west}}\n  rennes: {labels: {zone: west}, rtt_ms: {paris: 12.5}}\n  nantes: {state: down}\n";
    let sites = write(dir.path(), "sites.yaml", sites);
    let explain = |scope: &str| khufu(dir.path(), &["scope", "explain", scope, "--sites", &sites, "-o", "json"]);
    let places = |scope: &str| explain(scope).with_code(0).json()["places"].clone();
    assert_eq!(places("[zone=west]")[0]["sites"], json!(["paris", "rennes"]));
    assert_eq!(places("nantes & paris | rennes")[0]["sites"], json!(["rennes"]));
    assert_eq!(places("around(paris, 20ms)")[0]["sites"], json!(["paris", "rennes"]));
    assert_eq!(places("paris % rennes")[0]["prime"], json!("paris"));
    assert_eq!(places("image: paris, compute: here").as_array().map(Vec::len), Some(2));
    // Every mistake in one pass, with carets, and the nearest known name.
    explain("paris & & rennes").with_code(2).says(&["found `&`", "1:9"]);
    explain("pariss & nante").with_code(2).says(&["`pariss`", "`paris`", "`nante`", "`nantes`"]);
    let file = write(dir.path(), "bad.yaml", "sites: {paris: {label: {a: b}}}\n");
    khufu(dir.path(), &["scope", "explain", "paris", "--sites", &file])
        .with_code(2)
        .says(&["label", "labels", "line 1"]);
}

#[test]
fn init_makes_a_site_and_never_overwrites_one() {
    let dir = dir();
    let init = |arguments: &[&str]| khufu(dir.path(), &[&["init"], arguments].concat());
    let made = init(&["--site", "paris", "--dir", "paris", "--label", "region=west", "-o", "json"]).with_code(0).json();
    let config = std::fs::read_to_string(dir.path().join("paris/khufu.toml")).expect("a configuration");
    let table: toml::Table = config.parse().expect("TOML");
    assert_eq!(table["site"].as_str(), Some("paris"));
    assert_eq!(table["labels"]["region"].as_str(), Some("west"));
    use std::os::unix::fs::PermissionsExt as _;
    for secret in ["paris/swarm.key", "paris/data/identity.key"] {
        let mode = std::fs::metadata(dir.path().join(secret)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    let mode = std::fs::metadata(dir.path().join("paris/data")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "what is stored is for nobody else");
    let key = std::fs::read_to_string(dir.path().join("paris/swarm.key")).expect("a key");
    let secret = key.lines().nth(2).expect("three lines");
    assert!(!made.to_string().contains(secret) && !config.contains(secret), "the key must not be shown");

    init(&["--site", "other", "--dir", "paris"]).with_code(4).says(&["khufu.toml", "not overwritten"]);
    assert_eq!(std::fs::read_to_string(dir.path().join("paris/khufu.toml")).expect("still there"), config);

    // The next site gets the same key, and its own identity.
    let join = ["--site", "rennes", "--dir", "rennes", "--psk-file", "paris/swarm.key", "-o", "json"];
    let joined = init(&join).with_code(0).json();
    assert_eq!(joined["psk_fingerprint"], made["psk_fingerprint"]);
    assert_ne!(joined["peer"], made["peer"]);
    init(&["--site", "lyon", "--dir", "lyon", "--psk-file", "paris/khufu.toml"]).with_code(2).says(&["khufu.toml"]);
    assert!(!dir.path().join("lyon").exists(), "a refusal leaves nothing");
    init(&["--site", "a/b", "--dir", "x"]).with_code(2).says(&["'/'"]);
    for (flag, says) in [("--listen", "/ip4/"), ("--bootstrap", "/ip4/"), ("--api", "IP:PORT")] {
        init(&["--site", "x", "--dir", "x", flag, "nonsense"]).with_code(2).says(&["nonsense", says]);
    }
    assert!(!dir.path().join("x").exists(), "a refusal leaves nothing");
}

/// What a ready policy says of two operations of any types: asked for while apart, the one with the higher clock second; and
/// one after the other.
#[test]
fn the_ready_policy_for_kubernetes_says_what_becomes_of_each_pair_and_of_what_came_before() {
    const TYPES: [&str; 5] = ["apply", "patch", "scale", "restart", "delete"];
    let dir = dir();
    let name = "kubernetes-policy";
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../examples/{name}.yaml"));
    let policy = std::fs::read_to_string(policy).expect("the policy is there");
    let policy: String = policy.lines().map(|line| format!("    {line}\n")).collect();
    let (mut text, mut names) = (format!("policies:\n  it:\n{policy}cases:\n"), 0);
    for before in TYPES {
        for after in TYPES {
            let both = format!("[{before}-1, {after}-2]");
            let turned = format!("[{after}-2, {before}-1]");
            let later = format!("[{after}-2]");
            // Of two that are all there is, the later stays.
            let same = before == after && before == "apply";
            let apart = match (before, after) {
                _ if same => &later,
                (_, "apply") => &turned,
                _ => &both,
            };
            let seen = match (before, after) {
                _ if same => &later,
                (_, "apply") => &later,
                _ => &both,
            };
            for (parents, resolved) in [("[]".to_owned(), apart), (format!("[{before}-1]"), seen)] {
                names += 1;
                text.push_str(&format!(
                        "  - name: {names} {before} {after} {parents}\n    policy: it\n    resolved: {resolved}\n    operations:\n      \
                         - {{id: {before}-1, type: {before}, parents: [], at: 1, by: paris}}\n      \
                         - {{id: {after}-2, type: {after}, parents: {parents}, at: 2, by: rennes}}\n"
                    ));
            }
        }
    }
    // What comes twice takes nothing away that was there before.
    for twice in ["patch", "scale", "restart", "delete"] {
        text.push_str(&format!(
                "  - name: patched, then {twice} twice\n    policy: it\n    resolved: [first, second, third]\n    operations:\n      \
                 - {{id: first, type: patch, parents: [], at: 1, by: paris}}\n      \
                 - {{id: second, type: {twice}, parents: [first], at: 2, by: paris}}\n      \
                 - {{id: third, type: {twice}, parents: [second], at: 3, by: paris}}\n"
            ));
    }
    let file = write(dir.path(), "pairs.yaml", &text);
    let ran = khufu(dir.path(), &["policy", "resolve", &file]);
    assert!(!ran.err.contains("warning"), "{name}: {ran:?}");
    ran.with_code(0);
}

//! Secrets in files.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use khufu_p2p::{Identity, IdentityError, Psk, PskError, PskFormatError, SecretFileError, verify};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn an_identity_is_made_once_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("identity");
    let first = Identity::load_or_create(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert!(first.peer_id().starts_with("12D3Koo"), "{first}");
    assert_eq!(Identity::load_or_create(&path).unwrap().peer_id(), first.peer_id());
    let files: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["identity"], "no draft is left");
}

#[test]
fn many_that_make_an_identity_at_once_agree() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("identity");
    let ids: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| Identity::load_or_create(&path).unwrap().peer_id())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn an_identity_that_others_can_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("identity");
    Identity::load_or_create(&path).unwrap();
    for bits in [0o640, 0o604, 0o620, 0o601] {
        set_mode(&path, bits);
        let error = Identity::load_or_create(&path).unwrap_err();
        assert!(
            matches!(error, IdentityError::File(SecretFileError::Exposed { mode, .. }) if mode == bits),
            "{error:?}"
        );
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    set_mode(&path, 0o400);
    Identity::load_or_create(&path).unwrap();
}

#[test]
fn a_file_that_is_no_identity_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("identity");
    for content in [&b""[..], b"hello", &[0; 68], &[8, 1, 18, 64, 1, 2, 3]] {
        std::fs::write(&path, content).unwrap();
        set_mode(&path, 0o600);
        let error = Identity::load_or_create(&path).unwrap_err();
        assert!(matches!(error, IdentityError::Malformed { .. }), "{error:?}");
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
    std::fs::write(&path, vec![0; 5000]).unwrap();
    assert!(matches!(Identity::load(&path).unwrap_err(), IdentityError::File(SecretFileError::TooLarge { .. })));
    assert!(matches!(Identity::load(directory.path()).unwrap_err(), IdentityError::File(_)));
    let missing = directory.path().join("no/such/directory");
    assert!(matches!(Identity::load_or_create(missing).unwrap_err(), IdentityError::File(SecretFileError::Io { .. })));
}

#[test]
fn a_signature_is_checked_with_the_peer_id_alone() {
    let (author, other) = (Identity::generate(), Identity::generate());
    let signature = author.sign(b"message");
    assert_eq!(signature.len(), 64);
    assert!(verify(&author.peer_id(), b"message", &signature));
    assert!(!verify(&other.peer_id(), b"message", &signature));
    assert!(!verify(&author.peer_id(), b"massage", &signature));
    assert!(!verify(&author.peer_id(), b"message", &signature[..63]));
    assert!(!verify(&author.peer_id(), b"message", b""));
    // A peer id that is a digest of a key, as of RSA keys, holds no key.
    for id in ["", "x", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", &"1".repeat(100_000)] {
        assert!(!verify(id, b"message", &signature));
    }
}

const KEY: &str = "6189c5cf0b87fb800c1a9feeda73c6ab5e998db48fb9e6a978575c770ceef683";

fn text(key: &str) -> String {
    format!("/key/swarm/psk/1.0.0/\n/base16/\n{key}\n")
}

#[test]
fn the_fingerprint_is_that_of_other_implementations() {
    let psk = Psk::parse(&text(KEY)).unwrap();
    // As go-ipfs prints it for this key.
    assert_eq!(psk.fingerprint(), "45fc986bbc9388a11d939df26f730f0c");
    assert_eq!(Psk::parse(&text(&KEY.to_uppercase())).unwrap(), psk);
    assert_eq!(Psk::parse(&text(KEY).replace('\n', "\r\n")).unwrap(), psk);
    assert_eq!(Psk::parse(text(KEY).trim_end()).unwrap(), psk);
    for shown in [format!("{psk}"), format!("{psk:?}"), format!("{:?}", Some(psk))] {
        assert!(shown.contains(&psk.fingerprint()) && !shown.contains(&KEY[..8]), "{shown}");
    }
}

#[test]
fn garbage_is_no_key() {
    use PskFormatError::{Digit, Encoding, Header, Length, Trailing};
    let table = [
        (String::new(), Header),
        ("\n".into(), Header),
        (KEY.into(), Header),
        (text(KEY).replace("1.0.0", "2.0.0"), Header),
        (format!(" {}", text(KEY)), Header),
        (text(KEY).replace("base16", "base64"), Encoding),
        ("/key/swarm/psk/1.0.0/\n".into(), Encoding),
        ("/key/swarm/psk/1.0.0/\n/base16/".into(), Length { found: 0 }),
        (text(""), Length { found: 0 }),
        (text(&KEY[1..]), Length { found: 63 }),
        (text(&format!("{KEY}0")), Length { found: 65 }),
        // 64 bytes, but characters of two: other parsers cut them in half and panic.
        (text(&format!("0{}0", "é".repeat(31))), Digit { column: 2 }),
        (text(&"é".repeat(32)), Digit { column: 1 }),
        // Numbers to a lenient parser.
        (text(&"+b".repeat(32)), Digit { column: 1 }),
        (text(&format!("{}-1", &KEY[2..])), Digit { column: 63 }),
        (text(&format!("0x{}", &KEY[2..])), Digit { column: 2 }),
        (text(&format!(" {}", &KEY[1..])), Digit { column: 1 }),
        (text(&KEY.replace('6', "\0")), Digit { column: 1 }),
        (format!("{}{KEY}\n", text(KEY)), Trailing { line: 4 }),
        (format!("{}\n\nx", text(KEY)), Trailing { line: 6 }),
    ];
    for (text, expected) in table {
        let error = Psk::parse(&text).unwrap_err();
        assert_eq!(error, expected, "{text:?}");
        assert!(!error.to_string().contains(&KEY[..8]), "{error}");
    }
}

#[test]
fn a_key_file_is_private_and_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("swarm.key");
    assert!(matches!(Psk::load(&path).unwrap_err(), PskError::File(SecretFileError::Io { .. })));
    let psk = Psk::generate();
    psk.to_file(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(Psk::load(&path).unwrap(), psk);
    assert_ne!(Psk::generate(), psk);
    assert!(matches!(Psk::generate().to_file(&path).unwrap_err(), PskError::File(SecretFileError::Exists { .. })));
    assert_eq!(Psk::load(&path).unwrap(), psk);
    set_mode(&path, 0o644);
    let error = Psk::load(&path).unwrap_err();
    assert!(error.to_string().contains("chmod 600"), "{error}");
    for garbage in [&[0xff; 100][..], b"/key/swarm/psk/1.0.0/\n\xff\n"] {
        std::fs::write(&path, garbage).unwrap();
        set_mode(&path, 0o600);
        let error = Psk::load(&path).unwrap_err();
        assert!(matches!(&error, PskError::Malformed { source: PskFormatError::NotText, .. }), "{error}");
        assert!(error.to_string().contains("swarm.key"), "{error}");
    }
}

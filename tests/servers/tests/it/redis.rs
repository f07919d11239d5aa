//! Redis servers start, answer, and end with the test.

use std::os::unix::net::UnixStream;
use std::process::Command;

use khufu_test_servers::Redis;

#[test]
fn each_has_values_of_its_own_and_ends_when_it_is_dropped() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let Some(servers) = [&one, &other].map(|dir| Redis::start(dir.path())).into_iter().collect::<Option<Vec<_>>>()
    else {
        return;
    };
    let ask = |dir: &tempfile::TempDir, words: &[&str]| {
        let output = Command::new("redis-cli").args(["-s", "redis.sock"]).args(words).current_dir(dir.path()).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    assert_eq!(ask(&one, &["set", "a", "1"]), "OK\n");
    assert_eq!((ask(&one, &["get", "a"]), ask(&other, &["get", "a"])), ("1\n".to_owned(), "\n".to_owned()));
    drop(servers);
    for dir in [&one, &other] {
        assert!(UnixStream::connect(dir.path().join("redis.sock")).is_err());
    }
}

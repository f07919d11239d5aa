//! Redis servers, each on a socket of its own in a directory of its own.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::process::Process;

/// A running `redis-server`, without a port, that keeps nothing on the disk. Dropping it ends it.
#[derive(Debug)]
pub struct Redis {
    socket: PathBuf,
    process: Process,
}

impl Redis {
    /// Starts one in a directory that is there, with its socket in it as `redis.sock`. None, with the reason printed, where
    /// there is no `redis-server` or `redis-cli` in `PATH`.
    ///
    /// # Panics
    /// If they are not there and `KHUFU_REQUIRE_SERVERS` is set, or if the server does not answer.
    pub fn start(dir: &Path) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let find = |name: &str| std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
        let (Some(server), Some(_)) = (find("redis-server"), find("redis-cli")) else {
            crate::leave_out("redis-server and redis-cli: apt-get install redis-server");
            return None;
        };
        let dir = dir.canonicalize().expect("the directory is there");
        let socket = dir.join("redis.sock");
        let place = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
        let arguments = ["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no", "--unixsocket"];
        let mut arguments = arguments.map(str::to_owned).to_vec();
        arguments.extend([place(&socket), "--dir".to_owned(), place(&dir)]);
        let mut redis = Self { process: Process::start("redis-server", &server, &arguments, &dir), socket };
        let deadline = Instant::now() + PATIENCE;
        while !redis.answers() {
            let over = redis.process.ended().is_some() || Instant::now() > deadline;
            assert!(!over, "redis-server does not answer, and said:\n{}", redis.process.said());
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(redis)
    }

    fn answers(&self) -> bool {
        let ask = || {
            let mut stream = UnixStream::connect(&self.socket)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"PING\r\n")?;
            let mut answer = [0; 7];
            stream.read_exact(&mut answer)?;
            Ok::<_, std::io::Error>(answer == *b"+PONG\r\n")
        };
        ask().unwrap_or(false)
    }
}

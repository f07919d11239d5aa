//! The raw floor: 200 bytes, synced here, sent over TCP to two receivers that sync them and answer.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Options;
use crate::table::{Goal, Table};

const BYTES: usize = 200;

fn append(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).expect("a file")
}

fn receiver(path: &Path) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut file = append(path);
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        let mut bytes = [0; BYTES];
        while stream.read_exact(&mut bytes).is_ok() {
            file.write_all(&bytes).and_then(|()| file.sync_data()).expect("a disk");
            stream.write_all(&[1]).expect("a connection");
        }
    });
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    stream
}

fn measure(dir: &Path, rounds: u64, rate: u64) -> (Vec<f64>, Vec<f64>) {
    let mut file = append(&dir.join("here"));
    let mut receivers = [receiver(&dir.join("one")), receiver(&dir.join("two"))];
    let (mut synced, mut everywhere) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    for round in 0..rounds {
        std::thread::sleep((Duration::from_secs(1) * round as u32 / rate as u32).saturating_sub(begun.elapsed()));
        let started = Instant::now();
        file.write_all(&[7; BYTES]).and_then(|()| file.sync_data()).expect("a disk");
        synced.push(started.elapsed().as_secs_f64() * 1e3);
        receivers.iter_mut().for_each(|to| to.write_all(&[7; BYTES]).expect("a connection"));
        receivers.iter_mut().for_each(|from| from.read_exact(&mut [0]).expect("an answer"));
        everywhere.push(started.elapsed().as_secs_f64() * 1e3);
    }
    (synced, everywhere)
}

pub(crate) async fn run(options: &Options, table: &mut Table) {
    table.begin("floor");
    let dir = tempfile::Builder::new().prefix("khufu-bench-").tempdir_in(&options.dir).expect("a directory");
    let (rounds, rate) = (options.seconds * options.rate, options.rate);
    let path = dir.path().to_owned();
    let measured = tokio::task::spawn_blocking(move || measure(&path, rounds, rate)).await.expect("a thread");
    table.add("200 B synced here", "ms", Goal::None, measured.0);
    table.add("200 B synced here and at two receivers", "ms", Goal::None, measured.1);
}

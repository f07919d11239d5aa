//! Somebody between the driver and a service, who lets everything through until told otherwise.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The one in the middle.
pub(super) struct Middle {
    pub(super) port: u16,
    lose: Arc<Mutex<Option<String>>>,
    lost: Arc<AtomicUsize>,
}

impl Middle {
    /// One before this port.
    pub(super) fn before(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let own = listener.local_addr().unwrap().port();
        let (lose, lost) = (Arc::new(Mutex::new(None)), Arc::new(AtomicUsize::new(0)));
        let told = (lose.clone(), lost.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (lose, lost) = told.clone();
                std::thread::spawn(move || pass(stream, port, &lose, &lost));
            }
        });
        Self { port: own, lose, lost }
    }

    /// The answer to the next request that begins so is lost.
    pub(super) fn lose(&self, request: &str) {
        *self.lose.lock().unwrap() = Some(request.to_owned());
    }

    /// How many answers were lost.
    pub(super) fn lost(&self) -> usize {
        self.lost.load(Ordering::SeqCst)
    }
}

/// One request after the other, whole.
fn pass(mut client: TcpStream, port: u16, lose: &Mutex<Option<String>>, lost: &AtomicUsize) -> Option<()> {
    loop {
        let request = message(&mut client)?;
        let mut server = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).ok()?;
        server.write_all(&request).ok()?;
        let answer = message(&mut server)?;
        let is_lost = lose.lock().unwrap().take_if(|begin| request.starts_with(begin.as_bytes())).is_some();
        if is_lost {
            lost.fetch_add(1, Ordering::SeqCst);
            let _ = client.shutdown(Shutdown::Both);
            return None;
        }
        client.write_all(&answer).ok()?;
    }
}

/// A message of HTTP, by its length or, without one, its head alone.
fn message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    let mut part = [0; 16 << 10];
    loop {
        let end = all.windows(4).position(|four| four == b"\r\n\r\n").map(|end| end + 4);
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&all[..end]).to_ascii_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
            let whole = match length {
                Some(length) => all.len() >= end + length,
                None if head.contains("transfer-encoding: chunked") => all.ends_with(b"0\r\n\r\n"),
                None => true,
            };
            if whole {
                return Some(all);
            }
        }
        match stream.read(&mut part).ok()? {
            0 => return None,
            read => all.extend_from_slice(&part[..read]),
        }
    }
}

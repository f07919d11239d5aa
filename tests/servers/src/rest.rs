//! A small REST service of notes, with all that makes such services hard to work with: creating is not idempotent, names are
//! its own, answers have fields that differ from service to service, lists come in pages, and it can be told to be busy, to be
//! slow, to fail before or after it has done its work, and to hang up.
//!
//! ```
//! use khufu_test_servers::rest::{Fault, Rest};
//!
//! let paris = Rest::builder(100).start();
//! paris.next("POST", "/notes", Fault::HangUpAfter);
//! assert!(paris.url().starts_with("http://127.0.0.1:"));
//! assert!(paris.notes().is_empty());
//! ```
//!
//! | | |
//! |---|---|
//! | `POST /api/notes` | creates one: 201, `{"data": NOTE}` and a `Location` |
//! | `GET /api/notes?label=L&page=N` | `{"items": [NOTE], "next": PATH}`, three a page |
//! | `GET`, `PUT`, `PATCH`, `DELETE` `/api/notes/ID` | one note; `PUT` is whole, `PATCH` merges |
//! | `POST /api/notes/ID/lines`, `DELETE .../lines/N` | adds a line, removes one |
//! | `GET`, `PUT`, `DELETE` `/api/texts/NAME` | plain text under a name of the client's choice |
//!
//! A `POST` with an `Idempotency-Key` that was there before gets the answer that the first one got, or should have got.

mod faults;
mod notes;
mod wire;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

pub use faults::Fault;
use faults::Faults;
use notes::Notes;
use wire::{Connection, Tls};

use crate::PATIENCE;

/// What it was asked: method, path with query, and headers by their names in small letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// The path with the query.
    pub path: String,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Asked {
    /// A header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Debug, Default)]
struct Shared {
    notes: Mutex<Notes>,
    faults: Mutex<Faults>,
    asked: Mutex<Vec<Asked>>,
    stopping: AtomicBool,
    under_way: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A service to be started.
#[derive(Debug, Default)]
pub struct Builder {
    first: u64,
    tls: bool,
}

impl Builder {
    /// Serves over TLS, with a certificate for `localhost` of an authority of its own.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Starts it on a port of the kernel's choice.
    ///
    /// # Panics
    /// If it cannot listen.
    #[must_use]
    pub fn start(self) -> Rest {
        let shared = Arc::new(Shared::default());
        lock(&shared.notes).begin_at(self.first);
        let tls = self.tls.then(|| Arc::new(Tls::new()));
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let mut rest = Rest { shared, tls, address, listening: None };
        rest.listen(listener);
        rest
    }
}

/// A running service. Dropping it ends it.
#[derive(Debug)]
pub struct Rest {
    shared: Arc<Shared>,
    tls: Option<Arc<Tls>>,
    address: SocketAddr,
    listening: Option<JoinHandle<()>>,
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Rest {
    /// A service whose first note has this number, so that those of another one have other numbers.
    #[must_use]
    pub fn builder(first: u64) -> Builder {
        Builder { first, tls: false }
    }

    /// The address that its paths are below.
    #[must_use]
    pub fn url(&self) -> String {
        match &self.tls {
            Some(_) => format!("https://localhost:{}/api", self.address.port()),
            None => format!("http://{}/api", self.address),
        }
    }

    /// The certificate of its authority, as PEM; empty without TLS.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.tls.as_ref().map_or("", |tls| tls.authority())
    }

    /// Does this to the next request with this method and a path that has this in it.
    pub fn next(&self, method: &str, path: &str, fault: Fault) {
        lock(&self.shared.faults).next(method, path, fault);
    }

    /// Does something bad to so many of a hundred requests from now on, chosen by a seed.
    pub fn chaos(&self, seed: u64, of_a_hundred: u32) {
        lock(&self.shared.faults).chaos(seed, of_a_hundred);
    }

    /// All notes, by number.
    #[must_use]
    pub fn notes(&self) -> Vec<Value> {
        lock(&self.shared.notes).all()
    }

    /// A text by its name.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        lock(&self.shared.notes).text(name)
    }

    /// How many notes were ever created.
    #[must_use]
    pub fn created(&self) -> usize {
        lock(&self.shared.notes).created()
    }

    /// The most notes with the same label that there ever were at once.
    #[must_use]
    pub fn most_alike(&self) -> usize {
        lock(&self.shared.notes).most_alike()
    }

    /// Changes notes behind everybody's back.
    ///
    /// # Panics
    /// If there is no such note.
    pub fn edit(&self, id: u64, change: impl FnOnce(&mut Value)) {
        change(lock(&self.shared.notes).note(id).expect("there is such a note"));
    }

    /// Removes a note behind everybody's back. Whether there was one.
    pub fn remove(&self, id: u64) -> bool {
        lock(&self.shared.notes).remove(id)
    }

    /// All that it was asked so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.shared.asked).clone()
    }

    /// How often it was asked with this method for a path that ends so, without its query.
    #[must_use]
    pub fn count(&self, method: &str, path: &str) -> usize {
        let is_it = |asked: &&Asked| {
            asked.method == method && asked.path.split('?').next().is_some_and(|asked| asked.ends_with(path))
        };
        lock(&self.shared.asked).iter().filter(is_it).count()
    }

    /// Waits until nothing is being done any more, also of what nobody waits for.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn quiet(&self) {
        let since = Instant::now();
        while self.shared.under_way.load(SeqCst) > 0 {
            assert!(since.elapsed() < PATIENCE, "it is still at something");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops listening, and keeps what it has.
    pub fn stop(&mut self) {
        let Some(listening) = self.listening.take() else { return };
        self.shared.stopping.store(true, SeqCst);
        // Wakes up whoever waits for a connection.
        drop(TcpStream::connect_timeout(&self.address, Duration::from_secs(5)));
        // It has said why if it panicked.
        let _ = listening.join();
    }

    /// Listens again, at the same port.
    ///
    /// # Panics
    /// If somebody else has taken the port.
    pub fn start_again(&mut self) {
        if self.listening.is_none() {
            self.listen(TcpListener::bind(self.address).expect("the port is still free"));
        }
    }

    fn listen(&mut self, listener: TcpListener) {
        self.shared.stopping.store(false, SeqCst);
        let (shared, tls) = (self.shared.clone(), self.tls.clone());
        self.listening = Some(std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopping.load(SeqCst) {
                    return;
                }
                let (shared, tls) = (shared.clone(), tls.clone());
                if let Ok(stream) = stream {
                    shared.under_way.fetch_add(1, SeqCst);
                    std::thread::spawn(move || {
                        serve(&shared, stream, tls.as_deref());
                        shared.under_way.fetch_sub(1, SeqCst);
                    });
                }
            }
        }));
    }
}

/// Serves one request.
fn serve(shared: &Shared, stream: TcpStream, tls: Option<&Tls>) {
    // Whoever hangs up, or does not speak TLS, needs no answer.
    let Some(mut connection) = Connection::new(stream, tls) else { return };
    let Some(asked) = connection.asked() else { return };
    lock(&shared.asked).push(asked.clone());
    let fault = lock(&shared.faults).choose(&asked);
    match &fault {
        Some(Fault::TooMany { retry_after_s }) => {
            let pause = retry_after_s.to_string();
            return connection.answer(429, &[("Retry-After", pause.as_str())], &serde_json::json!({"error": "busy"}));
        }
        Some(Fault::FailBefore(status)) => {
            return connection.answer(*status, &[], &serde_json::json!({"error": "not done"}));
        }
        Some(Fault::HangUpBefore) => return,
        Some(Fault::SlowBefore(pause)) => std::thread::sleep(*pause),
        Some(Fault::MovedTo(place)) => {
            return connection.answer(302, &[("Location", place.as_str())], &Value::Null);
        }
        _ => {}
    }
    let said = lock(&shared.notes).answer(&asked);
    match fault {
        Some(Fault::FailAfter(status)) => connection.answer(status, &[], &serde_json::json!({"error": "after it"})),
        Some(Fault::HangUpAfter) => {}
        Some(Fault::SlowAfter(pause)) => {
            std::thread::sleep(pause);
            connection.say(&said);
        }
        Some(Fault::CutAfter) => connection.say_half(&said),
        _ => connection.say(&said),
    }
}

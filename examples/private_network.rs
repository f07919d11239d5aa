//! Who can join a private network and who cannot: two nodes share a key, a third has another one.
//!
//! `cargo run --example private_network` ends by itself, with an error if what it claims is not so.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use khufu::{Followed, Happening, Node, Preset, Psk, StartError};

async fn node(site: &str, psk: Psk, bootstrap: &[String]) -> Result<Node, StartError> {
    // In memory, and with an identity made for this run. A real node has `.data(dir)`.
    let mut builder = Node::builder(site)
        .store(Arc::new(khufu::store::MemoryStore::new()))
        .preset(Preset::Fast)
        .psk(psk)
        .listen("/ip4/127.0.0.1/tcp/0");
    for address in bootstrap {
        builder = builder.bootstrap(address);
    }
    builder.start().await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tokio::time::timeout(Duration::from_secs(30), run()).await?
}

async fn run() -> Result<(), Box<dyn Error>> {
    let (ours, other) = (Psk::generate(), Psk::generate());
    println!("our key has the fingerprint {}, the other one {}", ours.fingerprint(), other.fingerprint());

    let paris = node("paris", ours, &[]).await?;
    let rennes = node("rennes", ours, &paris.addresses()).await?;
    let stranger = node("stranger", other, &paris.addresses()).await?;

    while paris.peers().await.is_empty() || rennes.peers().await.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("paris and rennes are connected");

    // A wrong key looks like silence on the wire. The node notices that no handshake comes about, and says so.
    let mut events = stranger.events_after(khufu::Cursor { process: 0, number: 0 });
    loop {
        match events.next().await.ok_or("the stranger stopped")? {
            Followed::Event(_, event) => {
                if let Happening::Warning { message, .. } = &event.what {
                    println!("the stranger hears: {message}");
                    break;
                }
            }
            Followed::Gap(_) => {}
        }
    }
    if !stranger.peers().await.is_empty() {
        return Err("a node with another key has joined".into());
    }
    let peers: Vec<_> = paris.peers().await.into_iter().map(|peer| peer.node).collect();
    if peers != [rennes.id().clone()] {
        return Err(format!("paris is connected with {peers:?}, not only with rennes").into());
    }
    println!("the stranger has not joined");
    for node in [stranger, rennes, paris] {
        node.shutdown().await;
    }
    Ok(())
}

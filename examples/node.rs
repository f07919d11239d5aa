//! A whole node in a page. Replicants of the kind `files` become files in `DIR/files`.
//!
//! ```sh
//! cargo run --example node -- paris run/paris /ip4/127.0.0.1/tcp/7000 127.0.0.1:7780
//! cargo run --example node -- rennes run/rennes /ip4/127.0.0.1/tcp/7001 127.0.0.1:7781 /ip4/127.0.0.1/tcp/7000
//! curl -X PUT 127.0.0.1:7780/v1/replicants/motd -H 'Content-Type: application/json' \
//!      -d '{"kind": "files", "scope": "paris & rennes", "desired": {"text": "good morning"}}'
//! cat run/*/files/motd
//! ```
//!
//! The program `khufu node` does the same with a configuration file, keys and drivers to choose from.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use khufu::{FilesDriver, Node};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [site, dir, listen, api, bootstrap @ ..] = args.as_slice() else {
        return Err("usage: node SITE DIR LISTEN API [BOOTSTRAP...]".into());
    };
    let mut builder = Node::builder(site)
        .data(dir)
        .driver(Arc::new(FilesDriver::new(Path::new(dir).join("files"))?))
        .listen(listen)
        .api(api.parse()?);
    for address in bootstrap {
        builder = builder.bootstrap(address);
    }
    let node = builder.start().await?;
    println!("{site} listens on {:?}, its API is at {:?}", node.addresses(), node.api_address());

    tokio::select! {
        _ = tokio::signal::ctrl_c() => println!("stopping"),
        stopped = node.stopped() => println!("stopped: {stopped:?}"),
    }
    node.shutdown().await;
    Ok(())
}

//! A network that goes silent without ending any connection, as a cable does that is pulled.

use std::time::{Duration, Instant};

use khufu_p2p::{Config, DownReason, Event};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::{config, start};

/// Forwards connections to `target`. While it is cut, nothing passes and nothing ends.
async fn relay(target: String, cut: watch::Receiver<bool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (near, _) = listener.accept().await.unwrap();
            let (target, cut) = (target.clone(), cut.clone());
            tokio::spawn(async move {
                let far = TcpStream::connect(target).await.unwrap();
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                tokio::join!(forward(near_in, far_out, cut.clone()), forward(far_in, near_out, cut));
            });
        }
    });
    format!("/ip4/127.0.0.1/tcp/{port}")
}

async fn forward(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut cut: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if cut.wait_for(|cut| !cut).await.is_err() || to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    // The end passes only when something else would.
    let _ = cut.wait_for(|cut| !cut).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_network_is_noticed_and_its_return_is_too() {
    outage(false).await;
}

/// What is under way then fills every buffer, so that the connection cannot even be closed properly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_goes_silent_under_load_is_noticed_too() {
    outage(true).await;
}

async fn outage(under_load: bool) {
    let quick = || {
        let mut config = config(None);
        config.kademlia = false;
        config.timing.ping_interval = Duration::from_millis(100);
        config.timing.ping_timeout = Duration::from_millis(1000);
        config
    };
    let mut left = start(quick()).await;
    let (cut, is_cut) = watch::channel(false);
    let target = left.address.trim_start_matches("/ip4/").replace("/tcp/", ":");
    let through = relay(target, is_cut).await;
    let mut right = start(Config { bootstrap: vec![through], ..quick() }).await;
    let (left_id, right_id) = (left.id(), right.id());
    left.until_up(&right_id).await;
    right.until_up(&left_id).await;
    right.network.send(&left_id, vec![1]).unwrap();
    assert_eq!(left.frame().await.1, [1]);
    let since = Instant::now();
    cut.send_replace(true);
    if under_load {
        while left.network.send(&right_id, vec![9; 1 << 20]).is_ok() {}
        while right.network.send(&left_id, vec![9; 1 << 20]).is_ok() {}
    }
    for (node, other) in [(&mut left, &right_id), (&mut right, &left_id)] {
        let reason = node
            .find("the end", |event| match event {
                Event::PeerDown { peer, reason } if peer == other => Some(reason.clone()),
                _ => None,
            })
            .await;
        // Whoever notices first may dial again by the address that the other has announced.
        assert!(matches!(reason, DownReason::Timeout | DownReason::Replaced), "{reason}");
    }
    // The library alone takes ten seconds more.
    assert!(since.elapsed() < Duration::from_secs(8), "noticed after {:?}", since.elapsed());
    cut.send_replace(false);
    left.until_up(&right_id).await;
    right.until_up(&left_id).await;
    right.network.send(&left_id, vec![2]).unwrap();
    while left.frame().await.1 != [2] {}
    left.network.send(&right_id, vec![3]).unwrap();
    while right.frame().await.1 != [3] {}
}

//! Plain streams between two peers.

use std::time::Duration;

use khufu_p2p::{Config, IncomingStreams, PeerStream, StreamError};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::support::{Node, PATIENCE, config, pair, start, start_with_metrics, text, until};

async fn next(streams: &mut IncomingStreams) -> PeerStream {
    timeout(PATIENCE, streams.next()).await.unwrap().unwrap()
}

async fn open(from: &Node, to: &str) -> PeerStream {
    timeout(PATIENCE, from.network.open_stream(to)).await.unwrap().unwrap()
}

/// Sends back what comes, stream by stream.
fn echo(node: &Node) {
    let mut streams = node.network.incoming_streams().unwrap();
    tokio::spawn(async move {
        while let Some(stream) = streams.next().await {
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
}

/// Writes until the other side would have to read, and says how much it was.
async fn fill(stream: &mut PeerStream) -> usize {
    let mut taken = 0;
    while let Ok(written) = timeout(Duration::from_millis(500), stream.write(&[7; 64 << 10])).await {
        taken += written.unwrap();
        assert!(taken < 64 << 20, "{taken} bytes went to a peer that reads nothing");
    }
    taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_side_writes_the_other_reads() {
    const BYTES: usize = 4 << 20;
    let (left, right) = pair(|_| {}).await;
    echo(&right);
    let stream = open(&left, &right.id()).await;
    assert_eq!(stream.peer(), right.id());
    let (mut read, mut write) = tokio::io::split(stream);
    let sent: Vec<u8> = (0..BYTES).map(|at| (at * 7 + at / 251) as u8).collect();
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        // The other direction goes on: the rest comes back after this.
        write.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    timeout(PATIENCE, read.read_to_end(&mut back)).await.unwrap().unwrap();
    writer.await.unwrap();
    assert!(back == expected, "{} bytes came back", back.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_between_those_who_proved_who_they_are() {
    let (left, right) = pair(|_| {}).await;
    let mut streams = right.network.incoming_streams().unwrap();
    assert!(right.network.incoming_streams().is_none(), "there is one taker");
    let near = open(&left, &right.id()).await;
    assert_eq!(next(&mut streams).await.peer(), left.id());
    drop((near, streams));
    let refused = left.network.open_stream(&right.id()).await.unwrap_err();
    assert_eq!(refused, StreamError::NotTaken { peer: right.id() });
    let _streams = right.network.incoming_streams().expect("the last taker has gone");
    open(&left, &right.id()).await;
    let nobody = left.network.open_stream("nobody").await.unwrap_err();
    assert!(matches!(nobody, StreamError::NotConnected { .. }), "{nobody}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_makes_only_his_writer_wait() {
    let (left, mut right) = pair(|_| {}).await;
    let mut streams = right.network.incoming_streams().unwrap();
    let mut stuck = open(&left, &right.id()).await;
    let mut unread = next(&mut streams).await;
    let taken = fill(&mut stuck).await;
    assert!(taken <= 4 << 20, "{taken} bytes wait on the way");
    // Another stream and frames go their way beside it.
    let mut near = open(&left, &right.id()).await;
    let mut far = next(&mut streams).await;
    let sent = async {
        near.write_all(&[1; 1 << 20]).await?;
        near.flush().await
    };
    let mut come = vec![0; 1 << 20];
    let (sent, read) = timeout(PATIENCE, async { tokio::join!(sent, far.read_exact(&mut come)) }).await.unwrap();
    sent.and(read).unwrap();
    left.network.send(&right.id(), vec![2]).unwrap();
    assert_eq!(right.frame().await.1, [2]);
    // What waited comes.
    let rest = async { unread.read_exact(&mut vec![0; taken]).await };
    let (flushed, rest) = tokio::join!(timeout(PATIENCE, stuck.flush()), timeout(PATIENCE, rest));
    flushed.unwrap().unwrap();
    assert_eq!(rest.unwrap().unwrap(), taken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_so_many_streams_with_a_peer_and_no_more() {
    let mut first = config(None);
    first.limits.max_streams_per_peer = 2;
    let mut registry = Registry::default();
    let mut few = start_with_metrics(first, &mut registry).await;
    let many = start(Config { bootstrap: vec![few.address.clone()], ..config(None) }).await;
    few.until_up(&many.id()).await;
    until("the other to be up", async || many.peers().await.contains(&few.id())).await;
    let (mut streams, _also) = (few.network.incoming_streams().unwrap(), many.network.incoming_streams().unwrap());
    let open_here = [open(&few, &many.id()).await, open(&few, &many.id()).await];
    let refused = few.network.open_stream(&many.id()).await.unwrap_err();
    assert_eq!(refused, StreamError::TooMany { peer: many.id(), limit: 2 });
    drop(open_here);
    open(&few, &many.id()).await;

    let mut kept = Vec::new();
    for _ in 0..2 {
        kept.push((open(&many, &few.id()).await, next(&mut streams).await));
    }
    let refused = many.network.open_stream(&few.id()).await.unwrap_err();
    assert_eq!(refused, StreamError::Full { peer: few.id() });
    let text = text(&registry);
    assert!(text.contains(r#"khufu_p2p_drops_total{reason="stream-limit"} 1"#), "{text}");
    assert!(text.contains(r#"khufu_p2p_streams_open{direction="in"} 2"#), "{text}");
    assert!(text.contains(r#"khufu_p2p_streams_total{direction="out"} 3"#), "{text}");
    kept.pop();
    open(&many, &few.id()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_its_connection() {
    let (mut left, mut right) = pair(|_| {}).await;
    let mut streams = right.network.incoming_streams().unwrap();
    let mut near = open(&left, &right.id()).await;
    let mut far = next(&mut streams).await;
    near.write_all(b"half").await.unwrap();
    near.flush().await.unwrap();
    far.read_exact(&mut [0; 4]).await.unwrap();
    // They wait for something to read while the connection is closed, at the side that closes it and at the other.
    let waiting = [near, far].map(|mut stream| {
        tokio::spawn(async move {
            while matches!(stream.read(&mut [0]).await, Ok(1..)) {}
            while stream.write_all(&[1; 4096]).await.is_ok() {}
        })
    });
    left.network.block(&right.id()).unwrap();
    left.until_down(&right.id()).await;
    right.until_down(&left.id()).await;
    for stream in waiting {
        timeout(PATIENCE, stream).await.unwrap().unwrap();
    }
    let gone = left.network.open_stream(&right.id()).await.unwrap_err();
    assert!(matches!(gone, StreamError::NotConnected { .. }), "{gone}");
    right.network.shutdown().await;
    assert!(timeout(PATIENCE, streams.next()).await.unwrap().is_none(), "no more will come");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_over_which_nothing_goes_is_given_up() {
    let limit = Duration::from_millis(600);
    let (left, right) = pair(|config| config.timing.stream_idle_timeout = limit).await;
    let mut streams = right.network.incoming_streams().unwrap();
    let mut near = open(&left, &right.id()).await;
    let mut far = next(&mut streams).await;
    // Slow, and never silent for so long.
    for _ in 0..6 {
        tokio::time::sleep(limit / 4).await;
        near.write_all(&[1]).await.unwrap();
        near.flush().await.unwrap();
        far.read_exact(&mut [0]).await.unwrap();
    }
    let error = timeout(PATIENCE, near.read(&mut [0])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_a_stream_has_ended_shows_also_where_nobody_reads() {
    let limit = Duration::from_secs(2);
    let (mut left, right) = pair(|config| config.timing.stream_idle_timeout = limit).await;
    let mut streams = right.network.incoming_streams().unwrap();
    let mut near = open(&left, &right.id()).await;
    let mut far = next(&mut streams).await;
    let ended = tokio::spawn(far.ended());
    // Who writes is another task, and ends while who reads waits.
    let (mut read, mut write) = tokio::io::split(near);
    let reader = tokio::spawn(async move { read.read(&mut [0]).await.map(|_| ()).unwrap_err().kind() });
    write.write_all(&[1]).await.unwrap();
    write.flush().await.unwrap();
    drop(write);
    far.read_exact(&mut [0]).await.unwrap();
    assert_eq!(timeout(PATIENCE, ended).await.unwrap().unwrap().kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(timeout(PATIENCE, reader).await.unwrap().unwrap(), std::io::ErrorKind::TimedOut);
    near = open(&left, &right.id()).await;
    let far = next(&mut streams).await;
    let ended = tokio::spawn(far.ended());
    left.network.block(&right.id()).unwrap();
    left.until_down(&right.id()).await;
    assert_eq!(timeout(PATIENCE, ended).await.unwrap().unwrap().kind(), std::io::ErrorKind::ConnectionReset);
    drop((near, far));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_has_fewer_places_than_a_member() {
    let (left, right) = pair(|config| config.limits.max_streams_per_stranger = 1).await;
    let mut streams = right.network.incoming_streams().unwrap();
    let first = (open(&left, &right.id()).await, next(&mut streams).await);
    let refused = left.network.open_stream(&right.id()).await.unwrap_err();
    assert_eq!(refused, StreamError::Full { peer: right.id() });
    right.network.set_members([left.id().as_str()]);
    let second = (open(&left, &right.id()).await, next(&mut streams).await);
    drop((first, second));
}

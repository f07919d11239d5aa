//! Peers that hold the key but not to the rules, written with plain libp2p.

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use khufu_p2p::{Config, Event, Refusal};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, SwarmBuilder, noise, tcp, yamux};
use libp2p_stream::{Control, IncomingStreams};
use tokio::time::timeout;

use crate::support::{Node, PATIENCE, config, start};

const FRAMES: StreamProtocol = StreamProtocol::new("/khufu/frames/1");
const STREAM: StreamProtocol = StreamProtocol::new("/khufu/stream/1");

#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Acknowledges the node's stream of frames and reads it.
    Reads,
    /// Acknowledges it and reads nothing.
    Deaf,
    /// Does not know the protocol.
    Foreign,
}

struct Hostile {
    id: PeerId,
    control: Control,
    /// Kept, because dropping it ends the protocol.
    _inbound: Option<IncomingStreams>,
    /// Kept, because the end of the stream is the end of the session.
    _unread: Option<Stream>,
    target: PeerId,
}

impl Hostile {
    async fn connect(node: &Node, manner: Manner) -> Self {
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| libp2p_stream::Behaviour::new())
            .unwrap()
            .build();
        let id = *swarm.local_peer_id();
        let mut control = swarm.behaviour().new_control();
        let mut inbound = (manner != Manner::Foreign).then(|| control.accept(FRAMES).unwrap());
        let address: Multiaddr = node.full_address().parse().unwrap();
        swarm.dial(address).unwrap();
        let connected =
            async { while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {} };
        timeout(PATIENCE, connected).await.unwrap();
        tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        let mut unread = None;
        if let Some(inbound) = &mut inbound {
            let (_, mut stream) = timeout(PATIENCE, inbound.next()).await.unwrap().unwrap();
            stream.write_all(&[1]).await.unwrap();
            stream.flush().await.unwrap();
            match manner {
                Manner::Deaf => unread = Some(stream),
                _ => drop(tokio::spawn(async move { stream.read_to_end(&mut Vec::new()).await })),
            }
        }
        let target = node.network.peer_id().parse().unwrap();
        Self { id, control, _inbound: inbound, _unread: unread, target }
    }

    async fn open(&mut self) -> Stream {
        let mut stream = timeout(PATIENCE, self.control.open_stream(self.target, FRAMES)).await.unwrap().unwrap();
        let mut ready = [0];
        timeout(PATIENCE, stream.read_exact(&mut ready)).await.unwrap().unwrap();
        assert_eq!(ready, [1]);
        stream
    }
}

async fn refusal(node: &mut Node, peer: PeerId) -> Refusal {
    let peer = peer.to_string();
    node.find("a refusal", |event| match event {
        Event::Refused { peer: Some(refused), reason, .. } if *refused == peer => Some(reason.clone()),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_break_the_rules_end_the_session_and_not_the_node() {
    let mut strict = config(None);
    strict.timing.read_timeout = Duration::from_millis(200);
    let mut node = start(strict).await;
    for (bytes, kind) in [
        (&[0, 0, 0, 0][..], "malformed"),
        (&[0xff; 4], "oversized"),
        (&[0x00, 0x80, 0x00, 0x01], "oversized"),
        // A frame that is announced and does not come, in its header and in its body.
        (&[0, 0], "malformed"),
        (&[0, 0, 1, 0, 1, 2, 3], "malformed"),
    ] {
        let mut hostile = Hostile::connect(&node, Manner::Reads).await;
        node.until_up(&hostile.id.to_string()).await;
        let mut stream = hostile.open().await;
        stream.write_all(&[0, 0, 0, 2, 7, 7]).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(node.frame().await.1, [7, 7]);
        assert_eq!(refusal(&mut node, hostile.id).await.kind(), kind, "{bytes:?}");
        node.until_down(&hostile.id.to_string()).await;
    }
    let mut member = start(Config { bootstrap: vec![node.address.clone()], ..config(None) }).await;
    member.until_up(&node.id()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_without_the_protocol_is_never_up() {
    let mut node = start(config(None)).await;
    let hostile = Hostile::connect(&node, Manner::Foreign).await;
    assert_eq!(refusal(&mut node, hostile.id).await.kind(), "protocol");
    assert!(!node.seen.iter().any(|event| matches!(event, Event::PeerUp { .. })), "{:#?}", node.seen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_opens_stream_after_stream_is_refused() {
    let mut node = start(config(None)).await;
    let mut hostile = Hostile::connect(&node, Manner::Reads).await;
    node.until_up(&hostile.id.to_string()).await;
    let flood = async {
        let mut streams = Vec::new();
        while let Ok(stream) = hostile.control.open_stream(hostile.target, FRAMES).await {
            streams.push(stream);
            assert!(streams.len() < 1000);
        }
    };
    let (_, reason) = tokio::join!(timeout(PATIENCE, flood), refusal(&mut node, hostile.id));
    assert_eq!(reason.kind(), "streams");
    node.until_down(&hostile.id.to_string()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_never_reads_is_dropped_in_the_end() {
    let mut impatient = config(None);
    impatient.timing.write_timeout = Duration::from_millis(300);
    let mut node = start(impatient).await;
    let deaf = Hostile::connect(&node, Manner::Deaf).await;
    let id = deaf.id.to_string();
    node.until_up(&id).await;
    let network = node.network.clone();
    let flood = async {
        while !matches!(network.send(&id, vec![0; 1 << 20]), Err(khufu_p2p::SendError::NotConnected { .. })) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, flood).await.unwrap();
    node.until_down(&id).await;
    drop(deaf);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_floods_a_node_with_plain_streams_harms_only_itself() {
    let mut node = start(config(None)).await;
    let mut taken = node.network.incoming_streams().unwrap();
    let mut hostile = Hostile::connect(&node, Manner::Reads).await;
    let flooder = hostile.id.to_string();
    node.until_up(&flooder).await;
    let mut member = start(Config { bootstrap: vec![node.address.clone()], ..config(None) }).await;
    node.until_up(&member.id()).await;
    member.until_up(&node.id()).await;
    // Until the connection is ended for it; what it was given it keeps, and it reads nothing of it.
    let flood = async {
        let mut kept = Vec::new();
        while let Ok(stream) = hostile.control.open_stream(hostile.target, STREAM).await {
            kept.push(stream);
            assert!(kept.len() < 1000);
        }
        kept.len()
    };
    let flooded = async {
        let mut of_flooder = Vec::new();
        while let Ok(Some(stream)) = timeout(std::time::Duration::from_secs(1), taken.next()).await {
            assert_eq!(stream.peer(), flooder);
            of_flooder.push(stream);
        }
        of_flooder
    };
    let (opened, of_flooder) = tokio::join!(timeout(PATIENCE, flood), flooded);
    assert!(opened.is_ok(), "it could open streams without end");
    assert!(!of_flooder.is_empty() && of_flooder.len() <= 32, "{} streams are taken in", of_flooder.len());
    let mut near = timeout(PATIENCE, member.network.open_stream(&node.id())).await.unwrap().unwrap();
    let opened = async {
        loop {
            let stream = taken.next().await.unwrap();
            if stream.peer() == member.id() {
                return stream;
            }
        }
    };
    let mut far = timeout(PATIENCE, opened).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut near, b"still here").await.unwrap();
    tokio::io::AsyncWriteExt::flush(&mut near).await.unwrap();
    let mut read = [0; 10];
    timeout(PATIENCE, tokio::io::AsyncReadExt::read_exact(&mut far, &mut read)).await.unwrap().unwrap();
    assert_eq!(&read, b"still here");
}

//! The handle of a running network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use libp2p::metrics::{Metrics, Registry};
use libp2p::swarm::{Config as SwarmConfig, Swarm};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{mpsc, watch};

use crate::address::{Address, AddressError, parse_peer};
use crate::behaviour::{Behaviour, with_peer};
use crate::config::{Config, MAX_TOPIC_BYTES, MAX_TOPICS, MOST_STREAMS_PER_PEER};
use crate::dialer::{self, Dialer};
use crate::error::{RequestError, SendError, StartError, StreamError, TopicError};
use crate::event::{Event, PeerInfo};
use crate::link::Rejected;
use crate::metrics::Counters;
use crate::pump::{self, Notices};
use crate::roster::Roster;
use crate::shared::Shared;
use crate::streams::{self, Incoming, IncomingStreams, PeerStream, Places};
use crate::task::{Command, Inputs, Task};
use crate::transport;

/// Frames between all readers and the pump. Each reader holds one more; the rest waits at the peers.
const FRAMES_IN_BETWEEN: usize = 16;

/// A running network. Clones are handles of the same network; it stops with [`Network::shutdown`], when the last handle
/// is dropped, or when the receiver of events is.
#[derive(Debug, Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    peer_id: String,
    config: Config,
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    counters: Counters,
    incoming: Arc<Incoming>,
    outgoing: Places,
    stop: watch::Sender<bool>,
    done: watch::Receiver<bool>,
}

impl Network {
    /// Starts a network: listens, dials, and tells what happens through the receiver.
    ///
    /// The receiver must be read. While it is not, reading from peers stops and gossip is dropped, but nothing locks up
    /// and nothing grows; dropping it ends the network.
    ///
    /// # Errors
    /// An address is wrong or taken, the node would be open to anybody without being told so, or a setting makes no
    /// sense. Nothing is left running then.
    pub fn start(config: Config) -> Result<(Self, mpsc::Receiver<Event>), StartError> {
        Self::start_with_metrics(config, &mut Registry::default())
    }

    /// Like [`Network::start`], and registers libp2p's metrics (`libp2p_*`, `gossipsub_*`) and this crate's
    /// (`khufu_p2p_*`).
    ///
    /// They must be registered before the network starts, because libp2p counts from within its parts.
    ///
    /// # Errors
    /// As [`Network::start`].
    pub fn start_with_metrics(
        config: Config,
        registry: &mut Registry,
    ) -> Result<(Self, mpsc::Receiver<Event>), StartError> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(StartError::NoRuntime);
        }
        check(&config)?;
        let listen = parse_all("listen", &config.listen)?;
        let announce = parse_all("announce", &config.announce)?;
        if config.psk.is_none()
            && !config.open_network
            && let Some(address) = listen.iter().find(|address| !address.is_loopback())
        {
            return Err(StartError::OpenNetwork { address: address.multiaddr().to_string() });
        }
        let dialer = first_targets(&config)?;
        let counters = Counters::register(registry);
        let metrics = Metrics::new(registry);
        let local = config.identity.id();
        let mut swarm = Swarm::new(
            transport::build(&config, registry)?,
            Behaviour::new(&config, &listen, registry)?,
            local,
            SwarmConfig::with_tokio_executor()
                .with_idle_connection_timeout(config.timing.idle_timeout)
                .with_max_negotiating_inbound_streams(transport::MAX_NEGOTIATING),
        );
        for address in &listen {
            listen_on(&mut swarm, address)?;
        }
        for address in &announce {
            swarm.add_external_address(address.multiaddr());
        }

        let (commands_in, commands) = mpsc::channel(config.limits.command_queue);
        let (reports_in, reports) = mpsc::channel(64);
        let (frames_in, frames) = mpsc::channel(FRAMES_IN_BETWEEN);
        let (events_in, events) = mpsc::channel(config.limits.event_queue);
        let (stop_in, stop) = watch::channel(false);
        let (done_in, done) = watch::channel(false);
        let shared = Arc::new(Shared::default());
        let notices = Arc::new(Notices::new(config.limits.notice_queue, counters.clone()));
        let incoming = Arc::new(Incoming::new(&config.limits, counters.clone()));
        let outgoing = Places::outgoing(&config.limits, counters.clone());
        let task = Task {
            swarm,
            shared: Arc::clone(&shared),
            notices: Arc::clone(&notices),
            counters: counters.clone(),
            metrics,
            // Two handshakes may take that long, one after the other, when two nodes dial each other at once.
            roster: Roster::new(local, (config.timing.connect_timeout + config.timing.handshake_timeout) * 2),
            dialer,
            links: BTreeMap::new(),
            frames: frames_in,
            reports: reports_in,
            incoming: Arc::clone(&incoming),
            topics: BTreeSet::new(),
            blocked: BTreeSet::new(),
            next_walk: Instant::now() + config.timing.walk_interval,
            next_check: Instant::now() + config.timing.ping_interval,
            log_gate: Default::default(),
            config: config.clone(),
        };
        let pump = tokio::spawn(pump::run(notices, frames, events_in, config.limits.clone()));
        let stop_when_unread = stop_in.clone();
        tokio::spawn(async move {
            let _ = pump.await;
            stop_when_unread.send_replace(true);
        });
        tokio::spawn(async move {
            task.run(Inputs { commands, reports, stop }).await;
            done_in.send_replace(true);
        });
        let peer_id = local.to_string();
        let inner =
            Inner { peer_id, config, shared, commands: commands_in, counters, incoming, outgoing, stop: stop_in, done };
        Ok((Self { inner: Arc::new(inner) }, events))
    }

    /// This node's peer id.
    pub fn peer_id(&self) -> &str {
        &self.inner.peer_id
    }

    /// Queues a frame for a peer that is up, without waiting.
    ///
    /// Frames arrive whole, in order and without gaps for as long as the peer stays up. `Ok` means queued: if the peer
    /// goes down, what was queued or under way may be lost, and [`Event::PeerDown`] says so.
    ///
    /// # Errors
    /// The peer is not up, its queue is full, or the frame is empty or too large. It was not sent then.
    pub fn send(&self, to: &str, frame: Vec<u8>) -> Result<(), SendError> {
        let limit = self.inner.config.limits.max_frame_bytes;
        let bytes = frame.len();
        if bytes > limit {
            self.inner.counters.dropped("send-too-large");
            return Err(SendError::TooLarge { bytes, limit });
        }
        if bytes == 0 {
            return Err(SendError::Empty);
        }
        let not_connected = || {
            self.inner.counters.dropped("send-not-connected");
            SendError::NotConnected { peer: to.chars().take(80).collect() }
        };
        let Ok(peer) = parse_peer(to) else { return Err(not_connected()) };
        let outbox = self.inner.shared.lock().peers.get(&peer).map(|entry| entry.outbox.clone());
        let Some(outbox) = outbox else { return Err(not_connected()) };
        outbox.push(frame).map_err(|rejected| match rejected {
            Rejected::Gone => not_connected(),
            Rejected::Full { frames } => {
                self.inner.counters.dropped("send-queue-full");
                SendError::QueueFull { peer: to.to_owned(), frames }
            }
        })
    }

    /// Whether that peer is up.
    #[must_use]
    pub fn is_up(&self, peer: &str) -> bool {
        parse_peer(peer).is_ok_and(|peer| self.inner.shared.lock().peers.contains_key(&peer))
    }

    /// Opens a plain stream of bytes to a peer that is up and takes such ([`Network::incoming_streams`]).
    ///
    /// It goes over the same connection as frames, and takes turns with them, piece by piece: each stream that has something
    /// to send makes them slower. A peer that does not read makes the writer wait. The stream breaks with the connection, and when nothing has come or gone for
    /// [`Timing::stream_idle_timeout`](crate::Timing::stream_idle_timeout).
    ///
    /// # Errors
    /// The peer is not up, takes no streams, or there are as many as there may be, here or there. Nothing was sent then.
    pub async fn open_stream(&self, to: &str) -> Result<PeerStream, StreamError> {
        let not_connected = || StreamError::NotConnected { peer: to.chars().take(80).collect() };
        let peer = parse_peer(to).map_err(|_| not_connected())?;
        if !self.inner.shared.lock().peers.contains_key(&peer) {
            return Err(not_connected());
        }
        streams::open(&self.inner.commands, &self.inner.outgoing, &self.inner.config.timing, peer).await
    }

    /// Takes in the streams that peers open, from now on; before, and once what is returned has been dropped, they are
    /// refused. None if they are taken in already.
    #[must_use]
    pub fn incoming_streams(&self) -> Option<IncomingStreams> {
        self.inner.incoming.listen()
    }

    /// Says which peers are known to belong to those that this node works with, in place of what was said before. All others
    /// are strangers to [`incoming_streams`](Self::incoming_streams): they have fewer places
    /// ([`Limits::max_streams_of_strangers`](crate::Limits::max_streams_of_strangers)), so that whoever merely has the key
    /// cannot take those of members. Words that are no peer id are left out.
    pub fn set_members<'a>(&self, members: impl IntoIterator<Item = &'a str>) {
        let members = members.into_iter().filter_map(|peer| parse_peer(peer).ok());
        self.inner.incoming.set_members(members.collect());
    }

    /// Publishes a frame on a topic, without waiting. This node need not be subscribed to it.
    ///
    /// A hint, not a promise: it may reach nobody. The same bytes published again on the same topic within a minute go
    /// nowhere, also when the first attempt reached nobody.
    ///
    /// # Errors
    /// The frame is too large, the name of the topic is, or too much is being published.
    pub fn publish(&self, topic: &str, frame: Vec<u8>) -> Result<(), TopicError> {
        let (bytes, limit) = (frame.len(), self.inner.config.limits.max_gossip_bytes);
        if bytes > limit {
            return Err(TopicError::TooLarge { bytes, limit });
        }
        check_topic(topic)?;
        self.inner.commands.try_send(Command::Publish { topic: topic.to_owned(), frame }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                self.inner.counters.dropped("publish-queue-full");
                TopicError::QueueFull
            }
            mpsc::error::TrySendError::Closed(_) => TopicError::Stopped,
        })
    }

    /// Subscribes to a topic; does nothing if that is so already.
    ///
    /// # Errors
    /// There are [`MAX_TOPICS`] already, or the name is empty or too long.
    pub fn subscribe(&self, topic: &str) -> Result<(), TopicError> {
        check_topic(topic)?;
        let mut state = self.inner.shared.lock();
        if !state.topics.contains(topic) {
            if state.topics.len() >= MAX_TOPICS {
                return Err(TopicError::TooManyTopics { limit: MAX_TOPICS });
            }
            state.topics.insert(topic.to_owned());
        }
        drop(state);
        self.changed()
    }

    /// Ends a subscription; does nothing if there is none.
    ///
    /// # Errors
    /// The network was shut down.
    pub fn unsubscribe(&self, topic: &str) -> Result<(), TopicError> {
        self.inner.shared.lock().topics.remove(topic);
        self.changed()
    }

    fn changed(&self) -> Result<(), TopicError> {
        self.inner.shared.changed.notify_one();
        if self.inner.commands.is_closed() { Err(TopicError::Stopped) } else { Ok(()) }
    }

    /// The topics subscribed to.
    pub fn topics(&self) -> Vec<String> {
        self.inner.shared.lock().topics.iter().cloned().collect()
    }

    /// Dials an address once, with or without `/p2p/<peer id>`. What comes of it shows as an event.
    ///
    /// # Errors
    /// The address is wrong, or too much is asked at once.
    pub fn dial(&self, address: &str) -> Result<(), RequestError> {
        let address = Address::parse(address)?;
        self.request(Command::Dial { peer: address.peer, address: address.multiaddr() })
    }

    /// Drops the connections to a peer. It is dialled again if it is known where; see [`Network::block`].
    ///
    /// # Errors
    /// The peer id is wrong, or too much is asked at once.
    pub fn disconnect(&self, peer: &str) -> Result<(), RequestError> {
        self.request(Command::Disconnect { peer: parse_peer(peer)? })
    }

    fn request(&self, command: Command) -> Result<(), RequestError> {
        self.inner.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => RequestError::QueueFull,
            mpsc::error::TrySendError::Closed(_) => RequestError::Stopped,
        })
    }

    /// Drops the connections to a peer and refuses new ones, in both directions, until it is unblocked.
    ///
    /// # Errors
    /// The peer id is wrong, or the network was shut down.
    pub fn block(&self, peer: &str) -> Result<(), RequestError> {
        let peer = parse_peer(peer)?;
        self.inner.shared.lock().blocked.insert(peer);
        self.changed().map_err(|_| RequestError::Stopped)
    }

    /// Lets a blocked peer in again, and dials it at once if it is known where.
    ///
    /// # Errors
    /// The peer id is wrong, or the network was shut down.
    pub fn unblock(&self, peer: &str) -> Result<(), RequestError> {
        let peer = parse_peer(peer)?;
        self.inner.shared.lock().blocked.remove(&peer);
        self.changed().map_err(|_| RequestError::Stopped)
    }

    /// The blocked peers.
    pub fn blocked(&self) -> Vec<String> {
        self.inner.shared.lock().blocked.iter().map(PeerId::to_string).collect()
    }

    /// The peers that are up.
    // Async by contract, though nothing is awaited today: callers need not change when it must be asked of the task.
    #[allow(clippy::unused_async)]
    pub async fn peers(&self) -> Vec<PeerInfo> {
        let state = self.inner.shared.lock();
        let info = |(peer, entry): (&PeerId, &crate::link::PeerEntry)| {
            let dialled = (entry.addresses.is_empty() && entry.outbound).then(|| entry.remote.clone());
            let addresses: Vec<Multiaddr> = entry.addresses.iter().cloned().chain(dialled).collect();
            let traffic = &entry.traffic;
            PeerInfo {
                id: peer.to_string(),
                addresses: with_peer(&addresses, *peer),
                remote: entry.remote.to_string(),
                connected_since: entry.since,
                outbound: entry.outbound,
                rtt_ms: entry.rtt_ms,
                agent: entry.agent.clone(),
                frames_in: traffic.frames_in.load(Ordering::Relaxed),
                bytes_in: traffic.bytes_in.load(Ordering::Relaxed),
                frames_out: traffic.frames_out.load(Ordering::Relaxed),
                bytes_out: traffic.bytes_out.load(Ordering::Relaxed),
                queued_frames: entry.outbox.queued_frames(),
            }
        };
        state.peers.iter().map(info).collect()
    }

    /// The addresses this node can be reached at on its own machine and network, without peer id, as far as known by
    /// now.
    pub fn listen_addresses(&self) -> Vec<String> {
        self.inner.shared.lock().listening.iter().map(Multiaddr::to_string).collect()
    }

    /// The addresses this node announces besides those.
    pub fn external_addresses(&self) -> Vec<String> {
        self.inner.config.announce.clone()
    }

    /// Stops the network and waits until its ports are free. Peers see the connection end. May be called twice.
    pub async fn shutdown(&self) {
        self.inner.stop.send_replace(true);
        let mut done = self.inner.done.clone();
        // An error means that the task is gone, which is what is waited for.
        let _ = done.wait_for(|done| *done).await;
    }
}

fn check_topic(topic: &str) -> Result<(), TopicError> {
    let bytes = topic.len();
    if bytes == 0 || bytes > MAX_TOPIC_BYTES {
        return Err(TopicError::Name { bytes, limit: MAX_TOPIC_BYTES });
    }
    Ok(())
}

fn check(config: &Config) -> Result<(), StartError> {
    let limits = &config.limits;
    let max_frame = u32::MAX as usize;
    let numbers = [
        ("max_frame_bytes", limits.max_frame_bytes, 1, max_frame, "between 1 byte and 4 GiB - 1"),
        ("max_gossip_bytes", limits.max_gossip_bytes, 1, 16 << 20, "between 1 byte and 16 MiB"),
        ("max_peers", limits.max_peers, 1, 10_000, "between 1 and 10,000"),
        ("send_queue_frames", limits.send_queue_frames, 1, 1 << 20, "between 1 and 1,048,576"),
        ("send_queue_bytes", limits.send_queue_bytes, 1, usize::MAX, "at least 1"),
        ("event_queue", limits.event_queue, 1, 1 << 20, "between 1 and 1,048,576"),
        ("event_queue_bytes", limits.event_queue_bytes, 1, usize::MAX, "at least 1"),
        ("notice_queue", limits.notice_queue, 1, usize::MAX, "at least 1"),
        ("command_queue", limits.command_queue, 1, 1 << 20, "between 1 and 1,048,576"),
        ("max_pending_connections", limits.max_pending_connections as usize, 1, usize::MAX, "at least 1"),
        ("max_addresses_per_peer", limits.max_addresses_per_peer, 1, 64, "between 1 and 64"),
        ("max_streams_per_peer", limits.max_streams_per_peer, 1, MOST_STREAMS_PER_PEER, "between 1 and 48"),
        ("max_streams", limits.max_streams, 1, 1 << 20, "between 1 and 1,048,576"),
        ("max_streams_per_stranger", limits.max_streams_per_stranger, 1, usize::MAX, "at least 1"),
        ("max_streams_of_strangers", limits.max_streams_of_strangers, 1, usize::MAX, "at least 1"),
    ];
    for (setting, value, min, max, expected) in numbers {
        if !(min..=max).contains(&value) {
            return Err(StartError::Setting { setting, value: value.to_string(), expected });
        }
    }
    let timing = &config.timing;
    let times = [
        ("connect_timeout", timing.connect_timeout),
        ("handshake_timeout", timing.handshake_timeout),
        ("stream_timeout", timing.stream_timeout),
        ("write_timeout", timing.write_timeout),
        ("read_timeout", timing.read_timeout),
        ("stream_idle_timeout", timing.stream_idle_timeout),
        ("idle_timeout", timing.idle_timeout),
        ("ping_interval", timing.ping_interval),
        ("ping_timeout", timing.ping_timeout),
        ("redial_min", timing.redial_min),
        ("walk_interval", timing.walk_interval),
        ("gossip_heartbeat", timing.gossip_heartbeat),
    ];
    for (setting, value) in times {
        if value.is_zero() {
            return Err(StartError::Setting { setting, value: "0".into(), expected: "longer than nothing" });
        }
    }
    if timing.redial_max < timing.redial_min {
        let value = format!("{:?}", timing.redial_max);
        return Err(StartError::Setting { setting: "redial_max", value, expected: "at least `redial_min`" });
    }
    Ok(())
}

fn parse_all(setting: &'static str, addresses: &[String]) -> Result<Vec<Address>, StartError> {
    addresses
        .iter()
        .map(|address| Address::parse(address).map_err(|source| StartError::Address { setting, source }))
        .collect()
}

fn first_targets(config: &Config) -> Result<Dialer, StartError> {
    let mut dialer = Dialer::new(dialer::Bounds {
        min: config.timing.redial_min,
        max: config.timing.redial_max,
        // Enough for every peer wanted and as many again that are away.
        max_learned: config.limits.max_peers * 2,
        max_addresses: config.limits.max_addresses_per_peer,
    });
    let now = Instant::now();
    let local = config.identity.id();
    for address in parse_all("bootstrap", &config.bootstrap)? {
        // One list for all nodes is convenient, and then a node finds itself in it.
        if address.peer != Some(local) {
            dialer.pin(now, address.peer, address.multiaddr());
        }
    }
    for (address, text) in parse_all("known", &config.known)?.iter().zip(&config.known) {
        let no_peer =
            || StartError::Address { setting: "known", source: AddressError::NoPeer { address: text.clone() } };
        let peer = address.peer.ok_or_else(no_peer)?;
        if peer != local {
            dialer.learn(now, peer, &[address.multiaddr()]);
        }
    }
    Ok(dialer)
}

fn listen_on(swarm: &mut Swarm<Behaviour>, address: &Address) -> Result<(), StartError> {
    let multiaddr = address.multiaddr();
    let refused = |reason: String| StartError::Listen { address: multiaddr.to_string(), reason };
    if address.socket.port() != 0 {
        // The library listens with SO_REUSEPORT, so that two nodes could share a port without noticing. A plain socket
        // is refused where anybody listens.
        TcpListener::bind(address.socket).map_err(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                refused("the port is taken: stop the other program or choose another port".into())
            }
            _ => refused(error.to_string()),
        })?;
    }
    swarm.listen_on(multiaddr.clone()).map(drop).map_err(|error| refused(error.to_string()))
}

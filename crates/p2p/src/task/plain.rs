//! Plain streams: which connection they are opened on, and from whom they are taken in.

use libp2p::PeerId;

use super::Task;
use crate::streams::Opening;
use crate::substream::{Event, Opened};

impl Task {
    pub(crate) fn open_plain(&mut self, peer: PeerId, opening: Opening) {
        // Who waits is told by the end of `opening` if the peer has just gone.
        if opening.is_given_up() {
            return;
        }
        if let Some(connection) = self.roster.up_on(&peer) {
            self.swarm.behaviour_mut().streams.open(peer, connection, opening);
        }
    }

    pub(crate) fn on_plain_stream(&mut self, event: Event<Opening>) {
        let Event { peer, connection, opened } = event;
        let remote = self.links.get(&peer).and_then(|link| link.remotes.get(&connection));
        // Of a connection that has just gone, the stream is dropped, and who waits for it is told so by that.
        let Some(over) = remote.map(|remote| remote.life.over()) else { return };
        match opened {
            // Also from a peer that is up for itself and not yet for this node.
            Opened::Inbound(stream) => self.incoming.take(peer, stream, over, &self.config.timing),
            Opened::Outbound(opening, opened) => opening.done(opened, over),
        }
    }
}

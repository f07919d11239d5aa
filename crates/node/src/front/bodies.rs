//! What comes in of writes: so many at once, and so many bytes. Whom the API server does not know has little of both, and
//! that apart from all others, so that nobody without credentials can keep those out who have some.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Bytes, Incoming};
use hyper::http::{HeaderMap, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::Refusal;
use super::pass::{self, MAX_WRITE};
use super::{Front, who};
use crate::crowd::{Crowd, One};

/// Writes that come in at once of those whom the API server knows, and the bytes of all that are under way, in KiB.
const MAX_KNOWN: usize = 224;
const MAX_KNOWN_KIB: usize = 128 << 10;
/// How long a write of such waits until there is room for it.
const ROOM: Duration = Duration::from_secs(10);
/// How long what is written may take to come in.
const KNOWN: Duration = Duration::from_secs(30);
/// The same for all others: altogether, and from one address.
const MAX_STRANGERS: usize = 32;
const MAX_OF_ADDRESS: usize = 4;
const STRANGER: Duration = Duration::from_secs(10);

/// Who asks, as far as the connection says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// What comes in.
pub(super) struct Bodies {
    places: Semaphore,
    room: Arc<Semaphore>,
    strangers: Crowd,
}

impl Default for Bodies {
    fn default() -> Self {
        Self {
            places: Semaphore::new(MAX_KNOWN),
            room: Arc::new(Semaphore::new(MAX_KNOWN_KIB)),
            strangers: Crowd::new(MAX_OF_ADDRESS, MAX_STRANGERS),
        }
    }
}

/// What a write takes up for as long as there is anything of it.
pub(super) enum Held {
    /// The room for it.
    Known(#[expect(dead_code, reason = "it is free again when it is dropped")] OwnedSemaphorePermit),
    /// The place of somebody who is not known.
    Stranger(#[expect(dead_code, reason = "it is free again when it is dropped")] One),
}

/// Reads what is to be written, once there is room for it.
pub(super) async fn read(
    front: &Front,
    headers: &HeaderMap,
    peer: Option<Peer>,
    body: Incoming,
) -> Result<(Bytes, Held), Refusal> {
    let bodies = &front.bodies;
    pass::is_short_enough(headers)?;
    if who::is_known(front, headers).await? {
        let too_many = |_| Refusal::too_many(format!("{MAX_KNOWN} writes come in already"));
        let _place = bodies.places.try_acquire().map_err(too_many)?;
        let room = tokio::time::timeout(ROOM, bodies.room.clone().acquire_many_owned(kib(headers))).await;
        let room = room.map_err(|_| Refusal::too_many("the writes under way are as long as they can be altogether"))?;
        let room = room.map_err(|error| Refusal::busy(error.to_string()))?;
        return Ok((pass::whole(body, KNOWN).await?, Held::Known(room)));
    }
    let too_many = "many writes come in from whom the API server does not know, and it does not know who asks";
    let stranger =
        bodies.strangers.enter(peer.map(|Peer(address)| address)).ok_or_else(|| Refusal::too_many(too_many))?;
    Ok((pass::whole(body, STRANGER).await?, Held::Stranger(stranger)))
}

/// The most room that a body may need.
fn kib(headers: &HeaderMap) -> u32 {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let bytes = length.unwrap_or(MAX_WRITE).min(MAX_WRITE);
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_does_not_say_how_long_it_is_may_be_as_long_as_any() {
        let of = |length: &str| kib(&HeaderMap::from_iter([(header::CONTENT_LENGTH, length.parse().unwrap())]));
        assert_eq!([of("0"), of("1"), of("1025"), of("x"), kib(&HeaderMap::new())], [0, 1, 2, 3072, 3072]);
    }
}

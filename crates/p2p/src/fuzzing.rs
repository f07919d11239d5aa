//! What reads bytes of the network, for the fuzz targets.

use std::time::Duration;

use futures::io::{BufReader, Cursor};

use crate::frames::reader::{self, Bounds};

/// Reads frames as from the stream of a peer, until it ends or breaks a rule. They come in the order they were sent.
pub async fn frames(bytes: &[u8], max_frame_bytes: usize) -> Vec<Vec<u8>> {
    let patience = Duration::from_secs(1);
    let bounds = Bounds { max_frame_bytes, ready_timeout: patience, read_timeout: patience };
    let mut stream = BufReader::new(Cursor::new(bytes));
    let mut frames = Vec::new();
    while let Ok(frame) = reader::read_frame(&mut stream, &bounds).await {
        frames.push(frame);
    }
    frames
}

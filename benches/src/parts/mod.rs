//! The parts that can be measured, each by itself.

mod away;
mod floor;
mod front;
mod idle;
mod kubernetes;
mod latency;
mod many;
mod throughput;

use clap::ValueEnum;

use crate::Options;
use crate::table::Table;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// What no system can be faster than: two synced writes and a round trip
    Floor,
    /// Edits at a given rate: acknowledged, visible everywhere, applied everywhere; bytes on the wire
    Latency,
    /// The same over ten nodes: bytes and duplicates
    Ten,
    /// Edits as fast as they go
    Throughput,
    /// Edits of one replicant as fast as they go
    Hot,
    /// A node that was away comes back
    Away,
    /// Two nodes that lost each other meet again
    Reconnect,
    /// Nodes that know very many replicants
    Many,
    /// Nodes with nothing to do
    Idle,
    /// HTTP requests through the front of a service, and on to another site
    Front,
    /// A thousand objects at three Kubernetes API servers, which must be installed
    Kubernetes,
}

/// Measures what was asked for.
pub(crate) async fn run(options: &Options) -> Table {
    let mut table = Table::default();
    let all: Vec<Part> =
        Part::value_variants().iter().copied().filter(|part| ![Part::Many, Part::Kubernetes].contains(part)).collect();
    let parts = if options.parts.is_empty() { &all } else { &options.parts };
    for part in parts {
        for _ in 0..options.runs {
            match part {
                Part::Floor => floor::run(options, &mut table).await,
                Part::Latency => latency::three(options, &mut table).await,
                Part::Ten => latency::ten(options, &mut table).await,
                Part::Throughput => throughput::spread(options, &mut table).await,
                Part::Hot => throughput::hot(options, &mut table).await,
                Part::Away => away::away(options, &mut table).await,
                Part::Reconnect => away::reconnect(options, &mut table).await,
                Part::Many => many::run(options, &mut table).await,
                Part::Idle => idle::run(options, &mut table).await,
                Part::Front => front::run(options, &mut table).await,
                Part::Kubernetes => kubernetes::run(options, &mut table).await,
            }
        }
    }
    table
}

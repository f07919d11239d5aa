//! Studies with the real Khufu engine on a simulated network, disk, clock and drivers, in virtual time.
//!
//! It knows the engine and its harness, and measures what people ask before they deploy: how long does a change take to
//! reach all sites, and what does it cost. It must never know a real clock or network. A study is a function of its
//! settings and seed.
//!
//! ```
//! let study = khufu_simulations::Study { sites: 3, changes: 2, ..Default::default() };
//! let spread = study.run(1);
//! assert_eq!(spread.times_ms.len(), 2);
//! ```
//!
//! [`fuzz`] tries to break what Khufu promises.

pub mod fuzz;

use std::time::Duration;

use khufu_engine::harness::World;
use serde::Serialize;
use serde_json::json;

/// How a change spreads: one replicant at all sites, edited at one after the other.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Study {
    /// How many sites, at least two.
    pub sites: usize,
    /// How many edits, one after the other.
    pub changes: usize,
    /// The least time that a message is on its way, in milliseconds.
    pub delay_ms: u64,
    /// What is added to it at most, at random, in milliseconds.
    pub jitter_ms: u64,
    /// Gossip that is lost, in percent.
    pub gossip_loss: u64,
    /// Seconds for which the first site is cut off while it is edited on both sides; 0 for no cut.
    pub cut_s: u64,
}

impl Default for Study {
    fn default() -> Self {
        Self { sites: 5, changes: 20, delay_ms: 10, jitter_ms: 40, gossip_loss: 0, cut_s: 0 }
    }
}

/// What came of one run of a [`Study`].
#[derive(Debug, Clone, Serialize)]
pub struct Spread {
    /// The seed of the run.
    pub seed: u64,
    /// For each edit, the virtual time until the platforms of all sites hold it, in milliseconds.
    pub times_ms: Vec<f64>,
    /// Virtual time from the healing of the cut until all sites agree and have reported, in milliseconds.
    pub heal_ms: Option<f64>,
    /// Frames sent between nodes during the edits, heartbeats included.
    pub frames: u64,
    /// Messages gossiped during the edits, as their authors count them.
    pub gossiped: u64,
    /// A hash over all that happened: the same for the same seed.
    pub trace: String,
}

const NAME: &str = "studied";
const LIMIT: Duration = Duration::from_secs(300);

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Study {
    /// Runs the study once.
    ///
    /// # Panics
    /// If the sites do not come to agree within five minutes of virtual time: that is a bug, and the seed is printed.
    #[must_use]
    pub fn run(&self, seed: u64) -> Spread {
        let names: Vec<String> = (0..self.sites.max(2)).map(|number| format!("site-{number}")).collect();
        let refs: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut world = World::new(seed);
        world.weather.delay_us = self.delay_ms * 1000;
        world.weather.jitter_us = self.jitter_ms * 1000;
        world.weather.gossip_loss = self.gossip_loss;
        world.sites(&refs);
        let first = names.first().map_or("", String::as_str);
        world.put(first, NAME, "all", json!({"edit": -1}));
        world.settle();
        let before = totals(&world);
        let times_ms = (0..self.changes)
            .zip(names.iter().cycle())
            .map(|(edit, site)| {
                let begun = world.now();
                let text = format!("{}\n", json!({ "edit": edit }));
                // A request that a simulated site refuses shows as a change that never arrives.
                let _ = world.patch(site, NAME, json!({ "edit": edit }));
                world.until("all sites hold the edit", LIMIT, |world| {
                    names.iter().all(|site| world.text(site, NAME).as_deref() == Some(text.as_str()))
                });
                ms(world.now() - begun)
            })
            .collect();
        let after = totals(&world);
        let heal_ms = (self.cut_s > 0).then(|| self.cut(&mut world, &names));
        Spread {
            seed,
            times_ms,
            heal_ms,
            frames: after.0 - before.0,
            gossiped: after.1 - before.1,
            trace: world.trace(),
        }
    }

    fn cut(&self, world: &mut World, names: &[String]) -> f64 {
        let (Some(first), Some(last)) = (names.first(), names.last()) else { return 0.0 };
        world.isolate(first);
        let _ = world.patch(first, NAME, json!({"first": "written apart"}));
        let _ = world.patch(last, NAME, json!({"last": "written apart"}));
        world.run_for(Duration::from_secs(self.cut_s));
        world.heal();
        let healed = world.now();
        world.until("all sites agree", LIMIT, |world| world.disagreement().is_none());
        ms(world.now() - healed)
    }
}

fn totals(world: &World) -> (u64, u64) {
    let metrics = world.sites.values().filter_map(|site| site.engine()).map(khufu_engine::Engine::metrics);
    metrics.fold((0, 0), |(frames, gossip), metrics| (frames + metrics.frames_out, gossip + metrics.gossip_out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_study_is_a_function_of_its_seed() {
        let study = Study { sites: 3, changes: 3, gossip_loss: 30, cut_s: 20, ..Study::default() };
        let (one, same, other) = (study.run(1), study.run(1), study.run(2));
        assert_eq!(one.trace, same.trace);
        assert_eq!(one.times_ms, same.times_ms);
        assert_ne!(one.trace, other.trace);
        assert!(one.heal_ms.is_some());
    }
}

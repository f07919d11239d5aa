//! What the fuzz targets share: how a run is judged, a site without disk, network and drivers of its own, and how an
//! input is cut into parts.

mod parts;
mod site;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::abort;
use std::sync::Once;
use std::time::Duration;

pub use parts::{join, split};
pub use site::{AnyKeys, Site, exchange, two_sites};

/// The most processor time that one input may take.
const LIMIT: Duration = Duration::from_secs(1);

thread_local! {
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs one input. A panic that is not caught by the code under test ends the process, and so does an input that takes
/// longer than [`LIMIT`]; the time of other processes does not count.
pub fn run(work: impl FnOnce()) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        // The fuzzer's own hook ends the process at once, but libraries are known to panic on damage, and guarded.
        std::panic::set_hook(Box::new(|panic| {
            let text = format!("{panic}\n{}", std::backtrace::Backtrace::capture());
            SAID.with(|said| *said.borrow_mut() = text);
        }));
    });
    let began = processor_time();
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        SAID.with(|said| eprintln!("{}", said.borrow()));
        abort();
    }
    let took = processor_time().saturating_sub(began);
    if took > LIMIT {
        eprintln!("this input took {took:?}, at most {LIMIT:?} is allowed");
        abort();
    }
}

fn processor_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs().try_into().unwrap_or(0))
}

//! Panics are reported with the run in which they happen, and not printed in between.

use std::any::Any;
use std::cell::RefCell;
use std::panic;
use std::sync::Once;

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// From now on panics are kept for `last` instead of being printed.
pub fn keep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let said = info.payload_as_str().unwrap_or("no message");
            let place = info.location().map_or_else(String::new, |at| format!(" at {}:{}", at.file(), at.line()));
            LAST.with(|last| *last.borrow_mut() = format!("{said}{place}"));
        }));
    });
}

/// What the last panic of this thread said; where it happened, too, if that was kept.
pub(super) fn message(payload: &(dyn Any + Send)) -> String {
    let kept = LAST.with(|last| std::mem::take(&mut *last.borrow_mut()));
    if !kept.is_empty() {
        return kept;
    }
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

//! A crash at any point: the file is as it was or as it is to be, and every operation runs exactly once.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

use khufu_drivers::{Driver, FilesDriver, Work, digest};
use proptest::prelude::*;
use serde_json::json;

use crate::{append, cases, replica, wait, write};

#[derive(Debug, Clone)]
enum What {
    Append(String),
    Write(String),
    Desired(i64),
    Reset,
}

/// Some work, and after how many steps of it the process crashes, each time it is tried.
type Plan = Vec<(What, Vec<i64>)>;

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        // The same text again and again, and none at all: the contents do not tell what ran.
        5 => prop_oneof![Just("x".to_owned()), Just(String::new()), "[a-z\n]{0,9}"].prop_map(What::Append),
        2 => prop_oneof![Just("x".to_owned()), Just(String::new())].prop_map(What::Write),
        2 => (0_i64..3).prop_map(What::Desired),
        2 => Just(What::Reset),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    prop::collection::vec((what(), prop::collection::vec(0_i64..5, 0..3)), 1..12)
}

fn work(n: usize, what: &What) -> Work {
    match what {
        What::Append(text) => append(&format!("op-{n}"), text),
        What::Write(text) => write(&format!("op-{n}"), text),
        What::Desired(value) => Work::Desired(json!({ "value": value })),
        What::Reset => Work::Reset,
    }
}

fn follow(model: &Option<String>, what: &What) -> Option<String> {
    match what {
        What::Append(text) => Some(format!("{}{text}", model.as_deref().unwrap_or_default())),
        What::Write(text) => Some(text.clone()),
        What::Desired(value) => Some(format!("value: {value}\n")),
        What::Reset => None,
    }
}

fn start(dir: &Path, steps: &Arc<AtomicI64>) -> FilesDriver {
    let steps = steps.clone();
    FilesDriver::crashing(dir, move |_, _| steps.fetch_sub(1, SeqCst) == 0).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(60), ..ProptestConfig::default() })]

    #[test]
    fn exactly_once(plan in plan()) {
        let dir = tempfile::tempdir().unwrap();
        let replica = replica("web");
        let steps = Arc::new(AtomicI64::new(-1));
        let mut driver = start(dir.path(), &steps);
        let mut model: Option<String> = None;
        let read = || std::fs::read_to_string(dir.path().join("web")).ok();
        let mut marker = None;
        for (n, (what, crashes)) in plan.into_iter().enumerate() {
            let work = work(n, &what);
            let after = follow(&model, &what);
            let id = match &work {
                Work::Operation(operation) => Some(operation.id.clone()),
                Work::Desired(_) | Work::Reset => None,
            };
            let mut crashes = crashes.into_iter();
            loop {
                steps.store(crashes.next().unwrap_or(-1), SeqCst);
                if wait(driver.apply(&replica, work.clone())).is_ok() {
                    break;
                }
                // The node starts again and looks whether it had run.
                steps.store(-1, SeqCst);
                drop(driver);
                driver = start(dir.path(), &steps);
                let seen = wait(driver.observe(&replica)).unwrap();
                prop_assert_eq!(seen.drift, None);
                prop_assert!(read() == model || read() == after, "{:?} is neither {:?} nor {:?}", read(), model, after);
                prop_assert_eq!(seen.digest, read().map(|text| digest(text.as_bytes())));
                if id.is_some() && seen.marker == id {
                    prop_assert_eq!(read(), after.clone());
                    break;
                }
                prop_assert!(id.is_none() || read() == model || model == after, "it ran and nobody knows");
            }
            model = after;
            // An operation that changed nothing on a replica as new leaves no file, and needs none.
            prop_assert_eq!(read(), model.clone());
            if id.is_some() || !matches!(what, What::Append(_) | What::Write(_)) {
                marker = id;
            }
            let seen = wait(driver.observe(&replica)).unwrap();
            prop_assert_eq!((seen.drift, seen.marker), (None, marker.clone()));
        }
        // Nothing is left behind but the note.
        drop(driver);
        drop(FilesDriver::new(dir.path()).unwrap());
        let left: Vec<_> =
            std::fs::read_dir(dir.path().join(".khufu")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        prop_assert!(left.iter().all(|name| name == "web.json" || name.as_encoded_bytes().starts_with(b"journal.")), "{:?}", left);
    }

    #[test]
    fn deleting_ends_whatever_was_in_the_middle(what in what(), first in 0_i64..4, second in 0_i64..4) {
        let dir = tempfile::tempdir().unwrap();
        let replica = replica("web");
        let steps = Arc::new(AtomicI64::new(-1));
        let driver = start(dir.path(), &steps);
        wait(driver.apply(&replica, write("before", "before"))).unwrap();
        steps.store(first, SeqCst);
        let _ = wait(driver.apply(&replica, work(1, &what)));
        drop(driver);
        steps.store(-1, SeqCst);
        let driver = start(dir.path(), &steps);
        steps.store(second, SeqCst);
        let _ = wait(driver.delete(&replica));
        drop(driver);
        steps.store(-1, SeqCst);
        let driver = start(dir.path(), &steps);
        wait(driver.delete(&replica)).unwrap();
        drop(driver);
        drop(FilesDriver::new(dir.path()).unwrap());
        prop_assert!(!dir.path().join("web").exists());
        prop_assert!(!dir.path().join(".khufu/web.json").exists());
    }
}

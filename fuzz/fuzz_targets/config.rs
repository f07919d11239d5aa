//! `khufu.toml` and the variables of the environment.
#![no_main]

/// The parts of the command line that read them.
#[path = "../../crates/cli/src"]
#[allow(dead_code, unreachable_pub)]
mod cli {
    pub(crate) mod config;

    pub(crate) mod args {
        pub(crate) mod values;
    }
}

use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;

use cli::{args, config};

fuzz_target!(|input: &[u8]| khufu_fuzz::run(|| {
    let (file, environment) = match input.iter().position(|byte| *byte == 0) {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (input, &input[..0]),
    };
    let path = PathBuf::from(format!("/dev/shm/khufu-fuzz-{}.toml", std::process::id()));
    std::fs::write(&path, file).expect("it can be written");
    let file = config::read_file(Some(&path));
    let values: Vec<&str> =
        environment.split(|byte| *byte == 0).filter_map(|text| std::str::from_utf8(text).ok()).collect();
    // Any variable may have any of the values.
    let get = |name: &str| values.get(name.bytes().map(usize::from).sum::<usize>() % 13).map(|text| (*text).to_owned());
    let environment = config::read_environment(get);
    if let Err(error) = &file {
        assert!(error.to_string().contains("khufu-fuzz"));
    }
    if let (Ok(file), Ok(environment)) = (file, environment)
        && let Ok(effective) = config::merge(config::Layer::default(), environment, file)
    {
        assert!(!effective.lines().is_empty());
    }
    for text in values {
        let _ = (args::values::duration(text), args::values::multiaddr(text), args::values::socket(text));
    }
}));

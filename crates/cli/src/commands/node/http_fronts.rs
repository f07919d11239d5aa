//! Fronts of HTTP services, as the configuration asks for them.

use khufu_node::HttpFrontConfig;

use crate::config::Settings;
use crate::exit::Failure;

/// How the fronts are served.
///
/// # Errors
/// If what is said of one is no address and URL.
pub(super) fn configs(settings: &Settings) -> Result<Vec<HttpFrontConfig>, Failure> {
    let config = |(name, text): (&String, &String)| {
        let wrong = || {
            let example = "NAME=IP:PORT,URL, such as image=127.0.0.1:9292,http://127.0.0.1:19292";
            Failure::Usage(format!("http_fronts: {name}={text}: write {example}"))
        };
        let (address, upstream) = text.split_once(',').ok_or_else(wrong)?;
        let address = address.trim().parse().map_err(|_| wrong())?;
        let (name, upstream) = (name.clone(), upstream.trim().to_owned());
        Ok(HttpFrontConfig { name, address, upstream, open: settings.http_front_open })
    };
    settings.http_fronts.iter().map(config).collect()
}

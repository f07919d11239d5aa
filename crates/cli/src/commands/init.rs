//! `khufu init`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use khufu_crdt::SiteName;
use khufu_p2p::{Identity, Psk};
use serde_json::json;

use super::Context;
use crate::args::values;
use crate::exit::{Exit, Failure};

/// The new site.
#[derive(Debug, clap::Args)]
#[command(after_help = "The first site of a network makes its key; each other one is given that key:

  khufu init --site paris --dir paris
  khufu init --site rennes --dir rennes --psk-file swarm.key --bootstrap /ip4/192.0.2.1/tcp/7700

Nothing that is there already is overwritten.")]
pub(crate) struct Args {
    /// The name of the site
    #[arg(long, value_name = "NAME")]
    site: SiteName,
    /// The directory that gets everything of the site; made if it is not there
    #[arg(long, visible_alias = "data", value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// The key of a network that is there already; it is copied [default: a new key, for a new network]
    #[arg(long, value_name = "FILE")]
    psk_file: Option<PathBuf>,
    /// A node of the network to connect to; repeatable
    #[arg(long, value_name = "MULTIADDR", value_parser = values::multiaddr)]
    bootstrap: Vec<String>,
    /// Where other nodes reach this one; repeatable
    #[arg(long, value_name = "MULTIADDR", value_parser = values::multiaddr, default_value = "/ip4/0.0.0.0/tcp/7700")]
    listen: Vec<String>,
    /// Where the API is served
    #[arg(long, value_name = "ADDR", id = "api", value_parser = values::socket, default_value = "127.0.0.1:7780")]
    api: String,
    /// A label of the site, which scopes can speak of; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::key_value)]
    label: Vec<(String, String)>,
}

/// Where the parts of a site are, in its directory.
struct Files {
    config: PathBuf,
    psk: PathBuf,
    data: PathBuf,
    identity: PathBuf,
}

impl Files {
    fn of(dir: &Path) -> Self {
        let data = dir.join("data");
        Self { config: dir.join("khufu.toml"), psk: dir.join("swarm.key"), identity: data.join("identity.key"), data }
    }
}

/// Writes the parts, and says what to do with them.
pub(crate) fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let files = Files::of(&args.dir);
    // All is looked at before anything is written, so that a refusal leaves nothing half done.
    let given = args.psk_file.as_deref().map(load).transpose()?;
    let copies = args.psk_file.as_deref().is_none_or(|given| !same_file(given, &files.psk));
    for path in [&files.config, &files.identity].into_iter().chain(copies.then_some(&files.psk)) {
        if path.exists() {
            return Err(Failure::Refused(format!(
                "{} is there already and is not overwritten: choose another --dir, or move it away",
                path.display()
            )));
        }
    }
    make_private_dir(&files.data)?;
    let psk = given.unwrap_or_else(Psk::generate);
    if copies {
        psk.to_file(&files.psk).map_err(|error| Failure::Failed(error.to_string()))?;
    }
    let identity = Identity::load_or_create(&files.identity).map_err(|error| Failure::Failed(error.to_string()))?;
    let text = configuration(&args);
    create(&files.config, &text)?;

    let start = format!("khufu node --config {}", files.config.display());
    let first = args.listen.first().map_or("", String::as_str);
    let address = format!("{}/p2p/{}", reachable(first), identity.peer_id());
    let join = format!("khufu init --site NAME --dir NAME --psk-file swarm.key --bootstrap {address}");
    let json = json!({
        "site": args.site, "config": files.config, "psk_file": files.psk, "psk_fingerprint": psk.fingerprint(),
        "data": files.data, "peer": identity.peer_id().to_string(), "address": address, "start": start, "join": join,
    });
    context.out.print(&json, |_| {
        format!(
            "Made the site {} in {}: khufu.toml, swarm.key (fingerprint {}) and data/identity.key ({}).\n\n\
             Start it:\n  {start}\n\n\
             For each further site, carry swarm.key there on a safe way and run{}:\n  {join}",
            args.site,
            args.dir.display(),
            psk.fingerprint(),
            identity.peer_id(),
            if address.contains("/HOST/") { ", with the address of this machine for HOST" } else { "" },
        )
    })?;
    Ok(Exit::Ok)
}

fn load(path: &Path) -> Result<Psk, Failure> {
    Psk::load(path).map_err(|error| Failure::Usage(error.to_string()))
}

fn same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Makes a directory that only its owner can look into: what the node stores there is nobody else's to read. Those above
/// it are as usual.
fn make_private_dir(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    let failed = |source| Failure::Write { path: path.display().to_string(), source };
    path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(failed)?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)
}

/// Writes a file that must not be there yet.
fn create(path: &Path, text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let failed = |source| Failure::Write { path: path.display().to_string(), source };
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}

/// An address that listens everywhere is reached under the machine's own, which is not known here.
fn reachable(listen: &str) -> String {
    listen.replace("/ip4/0.0.0.0/", "/ip4/HOST/").replace("/ip6/::/", "/ip6/HOST/")
}

fn configuration(args: &Args) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let list = |items: &[String]| items.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", ");
    let mut text = format!(
        "# The site {site}. Paths start at this file. Arguments of `khufu node` and variables KHUFU_... go first.\n\
         site = {name}\n\
         data = \"data\"\n\
         psk_file = \"swarm.key\"\n\
         # Where other nodes reach this one.\n\
         listen = [{listen}]\n\
         # Where the network is looked for. Nodes that were met once are found again without.\n\
         bootstrap = [{bootstrap}]\n\
         # Beyond this machine the API needs tokens: tokens = \"tokens.toml\"\n\
         api = {api}\n\
         \n\
         # What this site can make: one file for each replicant of the kind `files`.\n\
         [drivers]\n\
         files = \"files\"\n",
        site = args.site,
        name = quoted(args.site.as_str()),
        listen = list(&args.listen),
        bootstrap = list(&args.bootstrap),
        api = quoted(&args.api),
    );
    if !args.label.is_empty() {
        text.push_str("\n# What scopes can speak of: [key=value].\n[labels]\n");
        for (key, value) in &args.label {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{} = {}", quoted(key), quoted(value));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_everybody_needs_a_host() {
        assert_eq!(reachable("/ip4/0.0.0.0/tcp/7700"), "/ip4/HOST/tcp/7700");
        assert_eq!(reachable("/ip6/::/tcp/7700"), "/ip6/HOST/tcp/7700");
        assert_eq!(reachable("/ip4/10.0.0.1/tcp/7700"), "/ip4/10.0.0.1/tcp/7700");
    }
}

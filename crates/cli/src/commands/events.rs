//! `khufu events`.

use std::time::Duration;

use futures::StreamExt as _;
use serde_json::Value;

use super::Context;
use crate::client::ClientError;
use crate::exit::{Exit, Failure};
use crate::output::{Output, clean, remark, utc};

/// How long to pause before a lost connection is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// A stream that is silent for so long is lost: a node says something every 15 seconds.
const SILENCE: Duration = Duration::from_secs(45);
/// The most bytes of one event that are taken.
const MAX_EVENT_BYTES: usize = 4 * 1024 * 1024;

/// Where to begin and end.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Follows until it is interrupted, also over restarts of the node. An event called `gap` says that
some were lost. With -o json each event is one line, with its id."
)]
pub(crate) struct Args {
    /// Begin after the event with this id, as a line of -o json shows it; 0 begins with the oldest that is kept
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// End after so many events
    #[arg(long, value_name = "NUMBER")]
    count: Option<u64>,
}

/// Prints events as they happen.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    let mut last = args.after;
    let mut left = args.count.unwrap_or(u64::MAX);
    // Whether there is a node at all is told at once; only one that was there is worth waiting for.
    let (mut was_there, mut said) = (false, false);
    loop {
        match client.events("", last.as_deref()).await {
            Ok(response) => {
                (was_there, said) = (true, false);
                let mut reader = Reader::default();
                let mut chunks = response.bytes_stream();
                while let Ok(Some(Ok(chunk))) = tokio::time::timeout(SILENCE, chunks.next()).await {
                    for event in reader.feed(&chunk) {
                        last = event.id.clone().or(last);
                        print(context.out, &event)?;
                        left -= 1;
                        if left == 0 {
                            return Ok(Exit::Ok);
                        }
                    }
                }
            }
            // It took the connection, so it was there; perhaps it is being started again.
            Err(ClientError::Lost { .. }) => was_there = true,
            Err(error) if was_there && error.exit() == Exit::Unreachable => {}
            Err(error) => return Err(error.into()),
        }
        if !std::mem::replace(&mut said, true) {
            remark(&format!("khufu: lost the node at {}; trying again every second", client.api()));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn print(out: Output, event: &Sent) -> Result<(), Failure> {
    let mut value = serde_json::from_str(&event.data).unwrap_or(Value::String(event.data.clone()));
    if let (Some(fields), Some(id)) = (value.as_object_mut(), &event.id) {
        fields.insert("id".into(), Value::from(id.as_str()));
    }
    out.print_item(&value, |_| sentence(&event.name, &value))?;
    Ok(())
}

/// An event on one line: when, what, and its fields as they are called in JSON.
fn sentence(name: &str, value: &Value) -> String {
    let at = value.get("at").and_then(Value::as_u64).map_or("-".repeat(20), utc);
    let fields: Vec<String> = value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| !["at", "event", "id", "heads"].contains(&key.as_str()) && !value.is_null())
        .map(|(key, value)| match value {
            Value::String(text) => format!("{key}={text}"),
            other => format!("{key}={other}"),
        })
        .collect();
    clean(&format!("{at}  {name:<10}  {}", fields.join("  ")).replace('\n', " "))
}

/// One event as it was sent.
#[derive(Debug, Default, Clone, PartialEq)]
struct Sent {
    id: Option<String>,
    name: String,
    data: String,
}

/// Reads the format of server-sent events (WHATWG HTML, section 9.2.6), as far as a node sends it.
#[derive(Debug, Default)]
struct Reader {
    buffer: Vec<u8>,
    event: Sent,
}

impl Reader {
    /// Takes bytes as they come, and gives the events that are whole.
    fn feed(&mut self, bytes: &[u8]) -> Vec<Sent> {
        self.buffer.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            events.extend(self.line(line.trim_end_matches(['\n', '\r'])));
        }
        if self.buffer.len() + self.event.data.len() > MAX_EVENT_BYTES {
            self.buffer.clear();
            self.event = Sent::default();
        }
        events
    }

    fn line(&mut self, line: &str) -> Option<Sent> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return (!event.data.is_empty()).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.event.id = Some(value.to_owned()),
            "event" => self.event.name = value.to_owned(),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // An empty field is a comment, which keeps the connection alive; others are for browsers.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_wherever_the_bytes_are_cut() {
        let text = ": hello\nretry: 1000\n\nid: 7-1\nevent: site\ndata: {\"event\":\"site\",\ndata: \"at\":0}\n\n:\n\nid: 7-2\r\ndata: x\r\n\r\n";
        let whole = Reader::default().feed(text.as_bytes());
        assert_eq!(whole.len(), 2);
        assert_eq!(whole[0].id.as_deref(), Some("7-1"));
        assert_eq!(whole[0].data, "{\"event\":\"site\",\n\"at\":0}");
        assert_eq!(whole[1], Sent { id: Some("7-2".into()), name: String::new(), data: "x".into() });
        let mut reader = Reader::default();
        let bytewise: Vec<Sent> = text.bytes().flat_map(|byte| reader.feed(&[byte])).collect();
        assert_eq!(bytewise, whole);
    }

    #[test]
    fn an_event_is_a_line() {
        let value =
            serde_json::json!({"at": 0, "event": "reported", "site": "paris", "seq": 3, "heads": [], "id": "1-1"});
        assert_eq!(sentence("reported", &value), "1970-01-01 00:00:00Z  reported    seq=3  site=paris");
    }
}

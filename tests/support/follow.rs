//! A reader of server-sent events.

use serde_json::Value;

use super::PATIENCE;

/// One event as it was received.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    /// Where it stands.
    pub(crate) id: String,
    /// What kind.
    pub(crate) event: String,
    /// All about it.
    pub(crate) data: Value,
}

/// An open stream.
#[derive(Debug)]
pub(crate) struct Follow {
    response: reqwest::Response,
    text: String,
}

impl Follow {
    pub(super) fn new(response: reqwest::Response) -> Self {
        Self { response, text: String::new() }
    }

    /// The next event; panics if none comes in time or the stream ends.
    pub(crate) async fn next(&mut self) -> Told {
        // Comments come all the time, so the limit is for the event.
        tokio::time::timeout(PATIENCE, self.read()).await.expect("an event in time")
    }

    async fn read(&mut self) -> Told {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let told = parse(block);
                self.text = rest.to_owned();
                if let Some(told) = told {
                    return told;
                }
            }
            let chunk = self.response.chunk().await.expect("the stream lives").expect("the stream goes on");
            self.text.push_str(std::str::from_utf8(&chunk).expect("chunks end between events"));
        }
    }

    /// Reads on until an event is as wanted; gives it and those before it.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Told) -> bool) -> Vec<Told> {
        let mut all = Vec::new();
        loop {
            all.push(self.next().await);
            if all.last().is_some_and(&wanted) {
                return all;
            }
        }
    }
}

/// None for comments and for what only says when to come back.
fn parse(block: &str) -> Option<Told> {
    let field = |name: &str| {
        let mut lines = block.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| *found == name).map(|(_, value)| value)
    };
    let data = serde_json::from_str(field("data")?).expect("data is JSON");
    Some(Told { id: field("id")?.to_owned(), event: field("event")?.to_owned(), data })
}

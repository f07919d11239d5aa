//! What a node answered to an HTTP request.

use serde_json::Value;

/// Status and body.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The body as JSON, or as a string if it is none.
    pub(crate) body: Value,
    /// The content type.
    pub(crate) content_type: String,
    /// The ETag, empty if there is none.
    pub(crate) etag: String,
}

impl Answer {
    /// The body; panics unless the request was carried out.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{self:?}");
        self.body
    }

    /// Panics unless this is a problem of this status whose detail holds the words.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, words: &[&str]) {
        assert_eq!((self.status, self.content_type.as_str()), (status, "application/problem+json"), "{self:?}");
        let detail = self.body["detail"].as_str().unwrap_or_default();
        words.iter().for_each(|word| assert!(detail.contains(word), "{word:?} is not in {detail:?}"));
    }
}

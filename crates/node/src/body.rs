//! What is sent over HTTP either way, piece by piece.

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a request or an answer carries, as it comes: nothing keeps all of it.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body, whatever it was.
pub fn boxed<B>(body: B) -> Body
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    body.map_err(|error| Box::new(error) as BoxError).boxed_unsync()
}

/// A body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    boxed(Full::new(bytes.into()))
}

/// An error with what led to it: the outermost of a lost connection says nothing.
pub(crate) fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

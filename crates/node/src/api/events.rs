//! `/v1/events`: server-sent events, resumable.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::json;

use super::extract::Query;
use super::{Api, MAX_FOLLOWERS, Problem};
use crate::{Cursor, Followed};

/// Silence is broken so often, so that both ends notice a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What a browser waits before it comes back.
const RETRY: Duration = Duration::from_secs(1);

/// Where to begin.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventParams {
    /// The same as the header `Last-Event-ID`, for those who cannot set headers. `0` begins with the oldest event kept.
    after: Option<String>,
}

#[utoipa::path(get, path = "/v1/events", tag = "node", params(EventParams,
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event received: those since then come first")),
    responses((status = 200, description = "Events as they happen, each with an id, its name, and JSON data. \
        An event named `gap` says that some were lost", body = khufu_engine::Event, content_type = "text/event-stream"),
        (status = 400, description = "Not the id of an event", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too many follow already", body = Problem, content_type = "application/problem+json")))]
/// Follow what happens (server-sent events)
pub(crate) async fn events(
    State(api): State<Api>,
    headers: HeaderMap,
    Query(params): Query<EventParams>,
) -> Result<Response, Problem> {
    let header = headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?").to_owned());
    let after = match header.or(params.after).as_deref() {
        None | Some("") => None,
        Some("0") => Some(api.handle.first_event()),
        Some(text) => Some(text.parse::<Cursor>().map_err(|error| Problem::bad_request(error.to_string()))?),
    };
    let Ok(place) = api.followers.clone().try_acquire_owned() else {
        return Err(Problem::busy(format!("{MAX_FOLLOWERS} readers follow the events of this node already")));
    };
    let stream = api.handle.follow(after).into_stream().map(move |item| {
        // Held for as long as the stream lives.
        let _ = &place;
        Ok::<_, Infallible>(sent(&item))
    });
    let first = futures::stream::iter([Ok(Sent::default().retry(RETRY).comment("events"))]);
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response = Sse::new(first.chain(stream)).keep_alive(keep_alive).into_response();
    // Proxies that collect a response before they pass it on would hold the events back.
    response.headers_mut().insert("x-accel-buffering", header::HeaderValue::from_static("no"));
    Ok(response)
}

fn sent(item: &Followed) -> Sent {
    match item {
        Followed::Event(cursor, event) => {
            let data = serde_json::to_string(event.as_ref()).unwrap_or_default();
            Sent::default().id(cursor.to_string()).event(event.what.name()).data(data)
        }
        Followed::Gap(cursor) => {
            let data = json!({"event": "gap", "message": "events were lost: read anew what you keep a copy of"});
            Sent::default().id(cursor.to_string()).event("gap").data(data.to_string())
        }
    }
}

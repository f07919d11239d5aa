//! Looks, of which nothing is kept: `POST /show_local/{id}` at this site, `POST /show/{id}` at several.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use http_body_util::BodyExt as _;
use hyper::{Request, Response};
use khufu_crdt::{ReplicantId, SiteName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use super::form::Form;
use super::{Cheops, Refused, Shared};
use crate::api::Caller;
use crate::body::{Body, full, whole};
use crate::forward::{Forward, ForwardError};

/// The name of the service that other sites ask to look.
const SERVICE: &str = "cheops-show";
/// How long it is waited for all sites together.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most sites that are asked at once.
const MAX_SITES: usize = 256;
/// The most bytes of a question to another site: a command of the longest, each byte of it escaped.
const MAX_QUESTION: usize = 1 << 20;
/// The most bytes of an answer of one, so that those of all have room.
const MAX_ANSWER: usize = 256 << 10;

/// How a look ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Status {
    Ok,
    Ko,
    Timeout,
}

/// What a command said.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Shown {
    status: Status,
    output: String,
}

/// What one site asks of another.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    id: ReplicantId,
    command: String,
}

pub(super) async fn show_local(
    State(cheops): Shared,
    Path(id): Path<String>,
    form: Form,
) -> Result<Json<Shown>, Refused> {
    let question = question(id, &form)?;
    cheops.look(&question).await.map(Json).ok_or_else(busy)
}

pub(super) async fn show(
    State(cheops): Shared,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Json<BTreeMap<SiteName, Shown>>, Refused> {
    let question = question(id, &form)?;
    let sites: BTreeSet<SiteName> = match form.sites.is_empty() {
        false => form.sites()?.into_iter().collect(),
        // The command line of Cheops names none.
        true => match cheops.view(&caller.0, &question.id).await? {
            Some(view) => view.placement.map(|placement| placement.sites).unwrap_or_default(),
            None => {
                let reason = format!("there is no resource {}: say in a part `sites` where to look", question.id);
                return Err(Refused(StatusCode::NOT_FOUND, reason));
            }
        },
    };
    if sites.len() > MAX_SITES {
        return Err(Refused::bad(format!("bad request: sites: there are {}, at most {MAX_SITES}", sites.len())));
    }
    let _place = cheops.asks.try_acquire().map_err(|_| busy())?;
    let until = Instant::now() + PATIENCE;
    let (cheops, question) = (&cheops, &question);
    let each = sites.into_iter().map(|site| async move {
        let shown = cheops.shown_at(&site, question, until).await;
        (site, shown)
    });
    Ok(Json(futures::future::join_all(each).await.into_iter().collect()))
}

fn question(id: String, form: &Form) -> Result<Question, Refused> {
    let id = ReplicantId::new(id).map_err(|error| Refused::bad(format!("bad request: {error}")))?;
    Ok(Question { id, command: form.command()?.to_owned() })
}

fn busy() -> Refused {
    let reason = "as many commands as may run at once do: try again in a second";
    Refused(StatusCode::SERVICE_UNAVAILABLE, reason.into())
}

impl Shown {
    fn ko(output: impl Into<String>) -> Self {
        Self { status: Status::Ko, output: output.into() }
    }
}

impl From<ForwardError> for Shown {
    fn from(error: ForwardError) -> Self {
        let dead = matches!(error, ForwardError::Unreachable { .. } | ForwardError::NoAnswer { .. });
        Self { status: if dead { Status::Timeout } else { Status::Ko }, output: error.to_string() }
    }
}

impl Cheops {
    /// Runs a command here, once; none if too many run.
    async fn look(&self, question: &Question) -> Option<Shown> {
        let _place = self.shows.try_acquire().ok()?;
        Some(match self.driver.show(&question.id, &question.command).await {
            Ok(output) => Shown { status: Status::Ok, output },
            Err(error) => Shown::ko(error.to_string()),
        })
    }

    /// What a site shows, or why it does not.
    async fn shown_at(&self, site: &SiteName, question: &Question, until: Instant) -> Shown {
        let ask = async {
            let body = serde_json::to_vec(question).unwrap_or_default();
            let request = Request::post("/").body(full(body)).map_err(|error| Shown::ko(error.to_string()))?;
            let answer = self.forward.to(site, SERVICE, request, PATIENCE).await?;
            read(answer.into_body(), MAX_ANSWER).await.map_err(|reason| {
                Shown::ko(format!("the answer of the site {site} cannot be read ({reason}): ask its /show_local"))
            })
        };
        match timeout_at(until, ask).await {
            Ok(shown) => shown.unwrap_or_else(|instead| instead),
            Err(_) => ForwardError::NoAnswer { site: site.clone(), after: PATIENCE, sent: true }.into(),
        }
    }

    /// Lets other sites look here, for as long as this is served.
    pub(super) fn let_look(self: &Arc<Self>, forward: &Forward) {
        let cheops = Arc::downgrade(self);
        let served = forward.serve(SERVICE, move |_, request: Request<Body>| answer(cheops.clone(), request));
        if !served {
            tracing::error!("somebody else serves {SERVICE}: other sites cannot look here");
        }
    }
}

/// Answers another site.
async fn answer(cheops: Weak<Cheops>, request: Request<Body>) -> Response<Body> {
    let shown = match (cheops.upgrade(), read::<Question>(request.into_body(), MAX_QUESTION).await) {
        (_, Err(reason)) => Shown::ko(format!("the question cannot be read: {reason}")),
        (None, _) => Shown::ko("this node is stopping"),
        (Some(cheops), Ok(question)) => cheops.look(&question).await.unwrap_or_else(|| Shown::ko(busy().1)),
    };
    Response::new(full(serde_json::to_vec(&shown).unwrap_or_default()))
}

/// Reads JSON that another site sends, within the same time and up to so many bytes.
async fn read<T: DeserializeOwned>(mut body: Body, limit: usize) -> Result<T, String> {
    let read = async {
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame.map_err(|error| whole(&*error))?.into_data() else { continue };
            if bytes.len() + piece.len() > limit {
                return Err(format!("it has more than {limit} bytes"));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    };
    let late = || format!("it did not come within {} s", PATIENCE.as_secs());
    let bytes = tokio::time::timeout(PATIENCE, read).await.unwrap_or_else(|_| Err(late()))?;
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

//! `POST /show_local/{id}`: a look at this site. Nothing is kept of it, and nobody else hears of it.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use khufu_crdt::ReplicantId;
use serde::Serialize;

use super::form::Form;
use super::{Refused, Shared};

/// What a command said.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Shown {
    status: &'static str,
    output: String,
}

pub(super) async fn show_local(
    State(cheops): Shared,
    Path(id): Path<String>,
    form: Form,
) -> Result<Json<Shown>, Refused> {
    let id = ReplicantId::new(id).map_err(|error| Refused::bad(format!("bad request: {error}")))?;
    let command = form.command()?;
    let Ok(_place) = cheops.shows.try_acquire() else {
        let reason = "as many commands as may run at once do: try again in a second";
        return Err(Refused(StatusCode::SERVICE_UNAVAILABLE, reason.into()));
    };
    let (status, output) = match cheops.driver.show(&id, command).await {
        Ok(output) => ("OK", output),
        Err(error) => ("KO", error.to_string()),
    };
    Ok(Json(Shown { status, output }))
}

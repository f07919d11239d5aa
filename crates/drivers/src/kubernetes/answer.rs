//! What an answer of an API server means for what was tried.

use std::time::Duration;

use kube::core::Status;

use super::manifest::Key;
use crate::DriverError;
use crate::text::clipped;

/// The longest message of a server that is passed on.
const MAX_MESSAGE_BYTES: usize = 1_500;
/// How long a server is left alone that has too much to do and does not say how long.
const BREATH: Duration = Duration::from_secs(1);

/// What was said of an attempt that did not succeed.
pub(super) fn error(key: &Key, error: kube::Error) -> DriverError {
    match error {
        kube::Error::Api(status) => refused(key, &status),
        kube::Error::Auth(error) => {
            DriverError::Unavailable { reason: format!("no credentials: {error}"), retry_after: None }
        }
        other => DriverError::Unavailable { reason: clipped(&whole(&other), MAX_MESSAGE_BYTES), retry_after: None },
    }
}

/// What is said of a write that was sent and not answered; none if there is an answer, or nothing was sent.
pub(super) fn unanswered(error: &kube::Error) -> Option<DriverError> {
    let is_sent = match error {
        // Whoever passes it on has not heard.
        kube::Error::Api(status) => matches!(status.code, 502 | 504),
        kube::Error::Service(_) | kube::Error::HyperError(_) => !is_no_connection(error),
        // It has answered, in words that are not understood.
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) | kube::Error::ReadEvents(_) => true,
        _ => false,
    };
    is_sent.then(|| DriverError::Unanswered { reason: clipped(&whole(error), MAX_MESSAGE_BYTES) })
}

/// Whether there was no connection at all.
fn is_no_connection(error: &kube::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if error.downcast_ref().is_some_and(hyper_util::client::legacy::Error::is_connect) {
            return true;
        }
        next = error.source();
    }
    false
}

/// An error with what led to it: the outermost of a lost connection says nothing.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let said = source.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = source.source();
    }
    text
}

fn refused(key: &Key, status: &Status) -> DriverError {
    let message = clipped(&status.message, MAX_MESSAGE_BYTES);
    let after = || {
        let seconds = status.details.as_ref().map(|details| details.retry_after_seconds).filter(|seconds| *seconds > 0);
        seconds.map(|seconds| Duration::from_secs(u64::from(seconds)))
    };
    let place = key.to_string();
    let causes = || status.details.iter().flat_map(|details| &details.causes);
    match (status.code, status.reason.as_str()) {
        // It passes by itself.
        (403, _) if causes().any(|cause| cause.reason == "NamespaceTerminating") => {
            DriverError::Unavailable { reason: format!("{place}: {message}"), retry_after: None }
        }
        (410, _) => DriverError::Unavailable { reason: format!("{place}: {message}"), retry_after: None },
        (409, _) => conflict(place, status, message),
        // Whoever is not known is not told what there is: a token may be renewed, and the server counts as away meanwhile.
        (401, _) => {
            let reason =
                format!("{place}: the API server does not know who asks (is the token still valid?): {message}");
            DriverError::Unavailable { reason, retry_after: None }
        }
        // Quotas and webhooks say so, too: all of them may change their mind, and none does so for being asked again at once.
        (403, _) => DriverError::Refused { place, reason: forbidden(&message) },
        (404, _) => DriverError::Unavailable { reason: format!("{place}: {message}"), retry_after: None },
        (408 | 504, _) => DriverError::Unavailable { reason: format!("{place}: {message}"), retry_after: after() },
        (429, _) => DriverError::Unavailable {
            reason: format!("{place}: {message}"),
            retry_after: Some(after().unwrap_or(BREATH)),
        },
        (400 | 405 | 406 | 413 | 415 | 422, _) => DriverError::Invalid { field: place, reason: message },
        // Server-side apply of what no version of the kind has.
        (500, _) if message.contains("failed to create typed patch object") => {
            DriverError::Invalid { field: place, reason: message }
        }
        (500.., _) => DriverError::Unavailable { reason: format!("{place}: {message}"), retry_after: after() },
        _ => DriverError::Refused { place, reason: message },
    }
}

/// Servers give no reason where a patch would make an object and its author may not: what is missing is said for them.
fn forbidden(message: &str) -> String {
    let why = match message.trim_end().strip_suffix("is forbidden:") {
        Some(_) => " the verb create is missing for its kind",
        None => "",
    };
    format!("the API server forbids it: {}{why}", message.trim_end())
}

/// Somebody else has set fields to other values.
fn conflict(place: String, status: &Status, message: String) -> DriverError {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let fields: Vec<_> = causes
        .filter(|cause| cause.reason == "FieldManagerConflict")
        .map(|cause| {
            let by = cause.message.trim_start_matches("conflict with ");
            format!("{} is of {by}", cause.field.trim_start_matches('.'))
        })
        .take(20)
        .collect();
    if fields.is_empty() {
        // Two wrote at once.
        return DriverError::Unavailable { reason: format!("{place}: {message}"), retry_after: None };
    }
    let reason = format!(
        "others have set fields to something else: {}. Have them leave these fields alone, leave them out of the desired \
         state, or take them over with the policy option \"force\": true",
        fields.join("; ")
    );
    DriverError::Refused { place, reason: clipped(&reason, MAX_MESSAGE_BYTES) }
}

/// Whether an error may say that an object is there which was to be made; or that the server does not let that be asked: some
/// did not for some kinds (Services, until Kubernetes 1.22).
pub(super) fn may_be_there(key: &Key, error: &kube::Error) -> bool {
    const NOT_ASKED: &str = "resourceVersion should not be set";
    let kube::Error::Api(status) = error else { return false };
    // There are conflicts about others, such as quotas.
    let of_it = status.details.as_ref().is_none_or(|details| details.name.is_empty() || details.name == key.name);
    (status.code == 409 && of_it) || status.message.contains(NOT_ASKED)
}

/// Whether an error says that another object has the name of the one that was to be written, or none has any more.
pub(super) fn is_another(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    causes.any(|cause| cause.field == "metadata.uid")
}

/// Whether a write could not be tried, which says nothing of the write: an admission webhook may not take part in that.
pub(super) fn is_untried(error: &DriverError) -> bool {
    matches!(error, DriverError::Invalid { reason, .. } if reason.contains("does not support dry run"))
}

/// Somebody has made an object, or taken one away and perhaps made another, since it was looked at.
pub(super) fn not_the_same(key: &Key) -> DriverError {
    let reason = format!("{key}: somebody has made or removed an object of that name just now: it is looked at again");
    DriverError::Unavailable { reason, retry_after: None }
}

/// Whether an error says that the kind is not served any more: nothing is at the place that was asked for.
pub(super) fn is_no_place(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404 && status.reason != "NotFound")
}

/// Whether an error says that an object is not there.
pub(super) fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404 && status.reason == "NotFound")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(status: serde_json::Value) -> DriverError {
        let status: Status = serde_json::from_value(status).unwrap();
        error(&"Deployment.apps/shop/web".parse().unwrap(), kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn what_cannot_succeed_is_not_tried_again_at_once() {
        for (code, reason) in [(403, "Forbidden"), (422, "Invalid"), (400, "BadRequest")] {
            let error = said(json!({"code": code, "reason": reason, "message": "because of this"}));
            assert!(error.is_permanent(), "{code}");
            let text = error.to_string();
            assert!(text.contains("because of this") && text.contains("Deployment.apps/shop/web"), "{text}");
        }
        let unknown = "failed to create typed patch object: .spec.x: field not declared in schema";
        assert!(said(json!({"code": 500, "message": unknown})).is_permanent());
        for code in [401, 404, 409, 429, 500, 503, 504] {
            assert!(!said(json!({"code": code, "message": "later"})).is_permanent(), "{code}");
        }
    }

    #[tokio::test]
    async fn what_was_never_sent_was_not_done_and_what_nobody_heard_of_may_have_been() {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = kube::Client::try_from(config).unwrap();
        let request = http::Request::delete("/").body(Vec::new()).unwrap();
        let error = client.request_text(request).await.unwrap_err();
        assert!(matches!(error, kube::Error::Service(_)) && unanswered(&error).is_none(), "{error:?}");
        let api = |code: u16| {
            let status = json!({"code": code, "message": "x"});
            unanswered(&kube::Error::Api(Box::new(serde_json::from_value(status).unwrap())))
        };
        assert!(api(504).is_some() && api(403).is_none() && api(503).is_none());
    }

    #[test]
    fn a_server_that_asks_for_a_pause_gets_it() {
        let asked = said(json!({"code": 429, "message": "too many", "details": {"retryAfterSeconds": 7}}));
        assert_eq!(asked.retry_after(), Some(Duration::from_secs(7)));
        assert_eq!(said(json!({"code": 429, "message": "too many"})).retry_after(), Some(BREATH));
    }

    #[test]
    fn who_else_has_set_a_field_is_named() {
        let error = said(json!({"code": 409, "reason": "Conflict", "message": "Apply failed", "details": {"causes": [
            {"reason": "FieldManagerConflict", "message": "conflict with \"kubectl-edit\" using apps/v1", "field": ".spec.replicas"}
        ]}}));
        let text = error.to_string();
        assert!(error.is_permanent());
        assert!(text.contains("spec.replicas is of \"kubectl-edit\""), "{text}");
    }
}

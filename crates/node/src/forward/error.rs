//! Why a request got no answer of another site.

use std::time::Duration;

use hyper::StatusCode;
use khufu_crdt::SiteName;

/// Why a request got no answer of another site. Each names the site.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// No node of that site is up. The request was not sent.
    #[error("the site {site} cannot be reached: {reason}")]
    Unreachable {
        /// The site.
        site: SiteName,
        /// What is known of it.
        reason: String,
    },
    /// As many requests to that site are under way as there may be. This one was not sent.
    #[error("as many requests to the site {site} are under way as there may be: try again in a second ({reason})")]
    Busy {
        /// The site.
        site: SiteName,
        /// Which limit.
        reason: String,
    },
    /// This node cannot say where the site is. The request was not sent.
    #[error("this node is too busy to say where the site {site} is: try again in a second")]
    Unready {
        /// The site.
        site: SiteName,
    },
    /// The site did not answer in time. It may have done what was asked, unless `sent` is false.
    #[error("the site {site} has not answered within {} s", after.as_secs_f64())]
    NoAnswer {
        /// The site.
        site: SiteName,
        /// How long was waited.
        after: Duration,
        /// Whether anything of the request may have come there.
        sent: bool,
    },
    /// The site does not serve that service. Nobody saw the request there.
    #[error("the site {site} does not serve {service:?}: see how its nodes are configured")]
    UnknownService {
        /// The site.
        site: SiteName,
        /// The service.
        service: String,
    },
    /// The site does not know this node yet, or no more. Nobody saw the request there.
    #[error(
        "the site {site} does not know this node as one of the network: it may have just been started, so try again"
    )]
    Stranger {
        /// The site.
        site: SiteName,
    },
    /// The connection broke before an answer came. The site may have done what was asked, unless `sent` is false.
    #[error("the connection to the site {site} broke before its answer came: {reason}")]
    Broken {
        /// The site.
        site: SiteName,
        /// In which way.
        reason: String,
        /// Whether anything of the request may have come there.
        sent: bool,
    },
}

impl ForwardError {
    /// What a gateway answers then.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoAnswer { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::Busy { .. } | Self::Unready { .. } => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    /// Whether the service there may have seen the request: if not, it can be sent to another.
    #[must_use]
    pub fn may_have_been_seen(&self) -> bool {
        matches!(self, Self::NoAnswer { sent: true, .. } | Self::Broken { sent: true, .. })
    }

    /// For counting.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Busy { .. } => "busy",
            Self::Unready { .. } => "unready",
            Self::NoAnswer { .. } => "no-answer",
            Self::UnknownService { .. } => "unknown-service",
            Self::Stranger { .. } => "stranger",
            Self::Broken { .. } => "broken",
        }
    }
}

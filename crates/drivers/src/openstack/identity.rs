//! Keystone: how a token is asked for, and what its answer says.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::cloud::{Cloud, Proof, versioned};
use super::kinds::Service;
use crate::DriverError;

/// A token that does not say how long it is good counts as good for so long.
const UNKNOWN: Duration = Duration::from_secs(5 * 60);
/// A token is renewed so long before its end, or after three quarters of its time if that is later.
const EARLY: Duration = Duration::from_secs(5 * 60);

/// What a token is good for.
pub(super) struct Token {
    /// How long from now until it is to be renewed; none if nobody can.
    pub(super) renew_in: Option<Duration>,
    /// The project that it is good for, and the user whose it is.
    pub(super) project: Option<String>,
    pub(super) user: String,
    /// Where each service is, by its name here.
    endpoints: BTreeMap<Service, String>,
    /// Where the others could be, in words.
    elsewhere: BTreeMap<Service, String>,
}

#[derive(Deserialize)]
struct Answer {
    token: Said,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    issued_at: Option<String>,
    #[serde(default)]
    expires_at: Option<String>,
    #[serde(default)]
    project: Option<Named>,
    user: Named,
    #[serde(default)]
    catalog: Vec<Listed>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "type")]
    of_type: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    interface: String,
    #[serde(default)]
    region_id: Option<String>,
    #[serde(default)]
    region: Option<String>,
    url: String,
}

/// The request for a token.
pub(super) fn request(cloud: &Cloud) -> Value {
    let identity = match &cloud.proof {
        Proof::Password(user) => json!({"methods": ["password"], "password": {"user": user}}),
        Proof::ApplicationCredential(credential) => {
            json!({"methods": ["application_credential"], "application_credential": credential})
        }
        Proof::Token(token) => json!({"methods": ["token"], "token": {"id": token}}),
    };
    match &cloud.scope {
        Some(scope) => json!({"auth": {"identity": identity, "scope": scope}}),
        None => json!({"auth": {"identity": identity}}),
    }
}

impl Token {
    /// Reads Keystone's answer.
    ///
    /// # Errors
    /// [`DriverError::Unavailable`] if that is no token.
    pub(super) fn read(cloud: &Cloud, answer: Value) -> Result<Self, DriverError> {
        let Answer { token } = Answer::deserialize(answer).map_err(|error| DriverError::Unavailable {
            reason: format!("what {} said is no token: {error}", cloud.auth_url),
            retry_after: None,
        })?;
        let (mut endpoints, mut elsewhere) = (BTreeMap::new(), BTreeMap::new());
        for service in Service::ALL {
            match place(cloud, service, &token.catalog) {
                Ok(url) => _ = endpoints.insert(service, url),
                Err(others) => _ = elsewhere.insert(service, others),
            }
        }
        let time = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
        // By the server's clock alone: that of this machine may be another.
        let lasts = match (time(&token.issued_at), time(&token.expires_at)) {
            (Some(from), Some(to)) => Duration::try_from(to.duration_since(from)).unwrap_or_default(),
            _ => UNKNOWN,
        };
        let renew_in =
            (!matches!(cloud.proof, Proof::Token(_))).then(|| lasts.saturating_sub(EARLY).max(lasts * 3 / 4));
        Ok(Self {
            renew_in,
            project: token.project.map(|project| project.id),
            user: token.user.id,
            endpoints,
            elsewhere,
        })
    }

    /// Where a service is.
    ///
    /// # Errors
    /// [`DriverError::Refused`] names what the catalog has instead.
    pub(super) fn endpoint(&self, service: Service) -> Result<&str, DriverError> {
        self.endpoints.get(&service).map(String::as_str).ok_or_else(|| DriverError::Refused {
            place: format!("the service {}", service.name()),
            reason: self.elsewhere.get(&service).cloned().unwrap_or_default(),
        })
    }
}

/// Where a service is, or why nobody can tell.
fn place(cloud: &Cloud, service: Service, catalog: &[Listed]) -> Result<String, String> {
    let with_version = |url: &str| {
        versioned(url, service.version()).ok_or_else(|| format!("its address {url:?} is no http or https address"))
    };
    for of_type in service.types() {
        if let Some(url) = cloud.endpoints.get(*of_type) {
            return with_version(url);
        }
    }
    let listed =
        service.types().iter().flat_map(|of_type| catalog.iter().filter(move |listed| listed.of_type == *of_type));
    let mut others = Vec::new();
    for endpoint in listed.flat_map(|listed| &listed.endpoints) {
        let region = endpoint.region_id.as_ref().or(endpoint.region.as_ref());
        if endpoint.interface == cloud.interface && (cloud.region.is_none() || cloud.region.as_ref() == region) {
            return with_version(&endpoint.url);
        }
        others.push(format!("{} in {}", endpoint.interface, region.map_or("no region", String::as_str)));
    }
    let region = cloud.region.as_ref().map(|region| format!(" in the region {region}")).unwrap_or_default();
    let wanted = format!("the catalog of this cloud has no {} endpoint of it{region}", cloud.interface);
    match others.is_empty() {
        true => Err(wanted),
        false => Err(format!("{wanted}, only {}: see region_name and interface in clouds.yaml", others.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cloud(region: Option<&str>) -> Cloud {
        Cloud {
            auth_url: "http://k/v3".to_owned(),
            proof: Proof::Password(json!({})),
            scope: None,
            region: region.map(str::to_owned),
            interface: "public".to_owned(),
            ca: None,
            endpoints: BTreeMap::from([("network".to_owned(), "http://n".to_owned())]),
        }
    }

    fn answer(from: &str, to: &str) -> Value {
        let at =
            |interface: &str, region: &str, url: &str| json!({"interface": interface, "region_id": region, "url": url});
        json!({"token": {"issued_at": from, "expires_at": to, "project": {"id": "p"}, "user": {"id": "u"}, "catalog": [
            {"type": "image", "endpoints": [at("internal", "one", "http://i"), at("public", "two", "http://two/"),
                at("public", "one", "http://one")]},
            {"type": "block-storage", "endpoints": [at("public", "two", "http://v/v3/p")]},
            {"type": "network", "endpoints": [at("public", "one", "http://other")]}]}})
    }

    const FROM: &str = "2026-01-01T00:00:00.000000Z";

    #[test]
    fn endpoints_are_those_of_the_interface_and_the_region() {
        let read = |region| Token::read(&cloud(region), answer(FROM, "2026-01-01T01:00:00.000000Z")).unwrap();
        let (one, any) = (read(Some("one")), read(None));
        assert_eq!(one.endpoint(Service::Image).unwrap(), "http://one/v2");
        assert_eq!(any.endpoint(Service::Image).unwrap(), "http://two/v2");
        assert_eq!(any.endpoint(Service::Volume).unwrap(), "http://v/v3/p");
        // What the configuration says counts more.
        assert_eq!(one.endpoint(Service::Network).unwrap(), "http://n/v2.0");
        let error = one.endpoint(Service::Volume).unwrap_err().to_string();
        assert!(error.contains("in the region one") && error.contains("public in two"), "{error}");
        assert!(one.endpoint(Service::Compute).unwrap_err().is_permanent());
        assert_eq!((one.project.as_deref(), &*one.user), (Some("p"), "u"));
    }

    #[test]
    fn a_token_is_renewed_before_its_end_by_the_clock_of_the_server() {
        let renew_in = |to: &str| Token::read(&cloud(None), answer(FROM, to)).unwrap().renew_in.unwrap();
        assert_eq!(renew_in("2026-01-01T01:00:00Z"), Duration::from_secs(55 * 60));
        assert_eq!(renew_in("2026-01-01T00:00:20Z"), Duration::from_secs(15));
        assert_eq!(renew_in("2025-12-31T00:00:00Z"), Duration::ZERO);
        let fixed = Cloud { proof: Proof::Token("t".to_owned()), ..cloud(None) };
        assert_eq!(Token::read(&fixed, answer(FROM, "2026-01-01T01:00:00Z")).unwrap().renew_in, None);
        assert!(Token::read(&fixed, json!({"token": 1})).is_err());
    }
}

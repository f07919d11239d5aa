//! The form that a request brings.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::multipart::Field;
use axum::extract::{FromRequest, Multipart, Request};
use khufu_crdt::SiteName;

use super::Refused;

/// A body that takes longer in all is given up.
const BODY_TOTAL: Duration = Duration::from_secs(120);
/// The most parts of a form.
const MAX_PARTS: usize = 256;

/// What stands in a form, as far as Cheops knows it.
#[derive(Debug, Default)]
pub(super) struct Form {
    commands: Vec<String>,
    pub(super) sites: Vec<String>,
    pub(super) op_type: Option<String>,
    pub(super) config: Option<String>,
    /// By the name of the part, not of the file.
    pub(super) files: BTreeMap<String, Vec<u8>>,
}

impl Form {
    /// The command; exactly one has to be there.
    pub(super) fn command(&self) -> Result<&str, Refused> {
        match self.commands.as_slice() {
            [one] => Ok(one.trim()),
            [] => Err(Refused::bad("bad request: there is no part `command`")),
            _ => Err(Refused::bad("bad request: there are several parts `command`")),
        }
    }

    /// The sites, which are separated by `&` in one or several parts.
    pub(super) fn sites(&self) -> Result<Vec<SiteName>, Refused> {
        if self.sites.is_empty() {
            return Err(Refused::bad("bad request: there is no part `sites`"));
        }
        let names = self.sites.iter().flat_map(|part| part.split('&')).map(str::trim);
        let sites = names.map(SiteName::new).collect::<Result<_, _>>();
        sites.map_err(|error| Refused::bad(format!("bad request: sites: {error}")))
    }

    async fn add(&mut self, field: Field<'_>) -> Result<(), Refused> {
        let name = field.name().unwrap_or_default().to_owned();
        if field.file_name().is_some() {
            let bytes = field.bytes().await.map_err(|error| Refused::bad(format!("bad request: {error}")))?;
            // Of several with one name the first counts.
            self.files.entry(name).or_insert_with(|| bytes.to_vec());
            return Ok(());
        }
        let text = field.text().await.map_err(|error| Refused::bad(format!("bad request: {error}")))?;
        match name.as_str() {
            "command" => self.commands.push(text),
            "sites" => self.sites.push(text),
            "type" => self.op_type = Some(text.trim().to_owned()),
            "config" => self.config = Some(text),
            _ => {}
        }
        Ok(())
    }
}

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let read = async {
            let bad = |error: &dyn std::fmt::Display| Refused::bad(format!("bad request: {error}"));
            let mut parts = Multipart::from_request(request, state).await.map_err(|error| bad(&error))?;
            let mut form = Self::default();
            for _ in 0..=MAX_PARTS {
                let Some(field) = parts.next_field().await.map_err(|error| bad(&error))? else { return Ok(form) };
                form.add(field).await?;
            }
            Err(Refused::bad(format!("bad request: it has more than {MAX_PARTS} parts")))
        };
        let late = || Refused::bad(format!("bad request: it did not come within {} s", BODY_TOTAL.as_secs()));
        tokio::time::timeout(BODY_TOTAL, read).await.map_err(|_| late())?
    }
}

//! The story: create, cut, edit and operate on both sides, heal, compare.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use khufu_crdt::Payload;
use khufu_engine::{ReplicantView, Status, VerifyReport};
use reqwest::Method;
use serde_json::{Value, json};

use super::network::{Network, ask};
use super::site::Site;
use super::teller::ms;
use super::{DemoError, Teller, until};
use crate::client::Ask;
use crate::commands::conflicts::Conflict;

/// The manifest that is shipped in `examples/`.
const MANIFEST: &str = include_str!("../../../../examples/nginx-deployment.yaml");
/// The policy of the notes, shipped beside it.
const POLICY: &str = include_str!("../../../../examples/notes-policy.yaml");
/// The Deployment, as its manifest names it.
const WEB: &str = "nginx";
/// A text that is only operated on.
const NOTES: &str = "notes";
/// A field of the Deployment that both sides set.
const CONTACT: &str = "/desired/metadata/annotations/contact";
/// The image that one side moves to.
const NEW_IMAGE: &str = "nginxinc/nginx-unprivileged:1.29-alpine";
/// How long anything may take to reach all sites.
const ARRIVE: Duration = Duration::from_secs(30);

/// Who does what in the story.
#[derive(Debug, Clone, Copy)]
struct Cast<'a> {
    network: &'a Network,
    /// Where the story begins.
    here: &'a Site,
    /// A neighbour on the same side of the cut; `here` itself if there is none.
    near: &'a Site,
    /// The site that is cut off: the third, as the story has it; with two sites, the second.
    there: &'a Site,
}

impl<'a> Cast<'a> {
    fn of(network: &'a Network) -> Option<Self> {
        let (here, rest) = network.sites.split_first()?;
        let there = rest.get(1).or(rest.first())?;
        let near = rest.first().filter(|near| near.name != there.name).unwrap_or(here);
        Some(Self { network, here, near, there })
    }

    fn all(self) -> &'a [Site] {
        &self.network.sites
    }

    /// All sites on the side of the cut that the story begins on.
    fn this_side(self) -> Vec<&'a Site> {
        self.all().iter().filter(|site| site.name != self.there.name).collect()
    }
}

/// Tells the whole story.
///
/// # Errors
/// [`DemoError`] if it cannot go on. That a claim is not true is no error: it is counted by the teller.
pub(crate) async fn tell(network: &Network, teller: &mut Teller) -> Result<(), DemoError> {
    let desired: Value = crate::input::parse("the manifest", MANIFEST).map_err(broken)?;
    // Two sites are the fewest that can be asked for.
    let Some(cast) = Cast::of(network) else { return Ok(()) };
    create(cast, teller, &desired).await?;
    let apart = cut_apart(cast, teller).await?;
    edit_both_sides(cast, teller, &desired).await?;
    operate_both_sides(cast, teller).await?;
    heal(cast, teller, apart).await?;
    same_contents(cast, teller, &desired).await?;
    conflict(cast, teller).await?;
    verify(cast, teller).await
}

/// A manifest that was compiled in does not parse: cannot be, and must not panic.
fn broken(error: crate::input::InputError) -> DemoError {
    DemoError::Io { what: "read an example".into(), source: std::io::Error::other(error) }
}

fn scope(sites: &[Site]) -> String {
    sites.iter().map(|site| site.name).collect::<Vec<_>>().join(" & ")
}

async fn create(cast: Cast<'_>, teller: &mut Teller, desired: &Value) -> Result<(), DemoError> {
    let Cast { here, .. } = cast;
    let scope = scope(cast.all());
    teller.say(&format!("Apply examples/nginx-deployment.yaml at {}, scope `{scope}`.", here.name))?;
    let started = Instant::now();
    put(here, WEB, json!({"kind": "files", "scope": scope, "desired": desired})).await?;
    let acknowledged = ms(started.elapsed());
    let arrivals = arrive(cast.all(), WEB, |text| same_value(text, desired)).await?;
    let times: BTreeMap<&str, f64> =
        arrivals.iter().map(|(site, at)| (*site, ms(at.duration_since(started)))).collect();
    let list: Vec<String> = times.iter().map(|(site, ms)| format!("{site} after {ms} ms")).collect();
    teller.say(&format!("Acknowledged, on disk, after {acknowledged} ms; a file at {}.", list.join(", ")))?;
    teller.measure("acknowledged_ms", acknowledged);
    teller.measure("applied_ms", json!(times));
    teller.claim(
        "the manifest is at every site, as it was written",
        everywhere(cast.all(), WEB, |text| same_value(text, desired)),
    )?;

    let policy: Value = crate::input::parse("the policy", POLICY).map_err(broken)?;
    put(here, NOTES, json!({"kind": "files", "scope": scope, "policy": policy})).await?;
    operate(here, "set", json!({"write": "written first\n"})).await?;
    arrive(cast.all(), NOTES, |text| same_text(text, "written first\n")).await?;
    teller.say("Write a text `notes` by an operation: it is at every site.")
}

async fn cut_apart(cast: Cast<'_>, teller: &mut Teller) -> Result<Instant, DemoError> {
    teller.say(&format!("Cut {} off from all other sites.", cast.there.name))?;
    let started = Instant::now();
    cast.network.cut(cast.there).await?;
    teller.measure("cut_ms", ms(started.elapsed()));
    Ok(Instant::now())
}

async fn edit_both_sides(cast: Cast<'_>, teller: &mut Teller, desired: &Value) -> Result<(), DemoError> {
    let Cast { here, there, .. } = cast;
    teller.say(&format!(
        "Edit different fields on both sides, and one field on both: at {} five replicas, at {} a new image.",
        here.name, there.name
    ))?;
    let patch = json!({"spec": {"replicas": 5}, "metadata": {"annotations": {"contact": here.name}}});
    here.client.ask(Ask::new(Method::PATCH, format!("/v1/replicants/{WEB}/desired")).body(patch)).await?;
    let edited = with_image(desired, there.name);
    put(there, WEB, json!({"desired": edited})).await?;

    let fewer = with_replicas(desired, here.name);
    let others = cast.this_side();
    arrive(others.iter().copied(), WEB, |text| same_value(text, &fewer)).await?;
    arrive([there], WEB, |text| same_value(text, &edited)).await?;
    teller.claim("each side goes on working with its own edit", {
        everywhere(others.iter().copied(), WEB, |text| same_value(text, &fewer))
            .and_then(|()| everywhere([there], WEB, |text| same_value(text, &edited)))
    })
}

async fn operate_both_sides(cast: Cast<'_>, teller: &mut Teller) -> Result<(), DemoError> {
    let Cast { here, near, there, .. } = cast;
    let others = cast.this_side();
    teller.say(&format!(
        "Operate on `notes` on both sides: {} writes it anew, {} appends; {} writes it anew and appends too.",
        here.name, near.name, there.name
    ))?;
    let (written, appended) = (format!("written at {}\n", here.name), format!("appended at {}\n", near.name));
    operate(here, "set", json!({"write": written})).await?;
    arrive(others.iter().copied(), NOTES, |text| same_text(text, &written)).await?;
    operate(near, "add", json!({"append": appended})).await?;
    let one_side = format!("{written}{appended}");
    arrive(others.iter().copied(), NOTES, |text| same_text(text, &one_side)).await?;

    let (written, appended) = (format!("written at {}\n", there.name), format!("appended at {}\n", there.name));
    operate(there, "set", json!({"write": written})).await?;
    operate(there, "add", json!({"append": appended})).await?;
    let other_side = format!("{written}{appended}");
    arrive([there], NOTES, |text| same_text(text, &other_side)).await?;
    teller.claim("the two sides ran different operations", {
        everywhere(others.iter().copied(), NOTES, |text| same_text(text, &one_side))
            .and_then(|()| everywhere([there], NOTES, |text| same_text(text, &other_side)))
    })
}

async fn heal(cast: Cast<'_>, teller: &mut Teller, apart: Instant) -> Result<(), DemoError> {
    let Cast { network, there, .. } = cast;
    teller.measure("apart_ms", ms(apart.elapsed()));
    teller.say(&format!("Heal: {} may be reached again.", there.name))?;
    let healed = Instant::now();
    network.heal(there).await?;
    for id in [WEB, NOTES] {
        until(&format!("all sites have the same {id}"), ARRIVE, async || {
            let views = views(network, id).await?;
            let (first, rest) = views.split_first().ok_or("no sites")?;
            let same = rest.iter().all(|view| view.heads == first.heads && view.resolved == first.resolved);
            if !same {
                return Err(format!("the documents of {id} differ"));
            }
            // Two sites that are halfway may have equal files for a moment.
            if let Some(view) = views.iter().find(|view| view.status != Status::Applied) {
                return Err(format!("not all sites are done with {id}: {:?}", view.status));
            }
            equal_files(&network.sites, id)
        })
        .await?;
    }
    let took = ms(healed.elapsed());
    teller.measure("healed_ms", took);
    teller.say(&format!("All sites hold the same again, {took} ms after."))
}

async fn same_contents(cast: Cast<'_>, teller: &mut Teller, desired: &Value) -> Result<(), DemoError> {
    let Cast { here, .. } = cast;
    let (view, _): (ReplicantView, Value) = get(here, WEB).await?;
    let winner = view.desired.pointer("/metadata/annotations/contact").and_then(Value::as_str).unwrap_or_default();
    let merged = with_replicas(&with_image(desired, winner), winner);
    teller.claim(
        &format!("`{WEB}` has five replicas and the new image at every site: both edits won"),
        everywhere(cast.all(), WEB, |text| same_value(text, &merged)),
    )?;

    let (view, _): (ReplicantView, Value) = get(here, NOTES).await?;
    let expected = run(&view);
    teller.say("The text `notes`, everywhere:")?;
    teller.show(&expected)?;
    teller.claim(
        "`notes` is what running the agreed operations from the beginning gives, at every site",
        everywhere(cast.all(), NOTES, |text| same_text(text, &expected)),
    )?;
    let text_of =
        |id| view.operations.iter().find(|row| row.operation.id == id).map(|row| text(&row.operation.payload));
    let winner = view.resolved.first().cloned().and_then(text_of).unwrap_or_default();
    let appended = view.operations.iter().filter(|row| row.operation.op_type == "add");
    let lost: Vec<String> =
        appended.map(|row| text(&row.operation.payload)).filter(|text| !expected.contains(text.as_str())).collect();
    let one_write = view.operations.iter().filter(|row| row.operation.op_type == "set");
    let writes = one_write.filter(|row| view.resolved.contains(&row.operation.id)).count();
    teller.claim(
        &format!("one of the two writes won (`{}`), and nothing that was appended is lost", winner.trim_end()),
        if writes == 1 && lost.is_empty() { Ok(()) } else { Err(format!("{writes} writes, lost: {lost:?}")) },
    )
}

async fn conflict(cast: Cast<'_>, teller: &mut Teller) -> Result<(), DemoError> {
    let (here, there) = (cast.here.name, cast.there.name);
    let mut seen = Vec::new();
    let mut checked = Ok(());
    for site in cast.all() {
        let (conflicts, json): (Vec<Conflict>, Value) =
            site.client.ask_for(Ask::get(format!("/v1/replicants/{WEB}/conflicts"))).await?;
        if seen.is_empty() {
            teller.measure("conflicts", json);
        }
        let found = conflicts.iter().find(|conflict| conflict.path == CONTACT);
        let values = found.map(|conflict| conflict.values.iter().map(|candidate| candidate.value.clone()).collect());
        let values: Vec<Value> = values.unwrap_or_default();
        let both = values.len() == 2 && values.contains(&json!(here)) && values.contains(&json!(there));
        if !both || conflicts.len() != 1 {
            checked = Err(format!("{} knows {} conflicts; {CONTACT} has {values:?}", site.name, conflicts.len()));
        }
        seen.push(values);
    }
    if seen.iter().any(|values| Some(values) != seen.first()) {
        checked = Err("the sites do not agree which value counts".into());
    }
    let first = seen.first().and_then(|values| values.first()).cloned().unwrap_or_default();
    teller.say(&format!(
        "The field that both sides set: {CONTACT} is {first} everywhere, until somebody picks another."
    ))?;
    teller.claim("that one conflict is shown, with both values, at every site", checked)
}

async fn verify(cast: Cast<'_>, teller: &mut Teller) -> Result<(), DemoError> {
    let here = cast.here;
    let same = until("verify finds everything the same", ARRIVE, async || {
        let (report, _): (VerifyReport, Value) = ask(here, "/v1/verify").await?;
        let differences: Vec<String> = report.replicants.iter().flat_map(|entry| entry.differences.clone()).collect();
        let instead = format!("unknown {:?}, differences {differences:?}", report.unknown);
        if report.same && report.checked == 2 { Ok(report.checked) } else { Err(instead) }
    })
    .await;
    let checked = same.map(drop).map_err(|error| error.to_string());
    teller.claim("`khufu verify` finds documents and contents the same at every site, by digest", checked)
}

async fn put(site: &Site, id: &str, body: Value) -> Result<(), DemoError> {
    site.client.ask(Ask::new(Method::PUT, format!("/v1/replicants/{id}")).body(body)).await?;
    Ok(())
}

async fn operate(site: &Site, op_type: &str, payload: Value) -> Result<(), DemoError> {
    let ask = Ask::new(Method::POST, format!("/v1/replicants/{NOTES}/operations"));
    site.client.ask(ask.body(json!({"type": op_type, "payload": payload}))).await?;
    Ok(())
}

async fn get(site: &Site, id: &str) -> Result<(ReplicantView, Value), DemoError> {
    Ok(site.client.ask_for(Ask::get(format!("/v1/replicants/{id}"))).await?)
}

async fn views(network: &Network, id: &str) -> Result<Vec<ReplicantView>, String> {
    let mut views = Vec::new();
    for site in &network.sites {
        views.push(ask(site, &format!("/v1/replicants/{id}")).await?.0);
    }
    Ok(views)
}

/// Waits until the file of every site passes, and says when each did.
async fn arrive<'a>(
    sites: impl IntoIterator<Item = &'a Site>,
    id: &str,
    check: impl Fn(&str) -> Result<(), String>,
) -> Result<Vec<(&'static str, Instant)>, DemoError> {
    let (check, what) = (&check, format!("{id} arrives"));
    let each = sites
        .into_iter()
        .map(|site| until(&what, ARRIVE, async || look(site, id, check).map(|()| (site.name, Instant::now()))));
    futures::future::try_join_all(each).await
}

/// Whether the file of every site passes now.
fn everywhere<'a>(
    sites: impl IntoIterator<Item = &'a Site>,
    id: &str,
    check: impl Fn(&str) -> Result<(), String>,
) -> Result<(), String> {
    sites.into_iter().try_for_each(|site| look(site, id, &check))
}

fn look(site: &Site, id: &str, check: impl Fn(&str) -> Result<(), String>) -> Result<(), String> {
    let contents = site.contents(id).ok_or_else(|| format!("{} has no file {id}", site.name))?;
    check(&contents).map_err(|instead| format!("{} has {instead}", site.name))
}

fn equal_files(sites: &[Site], id: &str) -> Result<(), String> {
    let contents: Vec<Option<String>> = sites.iter().map(|site| site.contents(id)).collect();
    let same = contents.first().is_some_and(|first| first.is_some() && contents.iter().all(|other| other == first));
    if same { Ok(()) } else { Err(format!("the files of {id} differ: {contents:?}")) }
}

fn same_text(found: &str, expected: &str) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{found:?}, not {expected:?}")) }
}

/// Files hold YAML; which of the ways to write it does not matter.
fn same_value(found: &str, expected: &Value) -> Result<(), String> {
    let value: Value = serde_saphyr::from_str(found).map_err(|error| format!("no YAML: {error}"))?;
    if value == *expected { Ok(()) } else { Err(format!("other contents: {found}")) }
}

fn with_contact(desired: &Value, contact: &str) -> Value {
    let mut edited = desired.clone();
    if let Some(metadata) = edited.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        metadata.insert("annotations".to_owned(), json!({"contact": contact}));
    }
    edited
}

fn with_image(desired: &Value, contact: &str) -> Value {
    with(with_contact(desired, contact), "/spec/template/spec/containers/0/image", json!(NEW_IMAGE))
}

fn with_replicas(desired: &Value, contact: &str) -> Value {
    with(with_contact(desired, contact), "/spec/replicas", json!(5))
}

/// A value with another one at a place that it has.
fn with(mut value: Value, pointer: &str, new: Value) -> Value {
    if let Some(place) = value.pointer_mut(pointer) {
        *place = new;
    }
    value
}

fn text(payload: &Payload) -> String {
    let Payload::Value(value) = payload else { return String::new() };
    let text = value.get("write").or_else(|| value.get("append")).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

/// The contents that running the agreed list on an empty text gives, worked out here and by nobody else.
fn run(view: &ReplicantView) -> String {
    let mut contents = String::new();
    for id in &view.resolved {
        let Some(row) = view.operations.iter().find(|row| row.operation.id == *id) else { continue };
        if let Payload::Value(value) = &row.operation.payload
            && value.get("write").is_some()
        {
            contents.clear();
        }
        contents.push_str(&text(&row.operation.payload));
    }
    contents
}

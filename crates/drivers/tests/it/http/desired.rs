//! Desired states.

use super::*;

#[tokio::test]
async fn what_is_missing_is_created_and_what_differs_is_changed() {
    let place = Place::new(NOTES);
    let driver = place.driver().await;
    let done = desire(&driver, json!({"title": "a", "labels": {"x": "y"}})).await.unwrap();
    assert_eq!((done.local_id.as_deref(), done.output.as_str()), (Some("100"), "created as 100"));
    assert_eq!(place.only()["labels"], json!({"x": "y", "khufu": "web"}));
    // As it should be: nothing is written.
    let again = desire(&driver, json!({"title": "a", "labels": {"x": "y"}})).await.unwrap();
    assert_eq!((again.output.as_str(), &again.digest), ("as it should be", &done.digest));
    assert_eq!(place.rest.count("PATCH", "/notes/100"), 0);
    let changed = desire(&driver, json!({"title": "b", "n": 7})).await.unwrap();
    assert_ne!(changed.digest, done.digest);
    let patches: Vec<_> = place.rest.asked().into_iter().filter(|asked| asked.method == "PATCH").collect();
    let sent: Value = serde_json::from_slice(&patches[0].body).unwrap();
    // What was wanted and is no more goes; what the service added stays.
    assert_eq!((sent, patches.len()), (json!({"title": "b", "n": 7, "labels": {"x": null}}), 1));
    assert_eq!(patches[0].header("content-type"), Some("application/json"));
    assert_eq!(place.only()["labels"], json!({"khufu": "web"}));
    assert_eq!(driver.delete(&web()).await.unwrap().output, "removed");
    assert!(place.rest.notes().is_empty());
    assert_eq!(driver.delete(&web()).await.unwrap().output, "there was none");
}

#[tokio::test]
async fn a_put_has_all_of_it_and_keeps_the_mark() {
    let place = Place::new(NOTES.replace("PATCH", "PUT"));
    let driver = place.driver().await;
    desire(&driver, json!({"title": "a", "old": 1})).await.unwrap();
    desire(&driver, json!({"title": "b"})).await.unwrap();
    let only = place.only();
    assert_eq!((&only["title"], &only["old"], &only["labels"]["khufu"]), (&json!("b"), &Value::Null, &json!("web")));
}

#[tokio::test]
async fn what_a_service_does_not_show_is_sent_when_it_changes() {
    let place = Place::new(NOTES);
    let driver = place.driver().await;
    for (secret, patches) in [("one", 0), ("one", 0), ("two", 1), ("two", 1)] {
        desire(&driver, json!({"title": "a", "secret": secret})).await.unwrap();
        assert_eq!(place.rest.count("PATCH", "/notes/100"), patches, "{secret}");
    }
    assert_eq!(observe(&driver).await.drift, None);
}

#[tokio::test]
async fn an_update_whose_answer_was_lost_is_sent_whole_again() {
    let place = Place::new(NOTES);
    let driver = place.driver().await;
    desire(&driver, json!({"title": "a", "secret": "one"})).await.unwrap();
    place.rest.next("PATCH", "/notes", Fault::FailAfter(500));
    desire(&driver, json!({"title": "a", "secret": "two", "more": 1})).await.unwrap_err();
    // What was wanted in between, and perhaps written, is wanted no more.
    desire(&driver, json!({"title": "a", "secret": "two"})).await.unwrap();
    let sent: Value =
        serde_json::from_slice(&place.rest.asked().iter().rfind(|it| it.method == "PATCH").unwrap().body).unwrap();
    assert_eq!((&sent["secret"], &sent["more"]), (&json!("two"), &Value::Null), "{sent}");
    assert!(place.only().get("more").is_none());
}

#[tokio::test]
async fn names_of_the_clients_choice_need_not_be_found() {
    let texts = "[resources.text]\nread = { path = '/texts/{id}' }\ncreate = { method = 'PUT', path = '/texts/{id}' }\n\
                 update = { path = '/texts/{id}' }\ndelete = { path = '/texts/{id}' }\nobject = '{desired/text}'\n";
    let place = Place::new(texts);
    let driver = place.driver().await;
    place.rest.next("PUT", "/texts", Fault::HangUpAfter);
    let done = desire(&driver, json!({"text": "hello"})).await.unwrap();
    assert_eq!((done.local_id.as_deref(), place.rest.text("web").as_deref()), (Some("web"), Some("\"hello\"")));
    desire(&driver, json!({"text": "bye"})).await.unwrap();
    assert_eq!(place.rest.text("web").as_deref(), Some("\"bye\""));
    driver.delete(&web()).await.unwrap();
    assert_eq!(place.rest.text("web"), None);
}

#[tokio::test]
async fn what_is_desired_takes_the_place_of_what_operations_have_done() {
    let place = Place::new(format!("{NOTES}{LINES}"));
    let driver = place.driver().await;
    desire(&driver, json!({"title": "a"})).await.unwrap();
    driver.apply(&web(), add("one", "x")).await.unwrap();
    assert_eq!(place.lines(), ["x"]);
    let done = desire(&driver, json!({"title": "a"})).await.unwrap();
    assert_eq!((place.lines(), done.local_id.as_deref()), (vec![], Some("101")));
}

#[tokio::test]
async fn a_template_says_what_the_service_is_to_have() {
    let wrapped = NOTES.replace(
        "path = \"/notes\" }",
        "path = \"/notes\", headers = { X-Site = \"{site}\" } }\nobject = { title = \"{desired/name}\", n = \"{desired/n}\" }",
    );
    let place = Place::new(wrapped);
    let driver = place.driver().await;
    desire(&driver, json!({"name": "a"})).await.unwrap();
    assert_eq!(place.only()["title"], "a");
    assert!(place.only().get("n").is_none());
    let created = place.rest.asked().into_iter().find(|asked| asked.method == "POST").unwrap();
    assert_eq!(created.header("x-site"), Some("paris"));
    desire(&driver, json!({"name": "a", "n": [1]})).await.unwrap();
    assert_eq!(place.only()["n"], json!([1]));
}

#[tokio::test]
async fn the_policy_says_which_resource_it_is_and_whether_it_stays() {
    let place = Place::new(format!("{NOTES}{}", BLIND.replace("resources.note", "resources.other")));
    let driver = place.driver().await;
    let options = |options: Value| Replica { options: options.as_object().unwrap().clone(), ..web() };
    let refused = async |replica: Replica| {
        driver.apply(&replica, Work::Desired(json!({"title": "a"}))).await.unwrap_err().to_string()
    };
    assert!(refused(web()).await.contains("note, other"));
    assert!(refused(options(json!({"resource": "none"}))).await.contains("note, other"));
    assert!(refused(options(json!({"resouce": "note"}))).await.contains("resouce"));
    let kept = options(json!({"resource": "note", "retain": true}));
    driver.apply(&kept, Work::Desired(json!({"title": "a"}))).await.unwrap();
    // As another kind of resource it is another one.
    driver.apply(&options(json!({"resource": "other"})), Work::Desired(json!({"title": "b"}))).await.unwrap();
    assert_eq!(place.only()["title"], "b");
    driver.apply(&kept, Work::Desired(json!({"title": "a"}))).await.unwrap();
    driver.delete(&kept).await.unwrap();
    assert_eq!(place.only()["title"], "a");
}

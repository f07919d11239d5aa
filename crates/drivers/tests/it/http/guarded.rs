//! What keeps requests, credentials and answers where they belong.

use super::*;

#[tokio::test]
async fn nothing_is_followed_off_the_service() {
    let place = Place::new(format!("{NOTES}{LINES}")).with("[headers]\nX-Token = 'secret'\n");
    let elsewhere = Rest::builder(1).start();
    let driver = place.driver().await;
    desire(&driver, json!({"title": "a"})).await.unwrap();
    for to in [format!("{}/notes/100", elsewhere.url()), "/elsewhere".into(), "//evil.example/api/notes/100".into()] {
        place.rest.next("GET", "/notes/100", Fault::MovedTo(to.clone()));
        let error = driver.observe(&web()).await.unwrap_err();
        assert!(error.to_string().contains("leads away"), "{to}: {error}");
    }
    // Below the service a look may be led on; what changes something is not.
    place.rest.next("GET", "/notes/100", Fault::MovedTo("100".into()));
    assert!(observe(&driver).await.exists);
    place.rest.next("POST", "/lines", Fault::MovedTo("/api/notes/100/lines".into()));
    let error = driver.apply(&web(), add("one", "x")).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("leads elsewhere"), "{error}");
    for _ in 0..20 {
        place.rest.next("GET", "/notes/100", Fault::MovedTo("100".into()));
    }
    assert!(driver.observe(&web()).await.is_err());
    assert!(elsewhere.asked().is_empty() && place.lines().is_empty());
    assert!(place.rest.asked().iter().all(|asked| asked.header("x-token") == Some("secret")));
}

#[tokio::test]
async fn a_list_that_leads_elsewhere_is_not_believed() {
    let elsewhere = Rest::builder(1).start();
    let next = NOTES.replace("/next\"", "/items/0/title\"").replace("?label={id}", "");
    let place = Place::new(next);
    let driver = place.driver().await;
    let title = format!("{}/notes", elsewhere.url());
    driver.apply(&replica("other"), Work::Desired(json!({"title": "?page=1"}))).await.unwrap();
    place.rest.edit(100, |note| note["title"] = json!(title));
    let error = desire(&driver, json!({"title": "a"})).await.unwrap_err();
    assert!(error.to_string().contains("next page"), "{error}");
    place.rest.edit(100, |note| note["title"] = json!("/api/notes"));
    let error = desire(&driver, json!({"title": "a"})).await.unwrap_err();
    assert!(error.to_string().contains("comes back"), "{error}");
    assert_eq!((elsewhere.asked().len(), place.rest.created()), (0, 1));
}

#[tokio::test]
async fn answers_that_are_too_large_are_refused() {
    let place = Place::new(NOTES).with("answer_limit_bytes = 2000\n");
    let driver = place.driver().await;
    let error = desire(&driver, json!({"title": "x".repeat(4000)})).await.unwrap_err();
    assert!(error.to_string().contains("answer_limit_bytes"), "{error}");
    assert_eq!(place.rest.created(), 1);
}

#[tokio::test]
async fn secrets_are_read_anew_and_told_to_nobody_else() {
    let place = Place::new(NOTES).with(
        "[headers]\nX-Token = { file = 'token', before = 'Bearer ' }\n\
        [basic]\nuser = 'eve'\npassword = { file = 'token' }\n",
    );
    let token = place.dir.path().join("token");
    let error = HttpDriver::new(&place.config().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("token"), "{error}");
    for (secret, basic) in [("one\n", "Basic ZXZlOm9uZQ=="), ("two", "Basic ZXZlOnR3bw==")] {
        std::fs::write(&token, secret).unwrap();
        let driver = place.driver().await;
        desire(&driver, json!({"title": secret})).await.unwrap();
        let asked = place.rest.asked().pop().unwrap();
        assert_eq!(asked.header("x-token").unwrap(), format!("Bearer {}", secret.trim()));
        assert_eq!(asked.header("authorization"), Some(basic));
    }
    let driver = place.driver().await;
    std::fs::write(&token, "three").unwrap();
    observe(&driver).await;
    assert_eq!(place.rest.asked().pop().unwrap().header("x-token"), Some("Bearer three"));
    // Nobody who has mended it needs to start the node again.
    std::fs::remove_file(&token).unwrap();
    assert!(!driver.observe(&web()).await.unwrap_err().is_permanent());
    place.rest.next("GET", "/notes", Fault::FailBefore(401));
    std::fs::write(&token, "four").unwrap();
    let error = driver.observe(&web()).await.unwrap_err();
    assert!(!error.is_permanent() && error.to_string().contains("credentials"), "{error}");
    assert!(!error.to_string().contains("four"), "{error}");
}

#[tokio::test]
async fn an_operation_does_not_say_who_the_site_is() {
    let place = Place::new(format!("{NOTES}{LINES}")).with("[headers]\nX-Token = 'site'\n");
    let driver = place.driver().await;
    desire(&driver, json!({"title": "a"})).await.unwrap();
    let payload = json!({
        "method": "POST", "path": "/notes/{local_id}/lines", "headers": {"x-token": "other"}, "body": {"text": "x"},
    });
    driver.apply(&web(), Work::Operation(operation("one", payload))).await.unwrap();
    let asked = place.rest.asked().into_iter().rfind(|asked| asked.method == "POST").unwrap();
    let tokens: Vec<_> = asked.headers.iter().filter(|header| header.0 == "x-token").collect();
    assert_eq!((tokens.len(), tokens[0].1.as_str()), (1, "site"));
}

#[tokio::test]
async fn only_the_authority_that_is_named_is_believed() {
    let place = Place::of(Rest::builder(1).tls().start(), NOTES).with("ca = 'ca.pem'\n");
    let file = place.dir.path().join("ca.pem");
    std::fs::write(&file, Rest::builder(1).tls().start().authority()).unwrap();
    let error = desire(&place.driver().await, json!({"title": "a"})).await.unwrap_err();
    assert!(matches!(&error, DriverError::Unavailable { reason, .. } if reason.contains("ertificate")), "{error:?}");
    std::fs::write(&file, place.rest.authority()).unwrap();
    desire(&place.driver().await, json!({"title": "a"})).await.unwrap();
    assert_eq!(place.rest.created(), 1);
    std::fs::write(&file, "").unwrap();
    assert!(HttpDriver::new(&place.config().unwrap()).await.unwrap_err().to_string().contains("no certificate"));
}

#[tokio::test]
async fn one_driver_works_in_a_directory() {
    let place = Place::new(NOTES);
    let _first = place.driver().await;
    let error = HttpDriver::new(&place.config().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("another driver"), "{error}");
}

#[tokio::test]
async fn a_configuration_that_makes_no_sense_is_refused_by_its_key() {
    let note = |with: &str| format!("[resources.note]\nread = {{ path = '/n/{{local_id}}' }}\n{with}\n");
    let wrong = [
        (String::new(), "resources"),
        ("[resources.note]\n".into(), "resources.note.read"),
        (note("delete = { path = 'n' }"), "resources.note.delete.path"),
        (note("delete = { path = '/{nothing}' }"), "resources.note.delete.path"),
        (note("delete = { path = '/n', method = 'delete' }"), "resources.note.delete.method"),
        (note("delete = { path = '/n', success = [99] }"), "resources.note.delete.success"),
        (note("create = { path = '/n', body = ['{x}'] }"), "resources.note.create.body"),
        (note("create = { path = '/n', headers = { 'a b' = '' } }"), "resources.note.create.headers"),
        (note("local_id = 'id'"), "resources.note.local_id"),
        (note("mark = ''"), "resources.note.mark"),
        (note("find = { path = '/n' }"), "resources.note.find.field"),
        (note("local_id = 'Location'\nmark = '/m'\nfind = { path = '/n' }"), "resources.note.find.local_id"),
        (note("settle_ms = 60000"), "resources.note.settle_ms"),
        (note("health = { field = 'x' }"), "resources.note.health.field"),
        (note("operations = [{ method = 'POST', path = '/{desired/x}' }]"), "resources.note.operations[0].path"),
        (
            note("operations = [{ method = 'POST', path = '/{local_id}', creates = true }]"),
            "resources.note.operations[0].creates",
        ),
        (
            note("operations = [{ method = 'POST', path = '/n', undo = { method = 'POST', path = '/u' } }]"),
            "resources.note.operations[0].undo",
        ),
    ];
    for (resources, key) in wrong {
        let place = Place::new(if resources.is_empty() { "[resources]\n".into() } else { resources });
        let error = HttpDriver::new(&place.config().unwrap()).await.unwrap_err();
        let ConfigError::Value { key: named, .. } = &error else { panic!("{key}: {error:?}") };
        assert_eq!(named, key, "{error}");
    }
    for (top, key) in [
        ("rate = 0\n", "rate"),
        ("answer_limit_bytes = 0\n", "answer_limit_bytes"),
        ("not_done = [200]\n", "not_done"),
        ("retry = [500]\n", "retry"),
        ("probe = '/{local_id}'\n", "probe"),
        ("[headers]\nA = { }\n", "headers.A"),
        ("[headers]\nA = { env = 'KHUFU_TEST_NO_SUCH_VARIABLE' }\n", "headers"),
        ("[headers]\nAuthorization = 'x'\n[basic]\nuser = 'a'\npassword = { file = 'b' }\n", "basic"),
    ] {
        let error = HttpDriver::new(&Place::new(NOTES).with(top).config().unwrap()).await.unwrap_err();
        let ConfigError::Value { key: named, .. } = &error else { panic!("{key}: {error:?}") };
        assert_eq!(named, key, "{error}");
    }
    for unknown in [note("resd = 1"), note("operations = [{ methd = 'x' }]"), note("find = { pth = '' }")] {
        assert!(matches!(Place::new(unknown).config().unwrap_err(), ConfigError::Parse { .. }));
    }
}

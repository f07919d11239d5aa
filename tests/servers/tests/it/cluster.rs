//! One cluster, and several at once.

use std::net::{Ipv4Addr, TcpListener};

use khufu_test_servers::kubernetes::{ADMIN, Builder, Cluster};

use super::{bad, good, put_web, web};

#[test]
fn three_at_once_are_three_worlds_with_users_of_their_own() {
    let builders = ["paris", "rennes", "nantes"].map(|name| Cluster::builder(name).user("eve", &["developers"]));
    let Some([paris, rennes, nantes]) = Builder::start_all(builders) else { return };
    put_web(&paris, "1");
    put_web(&rennes, "2");
    assert_eq!((web(&paris), web(&rennes)), ("1".to_owned(), "2".to_owned()));
    assert!(bad(&nantes.kubectl(&["get", "configmap", "web"])).contains("NotFound"));

    // Neither the certificate nor the token of one is good at another.
    let ask = |authority: &std::path::Path, token: &str| {
        let server = format!("--server={}", paris.url());
        let authority = format!("--certificate-authority={}", authority.display());
        let mut command = nantes.kubectl_command(ADMIN);
        command.args([&server, &authority, &format!("--token={token}"), "get", "configmap", "web", "--output=name"]);
        command.output().unwrap()
    };
    let kept = tempfile::tempdir().unwrap();
    let [own, other] = [("own", paris.ca_pem()), ("other", rennes.ca_pem())].map(|(name, pem)| {
        std::fs::write(kept.path().join(name), pem).unwrap();
        kept.path().join(name)
    });
    assert_eq!(good(&ask(&own, paris.admin_token())), "configmap/web\n");
    assert!(bad(&ask(&other, paris.admin_token())).contains("certificate"));
    assert!(bad(&ask(&own, rennes.admin_token())).contains("Unauthorized"));

    // A user may do nothing until a group is given a role.
    let eve = || paris.kubectl_as("eve", &["get", "configmap", "web", "--output=name"], None);
    let refused = bad(&eve());
    assert!(refused.contains("Forbidden") && refused.contains(r#"User "eve" cannot get"#), "{refused}");
    good(&paris.kubectl(&["create", "role", "readers", "--verb=get", "--resource=configmaps"]));
    good(&paris.kubectl(&["create", "rolebinding", "readers", "--role=readers", "--group=developers"]));
    assert_eq!(
        good(&super::until("the role is known", || Some(eve()).filter(|got| got.status.success()))),
        "configmap/web\n"
    );
}

#[test]
fn what_is_stored_outlives_stops_crashes_and_moves() {
    let Some(mut paris) = Cluster::start("paris") else { return };
    let config = paris.kubeconfig(ADMIN);
    let url = paris.url();
    put_web(&paris, "1");
    let labels = [("verb", "POST"), ("resource", "configmaps"), ("code", "201")];
    let counted = paris.metric("apiserver_request_total", &labels);
    assert!(counted >= 1.0, "{counted} ConfigMaps were made");
    good(&paris.kubectl_as(ADMIN, &["apply", "--filename=-"], Some(OTHER)));
    assert_eq!(paris.metric("apiserver_request_total", &labels), counted + 1.0);

    assert!(paris.runs());
    paris.stop();
    assert!(!paris.runs());
    let refused = bad(&paris.kubectl(&["get", "configmap", "web"]));
    assert!(refused.contains("refused"), "{refused}");
    paris.start_again();
    assert_eq!((web(&paris), paris.url()), ("1".to_owned(), url.clone()));
    paris.kill();
    assert!(!paris.runs());
    paris.start_again();
    assert_eq!((web(&paris), paris.url()), ("1".to_owned(), url.clone()));

    paris.pause();
    let silent = bad(&paris.kubectl(&["--request-timeout=1s", "get", "configmap", "web"]));
    assert!(!silent.contains("refused") && paris.runs(), "{silent}");
    paris.resume();
    assert_eq!(web(&paris), "1");

    paris.move_to_another_port();
    assert_ne!(paris.url(), url);
    assert_eq!((web(&paris), paris.kubeconfig(ADMIN)), ("1".to_owned(), config));
}

#[test]
fn a_port_that_somebody_else_has_is_waited_for() {
    let Some(mut paris) = Cluster::start("paris") else { return };
    put_web(&paris, "1");
    let url = paris.url();
    let port: u16 = url.rsplit(':').next().unwrap().parse().unwrap();
    let log = paris.kubeconfig(ADMIN).with_file_name("kube-apiserver.log");
    paris.stop();
    let somebody = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| paris.start_again());
        super::until("it has tried", || {
            std::fs::read_to_string(&log).unwrap().contains("address already in use").then_some(())
        });
        drop(somebody);
    });
    assert_eq!((web(&paris), paris.url()), ("1".to_owned(), url));
}

const OTHER: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
data: {b: '2'}
";

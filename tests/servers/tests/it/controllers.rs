//! What the controller manager does.

use khufu_test_servers::kubernetes::Cluster;

use super::{good, until};

fn names(cluster: &Cluster, kind: &str) -> usize {
    good(&cluster.kubectl(&["get", kind, "--selector=app=web", "--output=name"])).lines().count()
}

#[test]
fn a_deployment_gets_pods_and_takes_them_along() {
    let Some(mut paris) = Cluster::start("paris") else { return };
    good(&paris.kubectl(&["create", "deployment", "web", "--image=web"]));
    good(&paris.kubectl(&["scale", "deployment", "web", "--replicas=2"]));
    assert_eq!((names(&paris, "replicasets"), names(&paris, "pods")), (0, 0));
    if !paris.start_controller_manager() {
        return;
    }
    until("there are two pods", || (names(&paris, "pods") == 2).then_some(()));
    assert_eq!(names(&paris, "replicasets"), 1);
    let manager =
        |cluster: &Cluster| cluster.processes().into_iter().find(|(name, _)| *name == "kube-controller-manager");
    let before = manager(&paris).expect("it runs");
    assert!(paris.start_controller_manager());
    assert_eq!(manager(&paris), Some(before), "one that runs is left alone");

    // It follows the API server.
    paris.move_to_another_port();
    good(&paris.kubectl(&["scale", "deployment", "web", "--replicas=1"]));
    until("there is one pod", || (names(&paris, "pods") == 1).then_some(()));
    good(&paris.kubectl(&["delete", "deployment", "web"]));
    until("nothing is left", || (names(&paris, "replicasets") + names(&paris, "pods") == 0).then_some(()));
}

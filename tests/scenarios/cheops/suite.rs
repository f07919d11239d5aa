//! What Cheops tries itself with: each of its scenarios is a row here, with files, a Redis and a Kubernetes API server at each of
//! three sites. There the lists of operations had to be the same in the end; here the contents are.

use khufu_test_servers::Redis;
use khufu_test_servers::kubernetes::{ADMIN, Builder, Cluster, Programs};

use super::super::shell::{configured, finished};
use super::{ALL, lines, own_reply, post, start, three};
use crate::support::{Lab, Site, until};

/// A request: at which of the sites, of which type, the command, and what its site says of it.
type Asked = (usize, &'static str, &'static str, &'static str);

struct Row {
    name: &'static str,
    matrix: &'static [[&'static str; 3]],
    /// Asked for at the first site, before all else, and everybody has it.
    first: &'static [(&'static str, &'static str)],
    /// Whether the sites are apart from then on.
    apart: bool,
    /// One after the other: the clocks tell the sites which was later.
    then: &'static [Asked],
    /// What all show in the end.
    shown: &'static str,
}

/// A platform at each of the sites.
struct Platform<'a> {
    lab: &'a Lab,
    sites: &'a [Site; 3],
    /// Shows what rows look at.
    show: &'static str,
    /// Shows all that there is.
    show_all: &'static str,
    /// The file that goes with a command that names it, for a resource and a value in the command.
    file: fn(&str, &str) -> String,
}

/// The file that commands may be given. Its value follows a `#` at the end of the command, where it is a comment.
const FILE: &str = "{recipe.yml}";

impl Platform<'_> {
    async fn play(&self, row: &Row) {
        let sites = self.sites.each_ref();
        let matrix = row.matrix.iter().map(|[before, after, result]| {
            serde_json::json!({"Before": before, "After": after, "Result": format!("take-{result}")})
        });
        let matrix = serde_json::json!({"ResolutionMatrix": matrix.collect::<Vec<_>>()}).to_string();
        for (of, command) in row.first {
            let said = self.ask(sites[0], row, of, command, &matrix, false).await;
            assert_eq!(said, ["OK", "OK", "OK"], "{}: {command}", row.name);
        }
        if row.apart {
            self.lab.cut(&sites, &[("paris", "rennes"), ("rennes", "nantes"), ("nantes", "paris")]).await;
        }
        for (at, of, command, expected) in row.then {
            let said = self.ask(sites[*at], row, of, command, &matrix, row.apart).await;
            assert!(said.iter().all(|status| status == expected), "{}: {command}: {said:?}", row.name);
        }
        if row.apart {
            self.lab.cut(&sites, &[]).await;
        }
        finished(row.name, row.first.len() + row.then.len(), &sites).await;
        // What a failed operation had taken the place of may still be on its way out.
        until(&format!("all show the same of {}", row.name), || async {
            let mut found = Vec::new();
            for site in sites {
                found.push((self.shown(site, row, self.show).await, self.shown(site, row, self.show_all).await));
            }
            let all = found.iter().all(|shown| shown.0 == row.shown && shown.1 == found[0].1);
            if all { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }

    /// What sites say of a command: all of them, or only the one that is asked.
    async fn ask(&self, site: &Site, row: &Row, of: &str, command: &str, matrix: &str, own: bool) -> Vec<String> {
        let value = command.rsplit_once('#').map_or("", |(_, value)| value);
        let (path, file) = (format!("/exec/{}", row.name), (self.file)(row.name, value));
        let mut parts =
            vec![("command", None, command), ("sites", None, ALL), ("type", None, of), ("config", None, matrix)];
        if command.contains(FILE) {
            parts.push(("recipe.yml", Some("recipe.yml"), &file));
        }
        let replies =
            if own { vec![own_reply(site, &path, &parts).await] } else { lines(&post(site, &path, &parts).await) };
        let said = |reply: &serde_json::Value| match reply["Status"].as_str() {
            Some("OK" | "KO") => reply["Status"].as_str().expect("text").to_owned(),
            _ => reply.to_string(),
        };
        replies.iter().map(said).collect()
    }

    async fn shown(&self, site: &Site, row: &Row, command: &str) -> String {
        let answer = post(site, &format!("/show_local/{}", row.name), &[("command", None, command)]).await;
        assert_eq!(answer.body["Status"], "OK", "{}: {answer:?}", row.name);
        answer.body["Output"].as_str().expect("text").to_owned()
    }
}

const FILES: &[[&str; 3]] =
    &[["set", "set", "one"], ["set", "add", "both-keep-order"], ["add", "set", "both-reverse-order"]];

/// `test_parallel`: with files.
const WITH_FILES: &[Row] = &[
    Row {
        name: "simple",
        matrix: FILES,
        first: &[("set", "echo init > __ID__")],
        apart: false,
        then: &[
            (0, "add", "echo left >> __ID__", "OK"),
            (1, "set", "echo middle > __ID__", "OK"),
            (2, "add", "echo right >> __ID__", "OK"),
        ],
        shown: "middle\nright\n",
    },
    Row {
        name: "simple-with-disconnect",
        matrix: FILES,
        first: &[("set", "echo init > __ID__")],
        apart: true,
        then: &[
            (0, "add", "echo left >> __ID__", "OK"),
            (1, "set", "echo middle > __ID__", "OK"),
            (2, "add", "echo right >> __ID__", "OK"),
        ],
        shown: "middle\nleft\nright\n",
    },
    Row {
        name: "simple-with-failure",
        matrix: FILES,
        first: &[("set", "echo init > __ID__")],
        apart: true,
        then: &[
            (0, "add", "echo left >> __ID__", "OK"),
            (1, "set", "echo middle > __ID__", "OK"),
            (2, "add", "echo right >> __ID__/below", "KO"),
        ],
        shown: "middle\nleft\n",
    },
];

#[tokio::test]
async fn files_are_the_same_in_every_case() {
    let lab = Lab::new();
    let sites = three(&lab).await;
    let (show, file) = ("cat __ID__", |_: &str, _: &str| String::new());
    let platform = Platform { lab: &lab, sites: &sites, show, show_all: show, file };
    for row in WITH_FILES {
        platform.play(row).await;
    }
}

const COUNTS: &[[&str; 3]] =
    &[["set", "set", "one"], ["set", "inc", "both-keep-order"], ["inc", "set", "both-reverse-order"]];

/// `test_redis`, and `test_simple_app_parallel.sh`, whose counter in a service of its own is one in Redis here.
const WITH_REDIS: &[Row] = &[
    Row {
        name: "simple",
        matrix: COUNTS,
        first: &[("set", "redis-cli -e -s redis.sock set __ID__ 23")],
        apart: false,
        then: &[
            (0, "set", "redis-cli -e -s redis.sock set __ID__ 29", "OK"),
            (1, "inc", "redis-cli -e -s redis.sock incrby __ID__ 13", "OK"),
            (2, "inc", "redis-cli -e -s redis.sock incrby __ID__ -12", "OK"),
        ],
        shown: "30\n",
    },
    Row {
        name: "simple-with-disconnect",
        matrix: COUNTS,
        first: &[("set", "redis-cli -e -s redis.sock set __ID__ 23")],
        apart: true,
        then: &[
            (0, "set", "redis-cli -e -s redis.sock set __ID__ 29", "OK"),
            (1, "inc", "redis-cli -e -s redis.sock incrby __ID__ 13", "OK"),
            (2, "inc", "redis-cli -e -s redis.sock incrby __ID__ -12", "OK"),
        ],
        shown: "30\n",
    },
    Row {
        name: "simple-with-failure",
        matrix: COUNTS,
        first: &[("set", "redis-cli -e -s redis.sock set __ID__ 23")],
        apart: true,
        then: &[
            (0, "set", "redis-cli -e -s redis.sock set __ID__ 29", "OK"),
            (1, "inc", "redis-cli -e -s redis.sock incrby __ID__ 12", "OK"),
            (2, "inc", "redis-cli -e -s redis.sock sadd __ID__ member", "KO"),
        ],
        shown: "41\n",
    },
    // Of the values that were set at two sites the later one counts, and what was added to either.
    Row {
        name: "simple-app",
        matrix: COUNTS,
        first: &[("set", "redis-cli -e -s redis.sock set __ID__ 1")],
        apart: true,
        then: &[
            (0, "set", "redis-cli -e -s redis.sock set __ID__ 13", "OK"),
            (0, "inc", "redis-cli -e -s redis.sock incrby __ID__ 7", "OK"),
            (0, "inc", "redis-cli -e -s redis.sock incrby __ID__ 2", "OK"),
            (2, "set", "redis-cli -e -s redis.sock set __ID__ 3", "OK"),
            (2, "inc", "redis-cli -e -s redis.sock incrby __ID__ -4", "OK"),
            (2, "inc", "redis-cli -e -s redis.sock incrby __ID__ -1", "OK"),
        ],
        shown: "7\n",
    },
];

#[tokio::test]
async fn values_in_redis_are_the_same_in_every_case() {
    let lab = Lab::new();
    let names = ["paris", "rennes", "nantes"];
    let builders = names.map(|name| {
        let get = "command = ['redis-cli', '-s', 'redis.sock', '--raw', 'get', '{id}']";
        let del = "command = ['redis-cli', '-e', '-s', 'redis.sock', 'del', '{id}']";
        configured(&lab, name, "", &format!("[observe]\n{get}\n[reset]\n{del}\n[delete]\n{del}\n"))
    });
    let servers = builders.each_ref().map(|builder| {
        let dir = builder.dir().join("replicas");
        std::fs::create_dir_all(&dir).expect("a directory");
        Redis::start(&dir)
    });
    if servers.iter().any(Option::is_none) {
        return;
    }
    let sites = start(&lab, builders).await;
    let (show, file) = ("redis-cli -s redis.sock --raw get __ID__", |_: &str, _: &str| String::new());
    let platform = Platform { lab: &lab, sites: &sites, show, show_all: show, file };
    for row in WITH_REDIS {
        platform.play(row).await;
    }
}

const OBJECTS: &[[&str; 3]] = &[
    ["create", "apply", "both-reverse-order"],
    ["apply", "create", "both-keep-order"],
    ["apply", "apply", "one"],
    ["create", "patch", "both-keep-order"],
    ["patch", "create", "both-reverse-order"],
    ["apply", "scale", "both-keep-order"],
    ["scale", "apply", "both-reverse-order"],
];

/// `test_kube`, and `test_kube.sh`.
const WITH_KUBECTL: &[Row] = &[
    Row {
        name: "simple",
        matrix: OBJECTS,
        first: &[("create", "kubectl create -f {recipe.yml} #1")],
        apart: false,
        then: &[
            (0, "apply", "kubectl apply -f {recipe.yml} #2", "OK"),
            (1, "apply", "kubectl patch deployment __ID__ -p '{\"spec\": {\"replicas\": 3}}'", "OK"),
            (2, "apply", "kubectl replace -f {recipe.yml} #4", "OK"),
        ],
        shown: "4",
    },
    Row {
        name: "simple-with-disconnect",
        matrix: OBJECTS,
        first: &[("create", "kubectl create -f {recipe.yml} #1")],
        apart: true,
        then: &[
            (0, "apply", "kubectl apply -f {recipe.yml} #2", "OK"),
            (1, "apply", "kubectl patch deployment __ID__ -p '{\"spec\": {\"replicas\": 3}}'", "OK"),
            (2, "apply", "kubectl replace -f {recipe.yml} #4", "OK"),
        ],
        shown: "4",
    },
    // What takes the place of all others, and fails everywhere, leaves nothing of them.
    Row {
        name: "simple-with-failure",
        matrix: OBJECTS,
        first: &[("create", "kubectl create -f {recipe.yml} #1")],
        apart: true,
        then: &[
            (0, "apply", "kubectl apply -f {recipe.yml} #2", "OK"),
            (1, "apply", "kubectl patch deployment __ID__ -p '{\"spec\": {\"replicas\": 3}}'", "OK"),
            (2, "apply", "kubectl replace -f {recipe.yml} #not-a-number", "KO"),
        ],
        shown: "",
    },
    Row {
        name: "two-versions-and-a-scale",
        matrix: OBJECTS,
        first: &[("apply", "kubectl apply -f {recipe.yml} #1")],
        apart: true,
        then: &[
            (0, "scale", "kubectl scale deployment __ID__ --replicas=5", "OK"),
            (2, "apply", "kubectl apply -f {recipe.yml} #2", "OK"),
        ],
        shown: "5",
    },
];

fn recipe(name: &str, replicas: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  selector: \
         {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec: {{containers: \
         [{{name: web, image: 'nginx:1'}}]}}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_that_kubectl_writes_are_the_same_in_every_case() {
    let names = ["paris", "rennes", "nantes"];
    let Some(clusters) = Builder::start_all(names.map(Cluster::builder)) else { return };
    let Some(programs) = Programs::required() else { return };
    let path = programs.kubectl.parent().expect("a directory").display().to_string();
    let lab = Lab::new();
    let builders = clusters.each_ref().map(|cluster| {
        let get = "command = 'kubectl get deployment {id} --ignore-not-found -o jsonpath={.spec}'";
        let delete = "command = 'kubectl delete deployment {id} --ignore-not-found'";
        let environment = format!(
            "[environment]\nPATH = '{path}:/usr/bin:/bin'\nHOME = '/nonexistent'\nKUBECONFIG = '{}'\n",
            cluster.kubeconfig(ADMIN).display()
        );
        let tables = format!("{environment}[observe]\n{get}\n[reset]\n{delete}\n[delete]\n{delete}\n");
        configured(&lab, cluster.name(), "", &tables)
    });
    let sites = start(&lab, builders).await;
    let platform = Platform {
        lab: &lab,
        sites: &sites,
        show: "kubectl get deployment __ID__ --ignore-not-found -o jsonpath={.spec.replicas}",
        show_all: "kubectl get deployment __ID__ --ignore-not-found -o jsonpath={.spec}",
        file: recipe,
    };
    for row in WITH_KUBECTL {
        platform.play(row).await;
    }
}

"""One OpenStack cloud on loopback, for tests: no agents, no message broker, SQLite for databases.

usage: cloud.py make DIR                       makes a cloud that nobody has used yet
       cloud.py settle DIR PORT SECONDS [SERVICE]...
                                               tells one, or a copy, where it is now: in DIR, and at PORT and those after it;
                                               how long its tokens are good; and what its catalog shall list beside keystone
       cloud.py serve SERVICE DIR PORT         runs keystone (PORT), glance (PORT + 1), placement (+ 2), nova (+ 3) or neutron (+ 4)
"""

import configparser
import importlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = Path(sys.executable).parent.parent
PASSWORD = "secret"  # of the user admin
OF_SERVICES = "service-secret"
REGION = "RegionOne"
# Name, type in the catalog, what the address ends with; each has a port of its own, in this order.
SERVICES = [
    ("keystone", "identity", "/v3"),
    ("glance", "image", ""),
    ("placement", "placement", ""),
    ("nova", "compute", "/v2.1"),
    ("neutron", "network", ""),
]
APPS = {
    "keystone": "keystone.wsgi.api",
    "glance": "glance.wsgi.api",
    "placement": "placement.wsgi.api",
    "neutron": "neutron.wsgi.api",
}
HOST = "compute"  # what the one fake hypervisor is called


def write(path, sections):
    """Writes a configuration file of oslo.config."""
    config = configparser.RawConfigParser(default_section="none", strict=True)
    config.optionxform = str
    config.read_dict(sections)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        config.write(file)


def database(cloud, name):
    # Whoever finds it locked waits: machines that build in parallel are slow.
    return f"sqlite:///{cloud}/db/{name}.db?timeout=60"


def account(port, name):
    """How a service says to Keystone who it is."""
    return {
        "auth_url": f"http://127.0.0.1:{port}",
        "auth_type": "password",
        "username": name,
        "password": OF_SERVICES,
        "project_name": "service",
        "user_domain_id": "default",
        "project_domain_id": "default",
        "region_name": REGION,
        "valid_interfaces": "public",
    }


def asks_keystone(port, name, whole):
    """How a service knows who asks it for something. Where there are few of them, nothing is kept, so that a token that is no
    good any more is refused at once; a whole cloud would be at nothing else."""
    own = account(port, name)
    del own["valid_interfaces"]
    more = {"www_authenticate_uri": f"http://127.0.0.1:{port}", "service_token_roles_required": "true"}
    return own | more | {"token_cache_time": "300" if whole else "-1", "interface": "public"}


def configure(cloud, port, lifetime, whole):
    """Writes all configuration files."""
    locks = {"lock_path": f"{cloud}/lock"}
    quiet = {"driver": "noop"}
    write(
        cloud / "etc/keystone/keystone.conf",
        {
            "DEFAULT": {"log_file": f"{cloud}/log/keystone-api.log"},
            "database": {"connection": database(cloud, "keystone")},
            "token": {"provider": "fernet", "expiration": str(lifetime), "allow_expired_window": "0"},
            "fernet_tokens": {"key_repository": f"{cloud}/etc/fernet-keys"},
            "credential": {"key_repository": f"{cloud}/etc/credential-keys"},
            "cache": {"enabled": "false"},
        },
    )
    write(
        cloud / "etc/glance/glance-api.conf",
        {
            "DEFAULT": {"log_file": f"{cloud}/log/glance-api.log", "enabled_backends": "files:file"},
            "files": {"filesystem_store_datadir": f"{cloud}/images"},
            "glance_store": {"default_backend": "files"},
            "os_glance_tasks_store": {"filesystem_store_datadir": f"{cloud}/tasks"},
            "os_glance_staging_store": {"filesystem_store_datadir": f"{cloud}/staging"},
            "database": {"connection": database(cloud, "glance")},
            "paste_deploy": {"flavor": "keystone", "config_file": f"{VENV}/etc/glance/glance-api-paste.ini"},
            "oslo_concurrency": locks,
            "keystone_authtoken": asks_keystone(port, "glance", whole),
        },
    )
    write(
        cloud / "etc/placement/placement.conf",
        {
            "DEFAULT": {"log_file": f"{cloud}/log/placement-api.log"},
            "placement_database": {"connection": database(cloud, "placement")},
            "api": {"auth_strategy": "keystone"},
            "keystone_authtoken": asks_keystone(port, "placement", whole),
        },
    )
    write(
        cloud / "etc/neutron/neutron.conf",
        {
            "DEFAULT": {
                "log_file": f"{cloud}/log/neutron-api.log",
                "core_plugin": "ml2",
                "service_plugins": "router",
                "auth_strategy": "keystone",
                "transport_url": "fake://",
                "rpc_workers": "0",
                "api_workers": "1",
                "notify_nova_on_port_status_changes": "false",
                "notify_nova_on_port_data_changes": "false",
                "api_paste_config": f"{VENV}/etc/neutron/api-paste.ini",
                "state_path": f"{cloud}/state",
            },
            "database": {"connection": database(cloud, "neutron")},
            "oslo_concurrency": locks,
            "oslo_messaging_notifications": quiet,
            "ml2": {
                "type_drivers": "local",
                "tenant_network_types": "local",
                "mechanism_drivers": "khufu_bind",
                "extension_drivers": "port_security",
            },
            "keystone_authtoken": asks_keystone(port, "neutron", whole),
        },
    )
    (cloud / "etc/nova").mkdir(parents=True, exist_ok=True)
    shutil.copy(VENV / "etc/nova/api-paste.ini", cloud / "etc/nova")
    write(
        cloud / "etc/nova/nova.conf",
        {
            "DEFAULT": {
                "log_file": f"{cloud}/log/nova-all.log",
                "transport_url": "fake://",
                "my_ip": "127.0.0.1",
                "host": HOST,
                "compute_driver": "fake.FakeDriver",
                "state_path": f"{cloud}/state",
                "rpc_response_timeout": "300",
                # Nobody tells that a port is up.
                "vif_plugging_timeout": "0",
                "vif_plugging_is_fatal": "false",
            },
            "api": {"auth_strategy": "keystone"},
            "wsgi": {"api_paste_config": f"{VENV}/etc/nova/api-paste.ini"},
            "api_database": {"connection": database(cloud, "nova_api")},
            "database": {"connection": database(cloud, "nova_cell1")},
            "oslo_concurrency": locks,
            "oslo_messaging_notifications": quiet,
            "glance": {"region_name": REGION, "valid_interfaces": "public"},
            "neutron": account(port, "neutron"),
            "placement": account(port, "placement"),
            "service_user": account(port, "nova") | {"send_service_user_token": "true"},
            "cache": {"enabled": "false"},
            "keystone_authtoken": asks_keystone(port, "nova", whole),
        },
    )


def environment(cloud):
    """Where the services look for their configuration."""
    etc = cloud / "etc"
    return {
        "OS_KEYSTONE_CONFIG_FILES": f"{etc}/keystone/keystone.conf",
        "OS_GLANCE_CONFIG_DIR": f"{etc}/glance",
        "OS_GLANCE_CONFIG_FILES": f"{etc}/glance/glance-api.conf",
        "OS_PLACEMENT_CONFIG_DIR": f"{etc}/placement",
        "OS_NEUTRON_CONFIG_DIR": f"{etc}/neutron",
        "OS_NEUTRON_CONFIG_FILES": f"{etc}/neutron/neutron.conf",
        "OS_NOVA_CONFIG_DIR": f"{etc}/nova",
    }


def change(path, statement, *values):
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement, values)
    connection.close()


def settle(cloud, port, lifetime, services):
    """A copy knows where the cloud was that it was made from: in its configuration, its catalog, and the list of cells."""
    configure(cloud, port, lifetime, "nova" in services)
    for number, (name, kind, end) in enumerate(SERVICES):
        change(
            cloud / "db/keystone.db",
            "update endpoint set url = ?, enabled = ? where service_id in (select id from service where type = ?)",
            f"http://127.0.0.1:{port + number}{end}",
            name == "keystone" or name in services,
            kind,
        )
    for name in ("cell0", "cell1"):
        to = database(cloud, f"nova_{name}")
        change(cloud / "db/nova_api.db", "update cell_mappings set database_connection = ? where name = ?", to, name)


def run(name, *arguments):
    subprocess.run([VENV / "bin" / name, *arguments], check=True, stdin=subprocess.DEVNULL)


def ask(url, method, path, body=None, token=None):
    data = json.dumps(body).encode() if body is not None else None
    headers = {"Content-Type": "application/json"} | ({"X-Auth-Token": token} if token else {})
    request = urllib.request.Request(url + path, data=data, headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read()
        return answer.headers, json.loads(text) if text else None


def register(url, port):
    """Makes the users of the services and the catalog, through the API of Keystone."""
    user = {"name": "admin", "domain": {"id": "default"}, "password": PASSWORD}
    scope = {"project": {"name": "admin", "domain": {"id": "default"}}}
    auth = {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}
    token = ask(url, "POST", "/auth/tokens", {"auth": auth})[0]["X-Subject-Token"]

    def make(what, body):
        return ask(url, "POST", f"/{what}s", {what: body}, token)[1][what]["id"]

    project = make("project", {"name": "service", "domain_id": "default"})
    roles = {role["name"]: role["id"] for role in ask(url, "GET", "/roles", token=token)[1]["roles"]}
    if "service" not in roles:
        roles["service"] = make("role", {"name": "service"})
    for number, (name, kind, end) in enumerate(SERVICES):
        if name == "keystone":
            continue
        user = make("user", {"name": name, "password": OF_SERVICES, "domain_id": "default"})
        for role in ("admin", "service"):
            ask(url, "PUT", f"/projects/{project}/users/{user}/roles/{roles[role]}", token=token)
        service = make("service", {"name": name, "type": kind})
        endpoint = {"service_id": service, "region_id": REGION, "url": f"http://127.0.0.1:{port + number}{end}"}
        for interface in ("public", "internal", "admin"):
            make("endpoint", endpoint | {"interface": interface})


def unused():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def make(cloud):
    """A cloud with its databases and users."""
    port = unused()
    for name in ("db", "log", "lock", "images", "tasks", "staging", "state"):
        (cloud / name).mkdir(parents=True)
    configure(cloud, port, 3600, True)
    keystone = ("--config-file", cloud / "etc/keystone/keystone.conf")
    owner = (f"--keystone-user={os.getuid()}", f"--keystone-group={os.getgid()}")
    run("keystone-manage", *keystone, "db_sync")
    run("keystone-manage", *keystone, "fernet_setup", *owner)
    run("keystone-manage", *keystone, "credential_setup", *owner)
    url = f"http://127.0.0.1:{port}/v3"
    urls = [f"--bootstrap-{interface}-url={url}" for interface in ("admin", "internal", "public")]
    run("keystone-manage", *keystone, "bootstrap", f"--bootstrap-password={PASSWORD}", f"--bootstrap-region-id={REGION}", *urls)
    server = subprocess.Popen([sys.executable, __file__, "serve", "keystone", cloud, str(port)], stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                ask(url, "GET", "")
                break
            except (urllib.error.URLError, OSError):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        register(url, port)
    finally:
        server.terminate()
        server.wait()
    run("glance-manage", "--config-file", cloud / "etc/glance/glance-api.conf", "db_sync")
    run("placement-manage", "--config-file", cloud / "etc/placement/placement.conf", "db", "sync")
    tables = "from sqlalchemy import create_engine; from neutron.db.migration.models import head; import sys;"
    # Migrations of Neutron change constraints, which SQLite cannot; its models have all that they lead to.
    tables += f"head.get_metadata().create_all(create_engine({database(cloud, 'neutron')!r}))"
    run("python", "-c", tables)
    run("neutron-db-manage", "--config-file", cloud / "etc/neutron/neutron.conf", "stamp", "heads")
    nova = ("--config-file", cloud / "etc/nova/nova.conf")
    run("nova-manage", *nova, "api_db", "sync")
    run("nova-manage", *nova, "cell_v2", "map_cell0", "--database_connection", database(cloud, "nova_cell0"))
    run("nova-manage", *nova, "cell_v2", "create_cell", "--name=cell1")
    run("nova-manage", *nova, "db", "sync")
    for log in (cloud / "log").iterdir():
        log.unlink()


def nova():
    """All of Nova in one process: what is sent over `fake://` stays in it."""
    from nova import monkey_patch

    monkey_patch.patch(backend="threading")
    from nova.api.openstack import wsgi_app

    app = wsgi_app.init_application("osapi_compute", "nova-api-os-compute")
    import os_vif
    from nova import context, objects, service
    from nova.compute import rpcapi as compute
    from nova.conductor import rpcapi as conductor
    from nova.objects import host_mapping
    from nova.scheduler import rpcapi as scheduler

    objects.register_all()
    os_vif.initialize()
    parts = [
        {"binary": "nova-conductor", "topic": conductor.RPC_TOPIC},
        {"binary": "nova-scheduler", "topic": scheduler.RPC_TOPIC},
        {"binary": "nova-compute", "topic": compute.RPC_TOPIC, "topic_alt": compute.RPC_TOPIC_ALT, "host": HOST},
    ]
    for part in parts:
        running = service.Service.create(**part)
        running.start()
        # It ends when nobody has it any more.
        nova.parts.append(running)
    host_mapping.discover_hosts(context.get_admin_context())
    return app


nova.parts = []


def serve(name, cloud, port):
    # Nothing is left beside the sources.
    sys.dont_write_bytecode = True
    os.environ.update(environment(cloud))
    sys.path.insert(0, str(HERE / "bind"))
    # The services read the command line, too.
    sys.argv = [name]
    app = nova() if name == "nova" else importlib.import_module(APPS[name]).application
    import waitress

    number = [service for service, _, _ in SERVICES].index(name)
    # Two of Neutron's at once are in each other's way: what reads and then writes finds SQLite locked, and does not wait.
    threads = 1 if name == "neutron" else 4
    try:
        waitress.serve(app, host="127.0.0.1", port=port + number, threads=threads, ident=None)
    except OSError as error:
        # At once, and as the last word: threads of services do not take an end well.
        print(error, file=sys.stderr, flush=True)
        os._exit(1)


def main():
    match sys.argv[1:]:
        case ["make", cloud]:
            make(Path(cloud).resolve())
        case ["settle", cloud, port, lifetime, *services]:
            settle(Path(cloud).resolve(), int(port), int(lifetime), services)
        case ["serve", name, cloud, port]:
            serve(name, Path(cloud).resolve(), int(port))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()

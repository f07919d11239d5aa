//! The kinds of resources. Another kind is another entry; what an entry does not say is as in the one it is made from.

use super::{Fields, Kind, Mark, Part, Service, Status, Update};

/// What resources of Neutron have in common.
const NEUTRON: Kind = Kind {
    name: "",
    service: Service::Network,
    collection: "",
    listing: "",
    wrapped: true,
    id: "id",
    mark: Mark::Field("description", ""),
    copies: &[],
    owner: &["project_id", "tenant_id"],
    update: Update::Put,
    changes: Fields::Only(&["name", "admin_state_up"]),
    parts: &[],
    fixed: &[],
    shown: &[],
    references: &[("project_id", "project"), ("tenant_id", "project")],
    secret: &[],
    status: None,
};

/// What resources of Keystone have in common.
const KEYSTONE: Kind = Kind {
    service: Service::Identity,
    mark: Mark::Beside("khufu"),
    owner: &[],
    update: Update::Patch,
    changes: Fields::AllBut(&["id", "domain_id", "parent_id", "is_domain", "password", "khufu"]),
    fixed: &["domain_id", "parent_id", "is_domain"],
    references: &[("default_project_id", "project"), ("parent_id", "project")],
    ..NEUTRON
};

/// What resources of Nova have in common.
const NOVA: Kind = Kind {
    service: Service::Compute,
    owner: &[],
    update: Update::Never,
    changes: Fields::Only(&[]),
    references: &[],
    ..NEUTRON
};

/// All kinds, in the order in which they are made. They are removed the other way round.
pub(in crate::openstack) const KINDS: &[Kind] = &[
    Kind { name: "project", collection: "projects", listing: "projects", ..KEYSTONE },
    Kind { name: "role", collection: "roles", listing: "roles", ..KEYSTONE },
    Kind { name: "user", collection: "users", listing: "users", secret: &["password"], ..KEYSTONE },
    Kind {
        name: "flavor",
        collection: "flavors",
        listing: "flavors/detail?is_public=None",
        mark: Mark::Id,
        fixed: &[
            "name",
            "ram",
            "vcpus",
            "disk",
            "OS-FLV-EXT-DATA:ephemeral",
            "rxtx_factor",
            "os-flavor-access:is_public",
        ],
        parts: &[Part { field: "extra_specs", path: "os-extra_specs", method: "POST", at_creation: false }],
        ..NOVA
    },
    Kind {
        name: "keypair",
        collection: "os-keypairs",
        listing: "os-keypairs",
        id: "name",
        mark: Mark::Name,
        owner: &["user_id"],
        fixed: &["public_key", "type"],
        references: &[("user_id", "user")],
        ..NOVA
    },
    Kind {
        name: "image",
        service: Service::Image,
        collection: "images",
        listing: "images",
        wrapped: false,
        mark: Mark::Field("khufu", "visibility=all&"),
        // Snapshots and backups of a server take over what stood at its image.
        copies: &["image_type", "base_image_ref", "instance_uuid"],
        owner: &["owner"],
        update: Update::Json,
        changes: Fields::AllBut(&[
            "id",
            "khufu",
            "disk_format",
            "container_format",
            "owner",
            "status",
            "checksum",
            "size",
            "locations",
            "data",
            "created_at",
            "updated_at",
            "os_hash_algo",
            "os_hash_value",
            "virtual_size",
            "direct_url",
            "self",
            "schema",
            "file",
        ]),
        fixed: &["disk_format", "container_format", "owner"],
        references: &[("owner", "project")],
        status: Some(Status {
            ready: &["active", "queued", "deactivated"],
            failed: &["killed", "deleted"],
            fault: "/message",
        }),
        ..NEUTRON
    },
    Kind {
        name: "network",
        collection: "networks",
        listing: "networks",
        changes: Fields::Only(&[
            "name",
            "admin_state_up",
            "mtu",
            "shared",
            "router:external",
            "port_security_enabled",
            "dns_domain",
            "is_default",
        ]),
        fixed: &["provider:network_type", "provider:physical_network", "provider:segmentation_id"],
        status: Some(Status { ready: &["ACTIVE", "DOWN"], failed: &["ERROR"], fault: "" }),
        ..NEUTRON
    },
    Kind {
        name: "security_group",
        collection: "security-groups",
        listing: "security-groups",
        changes: Fields::Only(&["name", "stateful"]),
        ..NEUTRON
    },
    Kind {
        name: "security_group_rule",
        collection: "security-group-rules",
        listing: "security-group-rules",
        update: Update::Never,
        changes: Fields::Only(&[]),
        fixed: &[
            "security_group_id",
            "direction",
            "ethertype",
            "protocol",
            "port_range_min",
            "port_range_max",
            "remote_ip_prefix",
            "remote_group_id",
        ],
        references: &[
            ("security_group_id", "security_group"),
            ("remote_group_id", "security_group"),
            ("project_id", "project"),
        ],
        ..NEUTRON
    },
    Kind {
        name: "subnet",
        collection: "subnets",
        listing: "subnets",
        changes: Fields::Only(&[
            "name",
            "enable_dhcp",
            "dns_nameservers",
            "allocation_pools",
            "host_routes",
            "gateway_ip",
        ]),
        fixed: &["network_id", "ip_version", "cidr", "ipv6_ra_mode", "ipv6_address_mode"],
        references: &[("network_id", "network"), ("project_id", "project")],
        ..NEUTRON
    },
    Kind {
        name: "router",
        collection: "routers",
        listing: "routers",
        changes: Fields::Only(&["name", "admin_state_up", "external_gateway_info", "routes", "distributed"]),
        references: &[("network_id", "network"), ("subnet_id", "subnet"), ("project_id", "project")],
        status: Some(Status { ready: &["ACTIVE", "DOWN"], failed: &["ERROR"], fault: "" }),
        ..NEUTRON
    },
    Kind {
        name: "port",
        collection: "ports",
        listing: "ports",
        changes: Fields::Only(&[
            "name",
            "admin_state_up",
            "security_groups",
            "fixed_ips",
            "allowed_address_pairs",
            "port_security_enabled",
            "extra_dhcp_opts",
            "dns_name",
        ]),
        fixed: &["network_id", "mac_address"],
        references: &[
            ("network_id", "network"),
            ("subnet_id", "subnet"),
            ("security_groups", "security_group"),
            ("project_id", "project"),
        ],
        ..NEUTRON
    },
    Kind {
        name: "floatingip",
        collection: "floatingips",
        listing: "floatingips",
        changes: Fields::Only(&["port_id", "fixed_ip_address"]),
        fixed: &["floating_network_id", "floating_ip_address"],
        references: &[
            ("floating_network_id", "network"),
            ("subnet_id", "subnet"),
            ("port_id", "port"),
            ("project_id", "project"),
        ],
        status: Some(Status { ready: &["ACTIVE", "DOWN"], failed: &["ERROR"], fault: "" }),
        ..NEUTRON
    },
    Kind {
        name: "volume",
        service: Service::Volume,
        collection: "volumes",
        listing: "volumes/detail",
        mark: Mark::Metadata,
        owner: &["os-vol-tenant-attr:tenant_id"],
        changes: Fields::Only(&["name", "description"]),
        parts: &[Part { field: "metadata", path: "metadata", method: "POST", at_creation: true }],
        fixed: &["size", "availability_zone", "volume_type"],
        references: &[("imageRef", "image"), ("source_volid", "volume")],
        status: Some(Status {
            ready: &["available", "in-use"],
            failed: &["error", "error_deleting", "error_extending", "error_restoring", "error_managing"],
            fault: "",
        }),
        ..NEUTRON
    },
    Kind {
        name: "server",
        collection: "servers",
        listing: "servers/detail",
        mark: Mark::Tags,
        owner: &["tenant_id"],
        update: Update::Put,
        changes: Fields::Only(&["name", "description", "accessIPv4", "accessIPv6"]),
        parts: &[Part { field: "metadata", path: "metadata", method: "POST", at_creation: true }],
        fixed: &["imageRef", "key_name"],
        shown: &[("imageRef", "/image/id")],
        references: &[
            ("imageRef", "image"),
            ("flavorRef", "flavor"),
            ("key_name", "keypair"),
            ("uuid", "network"),
            ("port", "port"),
            ("volume_id", "volume"),
            ("source_id", "volume"),
        ],
        secret: &["adminPass"],
        status: Some(Status {
            ready: &[
                "ACTIVE",
                "SHUTOFF",
                "PAUSED",
                "SUSPENDED",
                "RESCUED",
                "SHELVED",
                "SHELVED_OFFLOADED",
                "VERIFY_RESIZE",
            ],
            failed: &["ERROR", "DELETED", "SOFT_DELETED"],
            fault: "/fault/message",
        }),
        ..NOVA
    },
];

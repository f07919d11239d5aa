//! Geo-distribute the resources of any service.

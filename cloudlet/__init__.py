"""The cloudlet co-located with a router: compute nodes, VIs, placement, scaling, migration.

- `errors`             every error this room raises; who is wrong decides the class
- `toml_files`         TOML files checked against models, each mistake one readable sentence
- `limits`             what one VI may use of its node
- `vi_types`           the catalogue of VI types

The node side
- `containers`         frozen values of containers and nodes, and the interface of a compute node
- `policy`             what a container may be, and the check of LXD's live configuration
- `container_config`   from a wish to LXD's configuration
- `addresses`          one number for each VI, its addresses on both bridges
- `filters`            what may come from the bridges, as tables of nftables
- `network`            bridges and tables on this machine
- `images`             root file systems of VIs: built, kept, named by what they are made of
- `lxd`                compute nodes that are LXD servers or members of a cluster

The controller
- `core`               its decisions: events in, commands out
- `controller`         its shell: what is seen becomes events, commands become calls
- `store`              what it keeps, in SQLite
- `caps`               what VIs can make grow, and where that stops
- `late_node`          a compute node that is away when the controller starts
- `links`              its end of the control links to VIs
- `router_client`      the router's table over its management API
- `config`             the config file
- `image_files`        which image each service runs from
- `launches`           from the config file to containers and launches
- `schemas`            what the management API takes and answers
- `view`               a running controller as the API shows it
- `api`                the management API
- `openapi`            its description, in openapi.json
- `metrics`            for Prometheus
- `daemon`             all of it as a process
- `client`             asks a running controller's API
- `removal`            the end of a cloudlet
"""

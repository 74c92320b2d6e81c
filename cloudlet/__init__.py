"""The cloudlet co-located with a router: compute nodes, VIs, placement, scaling, migration.

- `errors`             every error this room raises; who is wrong decides the class
- `limits`             what one VI may use of its node
- `vi_types`           the catalogue of VI types

The node side
- `containers`         frozen values of containers and nodes, and the interface of a compute node
- `policy`             what a container may be, and the check of LXD's live configuration
- `container_config`   from a wish to LXD's configuration
- `addresses`          one number for each VI, its addresses on both bridges
- `filters`            what may come from the bridges, as tables of nftables
- `tunnels`            how bridges of several machines are joined
- `tunnel_devices`     tunnels on this machine
- `egress`             what a service is granted in the IP network
- `egress_config`      the same from the config file
- `egress_filters`     the tables that hold VIs to it
- `egress_counts`      what VIs tried there, as nft lists it
- `admission`          which VIs may use it now
- `bridges`            bridges on this machine
- `forwarding`         this machine as a router between VIs and the IP network
- `network`            bridges and tables on this machine, as one
- `far_network`        from the plan of one machine to that of another
- `node_script`        the program that makes another machine a node
- `images`             root file systems of VIs: built, kept, named by what they are made of
- `lxd`                compute nodes that are LXD servers or members of a cluster

The controller
- `core`               its decisions: events in, commands out
- `container_checks`   what a look at a node's containers means
- `controller`         its shell: what is seen becomes events, commands become calls
- `egress_keeper`      lets VIs in as they come and go
- `alarm`              its timer, which minds that the process may have stood still
- `store`              what it keeps, in SQLite
- `caps`               what VIs can make grow, and where that stops
- `late_node`          a compute node that is away when the controller starts
- `callers`            who calls its control port how often
- `process_node`       this machine as a compute node, without LXD: VIs are child processes
- `links`              its end of the control links to VIs
- `router_client`      the router's table over its management API
- `router_rules`       the router's rules: brings documents, looks at what is there
- `surroundings`       the router's address, its hosts, and routers that it reaches
- `lanes`              the folder where the router shares memory, checked before VIs see it
- `router_bounds`      how much that table takes
- `config`             the config file
- `config_tables`      its tables: what each may say
- `declared_services`  what is read for each service of it
- `service_files`      their files, looked at again: VIs get what changed
- `image_files`        which image each service runs from
- `launches`           from the config file to containers and launches
- `schemas`            what the management API takes and answers
- `view`               a running controller as the API shows it
- `api`                the management API
- `openapi`            its description, in openapi.json
- `metrics`            for Prometheus
- `daemon`             all of it as a process
- `client`             asks a running controller's API
- `domain_link`        its end of the channel to the domain controller
- `removal`            the end of a cloudlet
"""

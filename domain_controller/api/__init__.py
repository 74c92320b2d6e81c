"""The API of a domain controller: signed requests in, problem details or answers out.

- `signatures`    what a signature must cover and say (RFC 9421), and both ends of it
- `nonces`        requests that changed nothing are answered once
- `known_keys`    whose keys signed lately
- `access`        who may ask for what
- `gate`          what every request passes before the app
- `problems`      every answer that is not what was asked for (RFC 9457)
- `problem_info`  such an answer as it is sent
- `fields`        the kinds of values
- `asked`         what requests carry
- `answered`      what answers carry
- `changes`       what requests change
- `port`          what the API needs of the state
- `kept`          what requests change, each in one transaction of the state
- `kept_entries`  those of the registry, and bills
- `kept_registry` readings of the registry
- `kept_places`   readings about places and money
- `endpoints`     what all endpoints share
- `registry`      tenants, keys, cloudlets, VI types, services, rules
- `reservations`  quotes, the calendar, reservations, operations
- `money`         usage, bills, price lists
- `feed`          who waits for something new, and streams of events
- `app`           all of it
- `openapi`       its description, in docs/reference/domain-api.json

Source: docs/decisions/0015-domain-controller.md; docs/reference/domain-requests.md.
"""

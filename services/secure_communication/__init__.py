"""Bundled service: encrypts payloads where they leave a trusted network, decrypts them on arrival.

- `service`   SecureCommunication, the NetworkService
- `sealing`   XAES-256-GCM, bound to the chunk, its payload type inside
- `freshness` for how long what was sealed may be opened
- `suites`    format 1: AES-128-CBC for the paper's figures, AES-256-GCM to be read
- `keys`      the key file: several keys, each with an id and the time from which it encrypts
- `key_ring`  the keys of a running service: the file's, as it is now

Source: MobiArch'13 paper, section 3.4 (on-path encryption) and 4.1;
docs/reference/secure-communication.md.
"""

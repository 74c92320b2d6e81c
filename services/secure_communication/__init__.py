"""Bundled service: encrypts payloads where they leave a trusted network, decrypts them on arrival.

- `service`  SecureCommunication, the NetworkService
- `suites`   AES-128-CBC and AES-256-GCM over whole payloads, into a given buffer
- `keys`     the service's key file: several keys, each with an id, the newest encrypts

Source: MobiArch'13 paper, section 3.4 (on-path encryption) and 4.1; docs/how-to/write-a-service.md.
"""
